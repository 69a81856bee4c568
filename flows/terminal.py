"""What the commands print. Kept apart from `cli`, which only says what the commands are."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from ..parties.errors import InputError, IsthmusError

if TYPE_CHECKING:
    from .check import Check, Leaving

console = Console(highlight=False)


def named_home(homes: Path, party: str) -> Path:
    """The home of a party; an error names the folder that was searched."""
    from ..parties.home import find_home

    try:
        return find_home(homes, party)
    except InputError as error:
        error.where = f"--homes {homes}"
        raise


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
                    "differences": [{"column": column, "what": what} for column, what in asked.differences],
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
        if asked.elsewhere:
            asked_table.add_row(asked.party, asked.role, "–", "–", "–", "–", "elsewhere: not asked")
            continue
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
    for sender, receiver, item in alike(check.leaving):
        nbytes = "?" if item.nbytes is None else size_text(item.nbytes)
        leaving.add_row(sender, receiver, item.topic.value, item.what, nbytes)
    learns = Table("who", "learns", box=None)
    for who, what in check.learns:
        learns.add_row(who, escape(what))
    _print_whole(asked_table)
    for asked in check.asked:
        for column, what in asked.differences:
            console.print(f"  {difference_text(asked.party, column, what)}", soft_wrap=True)
    for table in (leaving, learns) if check.leaving else (learns,):
        console.print()
        console.print(table)
    console.print()
    console.print(
        "The parties are taken to be semi-honest: each keeps to the protocol and may think about all it sees.\n"
        "Nothing has left, no ledger row was written."
    )


def difference_text(party: str, column: str, what: str) -> str:
    """What a party's data lack of what a job's column says, in rich's markup."""
    words = {
        "missing": "is not in its dataset",
        "type": "is of another kind than the job says",
        "unit": "has another unit than the job says, or party.yaml declares none",
        "levels": "holds mostly values that are no level of the job",
    }
    return f"[red]✗[/] {party}: column '{escape(column)}' {words[what]}"


def alike(items: Sequence[Leaving]) -> Iterator[tuple[str, str, Leaving]]:
    """What leaves, with its senders and receivers in words: one line for what many send, or get, alike."""
    of_one: dict[tuple[object, ...], list[Leaving]] = {}
    for item in items:
        of_one.setdefault((item.topic, item.what, item.nbytes), []).append(item)
    for same in of_one.values():
        senders, receivers = (
            list(dict.fromkeys(ends)) for ends in zip(*((i.sender, i.receiver) for i in same), strict=True)
        )
        if len(same) > 2 and 1 in (len(senders), len(receivers)):
            sender, receiver = (
                ends[0] if len(ends) == 1 else f"each of {len(ends)} parties" for ends in (senders, receivers)
            )
            yield sender, receiver, same[0]
        else:
            yield from ((item.sender, item.receiver, item) for item in same)


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

    entries = Ledger(PartyHome(named_home(homes, party))).entries(run)
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

    verdict = Ledger(PartyHome(named_home(homes, party))).verify()
    if json:
        sys.stdout.write(json_module.dumps({"entries": verdict.entries, "head": verdict.head}) + "\n")
    else:
        console.print(f"{party}'s ledger verifies: {verdict.entries} entries, head {verdict.head}", soft_wrap=True)


def show_keys(homes: Path, parties: Sequence[str], *, json: bool) -> None:
    """Print public keys as a party.yaml holds them; a home without one gets its key now."""
    from ..parties.home import PARTY_FILE, PartyHome
    from ..parties.identity import Identity

    names = parties or sorted(path.parent.name for path in homes.glob(f"*/{PARTY_FILE}"))
    found = {name: Identity(PartyHome(named_home(homes, name))).public.hex() for name in names}
    if json:
        sys.stdout.write(json_module.dumps(found) + "\n")
        return
    if not found:
        console.print(f"no homes in {homes}")
        return
    console.print("keys:", *(f"  {name}: {key}" for name, key in found.items()), sep="\n", soft_wrap=True)


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


def size_text(count: int) -> str:
    """Bytes as a person reads them."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
