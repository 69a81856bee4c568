"""Run a job at the terminal: a Prefect server to run it with, the screen while it runs, and what came of it."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..parties.errors import InputError
from .terminal import console, named_home, size_text

if TYPE_CHECKING:
    from .embedded import EmbeddedServer
    from .jobs import VerticalJob


def prepare_prefect(homes: Path, runs: Path, *, quiet: bool = True) -> None:
    """Set what Prefect and our flows read from the environment, before Prefect is imported.

    Logs do not go to the server, since a trace holds paths; nothing calls out; a user sees our screen, not
    Prefect's log.
    """
    os.environ["ISTHMUS_HOMES"], os.environ["ISTHMUS_RUNS"] = str(homes.resolve()), str(runs.resolve())
    defaults = {
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
    }
    if quiet:
        quietened = ("LOGGING_LEVEL", "LOGGING_ROOT_LEVEL", "LOGGING_INTERNAL_LEVEL", "SERVER_LOGGING_LEVEL")
        defaults |= {f"PREFECT_{name}": "CRITICAL" for name in quietened}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def find_homes(job: VerticalJob, homes: Path) -> None:
    """Raise `InputError` unless every party of a job has its home in a folder."""
    for party in job.parties:
        named_home(homes, party.name)


def run_and_show(
    job: VerticalJob,
    *,
    homes: Path,
    runs: Path,
    fresh: bool = False,
    baselines: bool = False,
    json: bool = False,
    demo: bool = False,
) -> None:
    """Run a job through Prefect, draw while it runs, print its result."""
    from .screen import Screen

    find_homes(job, homes)
    began = time.monotonic()
    out = Console(stderr=True, highlight=False) if json else console
    screen = Screen(out, job, baselines=baselines)
    prepare_prefect(homes, runs)
    with ExitStack() as stack:
        with out.status("starting Prefect"):
            server = stack.enter_context(_server())
            from . import coordinate  # while it starts
            from .report import text_table

            if server is not None:
                server.wait()
        coordinate.LISTENERS.set((screen,))
        with screen.showing():
            model = asyncio.run(coordinate.vertical(job, fresh=fresh, baselines=baselines))
        folder = runs / model.run
        if json:
            sys.stdout.write(json_module.dumps(model.summary) + "\n")
            return
        out.print()
        out.print(text_table(model.summary))
        for line in _closing_lines(job, model.summary, homes, folder, time.monotonic() - began, demo=demo):
            out.print(line, soft_wrap=True)


def require_server() -> None:
    """Raise `InputError` ``prefect.unreachable`` unless a Prefect server is configured and answers."""
    from prefect.settings import PREFECT_API_URL

    try:
        _must_answer(PREFECT_API_URL.value() or "")
    except InputError as error:
        error.next = "`prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        raise


def _must_answer(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=10):  # noqa: S310  (the user's setting)
            pass
    except urllib.error.HTTPError:  # it answers: what it lacks (a login, say) Prefect itself tells
        pass
    except (OSError, ValueError) as failure:
        raise InputError("prefect.unreachable", detail=str(failure)) from failure


@contextmanager
def _server() -> Iterator[EmbeddedServer | None]:
    """The Prefect server that is configured, if it answers (None); without one, one of our own, still starting."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if url := PREFECT_API_URL.value():
        _must_answer(url)
        yield None
        return
    from .embedded import embedded_server

    with embedded_server() as server, temporary_settings(updates={PREFECT_API_URL: server.url}):
        yield server


def _closing_lines(
    job: VerticalJob, summary: dict[str, Any], homes: Path, folder: Path, seconds: float, *, demo: bool
) -> list[str]:
    sent = "   ".join(
        f"left {party.name} {size_text(summary['bytes_left'].get(party.name, 0))}" for party in job.parties
    )
    parts = ", ".join(str(homes / party.name / "models" / folder.name / "part.safetensors") for party in job.parties)
    lines = [
        "",
        *_found_lines(job, summary),
        f"  {sent}   {seconds:.0f} s   ledger ✓",
        f"  report  {folder / 'report.html'}" + (f"   plot  {folder / 'roc.svg'}" if summary["curves"] else ""),
        f"  models  {parts}",
    ]
    if demo:
        lines.append(
            f"  next    isthmus check {homes / 'vertical.yaml'} --homes {homes}   isthmus runs   README: your own data"
        )
    return lines


def _found_lines(job: VerticalJob, summary: dict[str, Any]) -> list[str]:
    """Rows and shared patients, as far as the policies publish them; in a simulation the truth and the gain too."""
    rows = {party.name: summary["parties"][party.name]["rows"] for party in job.parties}
    known = [f"{party} {count:,}" for party, count in rows.items() if count is not None]
    lines = []
    if known and summary["shared"] is not None:
        lines.append(f"  rows    {'   '.join(known)}   shared patients found {summary['shared']:,}")
    compared = summary["baselines"] or {}
    if linkage := compared.get("linkage"):
        precision, recall = linkage["precision"], linkage["recall"]
        lines.append(f"  truth   {linkage['shared']:,} shared   precision {precision:.3f}   recall {recall:.3f}")
    if gain := compared.get("gain"):
        low, high = gain["low"], gain["high"]
        lines.append(f"  gain    {gain['value']:+.3f} AUC over {gain['over']} alone ({low:+.3f} to {high:+.3f})")
    return lines
