"""What the commands print. Kept apart from `cli`, which only says what the commands are."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..parties.errors import InputError, IsthmusError

if TYPE_CHECKING:
    from .check import Check
    from .embedded import EmbeddedServer
    from .jobs import VerticalJob

console = Console(highlight=False)


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
        _home(homes, party.name)


def _home(homes: Path, party: str) -> Path:
    from ..parties.home import find_home

    try:
        return find_home(homes, party)
    except InputError as error:
        error.where = f"--homes {homes}"
        raise


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
    sent = "   ".join(f"left {party.name} {_bytes(summary['bytes_left'].get(party.name, 0))}" for party in job.parties)
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


def show_check(check: Check, homes: Path, *, json: bool) -> None:
    """Print a dry run; raises the first error that would stop the job."""
    if json:
        facts = {
            "parties": [
                {
                    "party": asked.party,
                    "role": asked.role,
                    "rows": asked.rows,
                    "columns": asked.columns,
                    "at_least": asked.floor,
                    "publishes": asked.publishes,
                    "error": asked.error.code if asked.error else None,
                }
                for asked in check.asked
            ],
            "leaving": [
                {"from": item.sender, "to": item.receiver, "topic": item.topic, "what": item.what, "bytes": item.nbytes}
                for item in check.leaving
            ],
            "learns": [{"who": who, "what": what} for who, what in check.learns],
        }
        sys.stdout.write(json_module.dumps(facts) + "\n")
    else:
        _print_check(check)
    if check.error:
        if check.error.code == "job.party_unknown":
            check.error.where = f"--homes {homes}"
        raise check.error


def _print_check(check: Check) -> None:
    asked_table = Table("party", "role", "rows", "columns", "floor", "publishes", "says", box=None)
    for asked in check.asked:
        verdict = f"[red]{asked.error.code}[/]" if asked.error else "[green]yes[/]"
        asked_table.add_row(
            asked.party,
            asked.role,
            f"{asked.rows:,}" if asked.rows is not None else "–",
            str(len(asked.columns)),
            str(asked.floor or "–"),
            ", ".join(asked.publishes) or "nothing",
            verdict,
        )
    leaving = Table("from", "to", "topic", "what", "at most", box=None)
    for item in check.leaving:
        nbytes = "?" if item.nbytes is None else _bytes(item.nbytes)
        leaving.add_row(item.sender, item.receiver, item.topic.value, item.what, nbytes)
    learns = Table("who", "learns", box=None)
    for who, what in check.learns:
        learns.add_row(who, what)
    _print_whole(asked_table)
    for table in (leaving, learns):
        console.print()
        console.print(table)
    console.print()
    console.print(
        "The parties are taken to be semi-honest: each keeps to the protocol and may think about all it sees.\n"
        "Nothing has left, no ledger row was written."
    )


def show_runs(root: Path, run: str | None, *, json: bool) -> None:
    """Print the runs, or one of them."""
    from .runs import find_run, run_records

    if run is not None:
        folder = find_run(root, run)
        _show_run(folder, json=json)
        return
    records = run_records(root)
    if json:
        sys.stdout.write(json_module.dumps([record.model_dump(mode="json") for record in records]) + "\n")
        return
    if not records:
        console.print(f"no runs in {root}; `isthmus demo` makes one")
        return
    table = Table(box=None)
    for name in ("run", "status", "attempts", "started (UTC)", "seconds", "error"):
        table.add_column(name, no_wrap=True)
    for record in records:
        seconds = f"{(record.ended - record.started).total_seconds():.0f}" if record.ended else "–"
        started = record.started.strftime("%Y-%m-%d %H:%M")
        table.add_row(record.run, record.status, str(record.attempts), started, seconds, record.error or "")
    _print_whole(table)


def _show_run(folder: Path, *, json: bool) -> None:
    from .report import text_table
    from .runs import RunRecord

    summary_file = folder / "summary.json"
    record = RunRecord.model_validate_json((folder / "run.json").read_bytes())
    summary = json_module.loads(summary_file.read_text("utf-8")) if summary_file.is_file() else None
    if json:
        facts = {"record": record.model_dump(mode="json"), "summary": summary}
        sys.stdout.write(json_module.dumps(facts) + "\n")
        return
    console.print(f"{record.run}   {record.status}   attempts {record.attempts}   {record.error or ''}")
    if summary is not None:
        console.print(text_table(summary))
        console.print(f"report  {folder / 'report.html'}", soft_wrap=True)


def show_ledger(homes: Path, party: str, run: str | None, *, json: bool) -> None:
    """Print a party's ledger."""
    from ..parties.home import PartyHome
    from ..parties.ledger import Ledger

    entries = Ledger(PartyHome(_home(homes, party))).entries(run)
    if json:
        sys.stdout.write(json_module.dumps([entry.model_dump(mode="json") for entry in entries]) + "\n")
        return
    if not entries:
        console.print(f"nothing has left {party}" + (f" for run {run}" if run else ""), soft_wrap=True)
        return
    table = Table(box=None)
    for name in ("at (UTC)", "event", "run", "to", "topic", "bytes"):
        table.add_column(name, no_wrap=True)
    for entry in entries:
        nbytes = f"{entry.nbytes:,}" if entry.event == "close" else ""
        table.add_row(entry.at[:19], entry.event, entry.run, entry.peer, entry.topic.value, nbytes)
    _print_whole(table)


def verify_ledger(homes: Path, party: str, *, json: bool) -> None:
    """Verify a party's ledger and print its head."""
    from ..parties.home import PartyHome
    from ..parties.ledger import Ledger

    verdict = Ledger(PartyHome(_home(homes, party))).verify()
    if json:
        sys.stdout.write(json_module.dumps({"entries": verdict.entries, "head": verdict.head}) + "\n")
    else:
        console.print(f"{party}'s ledger verifies: {verdict.entries} entries, head {verdict.head}", soft_wrap=True)


def say(error: IsthmusError, words: Sequence[str]) -> None:
    """Print an error as a person, or with --json a program, reads it."""
    if "--json" in words:
        said = {"code": error.code, "what": error.what, "where": error.where, "next": error.next}
        sys.stdout.write(json_module.dumps({"error": said}) + "\n")
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(error.text(), style="red", markup=False)


def _print_whole(table: Table) -> None:
    """Print a table as wide as it is: names of runs are there to be copied, and a pipe has no width."""
    width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    Console(highlight=False, width=max(width, console.width)).print(table, soft_wrap=True)


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
