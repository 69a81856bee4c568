"""Numbers → summary, page, artifact. All of it comes from public events: the report holds nothing of a row.

`summarise` puts every number of a run into one plain dictionary, which is `summary.json`; the page, the terminal's
table and Prefect's artifact are drawn from that dictionary alone, so an old run can be shown again at any time. What is
particular to a kind of job comes from the `report` room of that kind.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ..parties.errors import IsthmusError
from ..parties.events import Count, Fingerprint, Finished, Phase, Resumed, Traffic
from ..parties.files import write_whole
from .jobs import Job, job_of
from .journal import Journal
from .kinds import room
from .runs import RunRecord

SCHEMA_VERSION = 2
SUMMARY_FILE, PAGE_FILE = "summary.json", "report.html"
MAX_PLOT_NBYTES = 200_000  # of a plot inside Prefect's artifact

Summary = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Where a run's report is."""

    page: Path
    summary: Path
    plot: Path | None  # None where no policy lets a curve go


def summarise(job: Job, journal: Journal, record: RunRecord, **more: Any) -> Summary:
    """Every number of a run, ready for JSON. What a policy withholds is None, and `withheld` says whose policy.

    `more` goes to the kind's own `summarise`.
    """
    parties = {name: _party(job, journal, name) for name in job.members}
    common: Summary = {
        "schema": SCHEMA_VERSION,
        "run": record.run,
        "started": record.started.isoformat(timespec="seconds"),
        "seconds": round(time.time() - journal.started, 3),
        "attempts": record.attempts,
        "resumed": any(party["resumed"] for party in parties.values()),
        "job": job.canonical(),
        "parties": parties,
        "bytes_left": {name: sum(item["sent"] for item in parties[name]["traffic"]) for name in job.members},
        "digests": {
            "job": record.job_digest,
            "models": fingerprints(journal, "model"),
            "ledgers": fingerprints(journal, "ledger"),
        },
    }
    own: Summary = room(job.kind, "report").summarise(job, journal, **more)
    return {**common, **own, "digests": {**common["digests"], **own.get("digests", {})}}


def write_report(folder: Path, summary: Summary) -> Report:
    """Write `summary.json`, `report.html`, one page that needs no other file and no network, and the plot alone."""
    from .page import page  # with matplotlib, which the command line does not wait for

    plot = plot_of(summary)
    report = Report(folder / PAGE_FILE, folder / SUMMARY_FILE, folder / plot[0] if plot else None)
    texts = {report.summary: json.dumps(summary, indent=2) + "\n", report.page: page(summary)}
    if plot is not None:
        texts[folder / plot[0]] = plot[1]
    for path, text in texts.items():
        write_whole(path, text.encode(), party="the coordinator")
    return report


def text_table(summary: Summary) -> RenderableType:
    """The result as the terminal shows it."""
    table: RenderableType = _room(summary).text_table(summary)
    return table


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    return str(_room(summary).headline(summary))


def closing_lines(summary: Summary) -> list[str]:
    """What the kind adds below the table in the terminal."""
    return list(_room(summary).closing_lines(summary))


def plot_of(summary: Summary) -> tuple[str, str] | None:
    """The plot that stands for the run: the name of its file and the SVG; None without one."""
    plot: tuple[str, str] | None = _room(summary).plot(summary)
    return plot


def markdown(summary: Summary) -> str:
    """The one artifact of a run in Prefect's UI: the result, its plot, what left whom, what to do next."""
    lines = [f"# {cell(summary['job']['name'])}", "", f"**{cell(headline(summary))}**", ""]
    lines += [cell(summary["job"]["purpose"]), "", *_room(summary).markdown(summary)]
    if (plot := plot_of(summary)) is not None:
        image = plot[1].encode()
        if len(image) < MAX_PLOT_NBYTES:
            source = base64.b64encode(image).decode()
            lines += ["", f"![{plot[0]}](data:image/svg+xml;base64,{source})"]
    lines.append("")
    for line in closing_lines(summary):
        what, *facts = re.split(r" {2,}", line.strip())
        lines.append(f"- **{cell(what)}** {cell(', '.join(facts))}")
    lines += ["", "| left | bytes | ledger |", "| --- | --- | --- |"]
    for party, nbytes in summary["bytes_left"].items():
        lines.append(f"| {party} | {nbytes:,} | `{summary['digests']['ledgers'].get(party, '')[:16]}` |")
    run = summary["run"]
    if summary["digests"]["models"]:
        lines += ["", f"Each party keeps its own part of the model in its home, under `models/{run}`."]
    lines += [
        "",
        f"Next: `isthmus runs {run}` shows this again, `report.html` in the run's folder shows more, and every party "
        "can check what left it: `isthmus audit show PARTY`.",
    ]
    return "\n".join(lines) + "\n"


