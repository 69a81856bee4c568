"""What is particular to one kind of job, a package a kind; everything around it asks for it here, by the kind's name.

Each package has the same rooms, and each room the same names::

    job      JOB                                  the job model: YAML, form, what the parties agree on
    phases   phases_of(...)                       what a member's vault does in each phase
    check    look(...), leaving(...), learns(...) what would leave and who would learn what
    explain  protects(...), stands(...), ...      what is hidden by what, from whom, and what is kept
    report   summarise(...), sections(...), ...   what people are shown

Rooms are imported when they are asked for: a job is read without torch, a vault starts without matplotlib. Nothing in
here knows Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, get_args

from ...parties.policy import KindName

__all__ = ["KINDS", "room"]

KINDS: tuple[KindName, ...] = get_args(KindName)


def room(kind: str, name: Literal["job", "phases", "check", "explain", "report"]) -> Any:
    """One room of one kind."""
    if kind not in KINDS:
        raise ValueError(f"there is no kind of job called {kind!r}")
    return import_module(f".{kind}.{name}", __name__)
