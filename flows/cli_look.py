"""`isthmus runs`, `audit`, `keys` and `schema`: what there is to look at."""

from __future__ import annotations

import json as json_module
import sys
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from cyclopts import App

from ..parties.errors import InputError
from . import terminal
from .options import Homes, Json, Runs

audit = App(name="audit", help="What left a party: its ledger.")


def runs(run: str | None = None, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """List the runs, or show one.

    Example: isthmus runs

    Parameters
    ----------
    run
        The run to show.
    """
    terminal.show_runs(runs, run, json=json)


@audit.command
def show(party: str, *, homes: Homes = Path("homes"), run: str | None = None, json: Json = False) -> None:
    """Show what left a party: to whom, for which run, how many bytes.

    Example: isthmus audit show lab --homes demo

    Parameters
    ----------
    party
        The party whose ledger to read.
    run
        Of this run only.
    """
    terminal.show_ledger(homes, party, run, json=json)


@audit.command
def verify(party: str, *, homes: Homes = Path("homes"), json: Json = False) -> None:
    """Recompute the chain of a party's ledger; exit code 1 if it is broken.

    Example: isthmus audit verify lab --homes demo

    Parameters
    ----------
    party
        The party whose ledger to verify.
    """
    terminal.verify_ledger(homes, party, json=json)


def keys(*parties: str, homes: Homes = Path("homes"), json: Json = False) -> None:
    """Print public keys, as every party.yaml pins them for secure aggregation where there is no roster.

    Example: isthmus keys --homes demo

    Parameters
    ----------
    parties
        Of these homes; without any, of all.
    """
    terminal.show_keys(homes, parties, json=json)


def schema(kind: str | None = None) -> None:
    """Print the JSON schema of job files, for an editor.

    Example: isthmus schema > job.schema.json

    Parameters
    ----------
    kind
        Of this kind of job only.
    """
    from pydantic import TypeAdapter

    from .kinds import KINDS, room

    if kind is not None and kind not in KINDS:
        raise InputError("job.invalid", problem=f"there are jobs of kind {' or '.join(KINDS)}", where="schema")
    any_of_them: Any = reduce(or_, (room(one, "job").JOB for one in (KINDS if kind is None else (kind,))))
    whole = TypeAdapter(any_of_them).json_schema()
    sys.stdout.write(json_module.dumps(whole, indent=2) + "\n")