def failure_markdown(job: Job, run: str, error: IsthmusError, errors: Mapping[str, IsthmusError]) -> str:
    """The artifact of a run that failed: the error that explains it best, and each member's own."""
    lines = [f"# {cell(job.name)}", "", f"**{cell(str(error))}**", "", f"Next: {cell(error.next)}", ""]
    lines += ["| member | error | next |", "| --- | --- | --- |"]
    for member in job.members:
        own = errors.get(member)
        what, next_step = (cell(str(own)), cell(own.next)) if own else ("stopped with the others", "")
        lines.append(f"| {member} | {what} | {next_step} |")
    lines += ["", f"Run `{run}` can be started again: it goes on where it stopped. Nothing half-finished is a result."]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Plain words inside markdown, whoever wrote them."""
    for sign in "\\`*_[]<>|#!":
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, "\\" + sign))
    return " ".join(text.split())


# --- below: out of the journal ---------------------------------------------------------------------------------------


def count_of(journal: Journal, name: str, party: str | None = None, linkage_pass: int | None = None) -> int | None:
    """The last such number, of one party or of whoever told it; None if all withhold it."""
    found = [
        event.value
        for who, event in journal.of(Count)
        if event.name == name and party in (None, who) and event.linkage_pass == linkage_pass
    ]
    return found[-1] if found else None


def fingerprints(journal: Journal, name: str) -> dict[str, str]:
    """A digest by the party that told it."""
    return {party: event.value for party, event in journal.of(Fingerprint) if event.name == name}


def withheld(
    journal: Journal,
    parties: tuple[str, ...],
    judges: tuple[str, ...],
    told: dict[str, tuple[type, ...]],
    *,
    last: Phase = Phase.EVALUATE,
) -> dict[str, list[str]]:
    """Who got as far as having a number to tell and told none, by what the policy's `publish` would have to name.

    Counts are told by all `parties` from agreeing on; what the `judges` find, once they have ended the phase `last`.
    """
    done = {(party, event.phase) for party, event in journal.of(Finished)}
    agreed = [name for name in parties if (name, Phase.AGREE) in done]
    judged = [name for name in judges if (name, last) in done]
    found = {}
    for what, kinds in told.items():
        spoke = {party for kind in kinds for party, _ in journal.of(kind)}
        found[what] = [name for name in (agreed if what == "counts" else judged) if name not in spoke]
    return found


def _party(job: Job, journal: Journal, name: str) -> dict[str, Any]:
    of_phase: dict[str, float] = {}
    for party, ended in journal.of(Finished):
        if party == name:
            of_phase[ended.phase.value] = round(ended.seconds, 3)
    return {
        "role": job.role(name),
        "dataset": job.dataset(name),
        "rows": count_of(journal, "rows", name),
        "columns": count_of(journal, "columns", name),
        "seconds": of_phase,
        "resumed": [
            {"phase": event.phase.value, "epoch": event.epoch, "round": event.round, "model": event.model}
            for party, event in journal.of(Resumed)
            if party == name
        ],
        "traffic": [
            {"peer": event.peer, "topic": event.topic.value, "sent": event.sent, "received": event.received}
            for party, event in journal.of(Traffic)
            if party == name
        ],
    }


def _room(summary: Summary) -> Any:
    return room(summary["job"]["kind"], "report")


def job_in(summary: Summary) -> Job:
    """The job that a summary is of."""
    return job_of(summary["job"])
