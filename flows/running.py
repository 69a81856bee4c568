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
    from ..parties.starts import Start
    from .embedded import EmbeddedServer
    from .jobs import Job


_NEXT = {  # after a demo: a command and its job
    "vertical": ("check", "vertical.yaml"),
    "transfer": ("check", "transfer.yaml"),
    "horizontal": ("run", "statistics.yaml"),
}


def prepare_prefect(homes: Path, runs: Path, *, quiet: bool = True) -> None:
    """Set what Prefect and our flows read from the environment, before Prefect is imported.

    Logs do not go to the server, since a trace holds paths; nothing calls out; a user sees our screen, not
    Prefect's log.
    """
    os.environ["ISTHMUS_HOMES"], os.environ["ISTHMUS_RUNS"] = str(homes.resolve()), str(runs.resolve())
    set_prefect_defaults(quiet=quiet)


def set_prefect_defaults(*, quiet: bool = True) -> None:
    """What of Prefect's settings is ours to choose, unless somebody has chosen already."""
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


def find_homes(job: Job, homes: Path) -> None:
    """Raise `InputError` unless every member of a job has its home in a folder."""
    for member in job.members:
        named_home(homes, member)


def run_and_show(
    job: Job,
    *,
    homes: Path,
    runs: Path,
    fresh: bool = False,
    baselines: bool = False,
    json: bool = False,
    demo: bool = False,
    start: Start | None = None,
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
            from . import attempt, coordinate  # while it starts
            from .report import closing_lines, text_table

            if server is not None:
                server.wait()
        attempt.LISTENERS.set((screen,))
        with screen.showing():
            options: dict[str, Any] = {"baselines": True} if baselines else {}
            options["signature"] = start.model_dump_json() if start else ""
            model = asyncio.run(coordinate.flow_of(job.kind)(job, fresh=fresh, **options))
        folder = runs / model.run
        if json:
            sys.stdout.write(json_module.dumps(model.summary) + "\n")
            return
        out.print()
        out.print(text_table(model.summary))
        own = closing_lines(model.summary)
        for line in ["", *own, *_closing_lines(model.summary, homes, folder, time.monotonic() - began, demo=demo)]:
            out.print(line, soft_wrap=True)


def show_hospitals(*, homes: Path, runs: Path, patients: int | None, rounds: int | None, json: bool) -> None:
    """The demo of five hospitals: make their homes, run their job."""
    from .hospitals import HOSPITALS_FILE, make_hospitals
    from .jobs import load_job

    make_hospitals(homes, patients=patients)
    job = load_job(homes / HOSPITALS_FILE)
    if rounds is not None:
        job = type(job).model_validate({**job.canonical(), "rounds": {**job.canonical()["rounds"], "count": rounds}})
    if not json:
        console.print(
            "[bold]isthmus demo[/]    five hospitals with the same columns about different\n"
            "                patients (SUPPORT2); who is where is our arrangement\n"
        )
    run_and_show(job, homes=homes, runs=runs, json=json, demo=True)


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


def _closing_lines(summary: dict[str, Any], homes: Path, folder: Path, seconds: float, *, demo: bool) -> list[str]:
    sent = "   ".join(f"left {member} {size_text(nbytes)}" for member, nbytes in summary["bytes_left"].items())
    plot = next((path for path in sorted(folder.glob("*.svg"))), None)
    lines = [
        f"  {sent}   {seconds:.0f} s   ledger ✓",
        f"  report  {folder / 'report.html'}" + (f"   plot  {plot}" if plot else ""),
    ]
    if models := summary["digests"]["models"]:
        parts = (homes / party / "models" / folder.name / "part.safetensors" for party in models)
        lines.append(f"  models  {', '.join(map(str, parts))}")
    if demo:
        verb, file = _NEXT[summary["job"]["kind"]]
        lines.append(f"  next    isthmus {verb} {homes / file} --homes {homes}   isthmus runs   README: your own data")
    return lines
