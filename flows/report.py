"""Numbers → summary, table, page, artifact. All of it comes from public events: the report holds nothing of a row.

`summarise` puts every number of a run into one plain dictionary, which is `summary.json`; the page, the terminal's
table and Prefect's artifact are drawn from that dictionary alone, so an old run can be shown again at any time.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..parties.errors import disk_errors
from ..parties.events import Count, Curve, Fingerprint, Finished, Metric, Phase, Resumed, Traffic
from .baselines import Baselines
from .jobs import VerticalJob
from .journal import Journal
from .runs import RunRecord

SCHEMA_VERSION = 1
SUMMARY_FILE, PAGE_FILE, PLOT_FILE = "summary.json", "report.html", "roc.svg"
MAX_PLOT_NBYTES = 200_000  # of a plot inside Prefect's artifact
_PARTS = {"train": "train_rows", "validation": "validation_rows", "test": "test_rows"}
_LINKAGE = {"null": "keys_null", "repeated": "keys_repeated", "used": "keys_used"}
_TITLES = {
    "alone": "{party} alone",
    "all_rows": "{party} on all its rows",
    "together": "together, no row shared",
    "pooled": "pooled, forbidden in real life",
}

Summary = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Where a run's report is."""

    page: Path
    summary: Path
    plot: Path | None  # None where no policy lets a curve go


def summarise(job: VerticalJob, journal: Journal, record: RunRecord, *, baselines: Baselines | None = None) -> Summary:
    """Every number of a run, ready for JSON. What a policy withholds is None, and `withheld` says whose policy."""
    names = [party.name for party in job.parties]
    parties = {name: _party(job, journal, name) for name in names}
    return {
        "schema": SCHEMA_VERSION,
        "run": record.run,
        "started": record.started.isoformat(timespec="seconds"),
        "seconds": round(time.time() - journal.started, 3),
        "attempts": record.attempts,
        "resumed": any(party["resumed"] for party in parties.values()),
        "job": job.canonical(),
        "active": job.active.name,
        "parties": parties,
        "shared": _count(journal, "shared"),
        "split": {part: _count(journal, name) for part, name in _PARTS.items()},
        "linkage": _linkage(job, journal),
        "history": _history(journal),
        "best_epoch": next((int(e.value) for _, e in journal.of(Metric) if e.name == "best_epoch"), None),
        "metrics": {
            event.name: {"value": event.value, "low": event.low, "high": event.high}
            for _, event in journal.of(Metric)
            if event.part == "test" and event.epoch is None
        },
        "curves": {e.name: {"x": list(e.x), "y": list(e.y)} for _, e in journal.of(Curve) if e.part == "test"},
        "bytes_left": {name: sum(item["sent"] for item in parties[name]["traffic"]) for name in names},
        "digests": {
            "job": record.job_digest,
            "alignment": _fingerprints(journal, "alignment").get(job.active.name),
            "models": _fingerprints(journal, "model"),
            "ledgers": _fingerprints(journal, "ledger"),
        },
        "withheld": _withheld(job, journal),
        "baselines": baselines.model_dump(mode="json") if baselines else None,
    }


def write_report(folder: Path, summary: Summary) -> Report:
    """Write `summary.json`, `report.html`, one page that needs no other file and no network, and the ROC plot alone."""
    from .page import page  # with matplotlib, which the command line does not wait for
    from .plots import roc_plot

    report = Report(folder / PAGE_FILE, folder / SUMMARY_FILE, folder / PLOT_FILE if summary["curves"] else None)
    texts = {report.summary: json.dumps(summary, indent=2) + "\n", report.page: page(summary)}
    if report.plot is not None:
        texts[report.plot] = roc_plot(summary)
    with disk_errors("the coordinator"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            temporary = path.with_name(path.name + ".partial")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    return report


def rows(summary: Summary) -> list[dict[str, Any]]:
    """The comparison's rows, in the order of the table: title, kind, party, and a score or None by model.

    A score is ``{"auc", "low", "high"}``. Without baselines there is one row: what the parties reached together.
    """
    compared = (summary["baselines"] or {}).get("rows", [])
    auc = summary["metrics"].get("auc")
    together = {
        "kind": "together",
        "party": None,
        "network": {"auc": auc["value"], "low": auc["low"], "high": auc["high"]} if auc else None,
        "logistic": None,
        "boosting": None,
    }
    order = list(_TITLES)
    found = sorted([*compared, together], key=lambda row: order.index(row["kind"]))
    return [{**row, "title": _TITLES[row["kind"]].format(party=row["party"])} for row in found]


def text_table(summary: Summary) -> Table:
    """The result as the terminal shows it."""
    held_out = summary["split"]["test"]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    table.add_column(f"held-out patients {held_out:,}" if held_out else "held-out patients")
    table.add_column("AUC (95 % interval)")
    compared = summary["baselines"] is not None
    if compared:
        table.add_column("logistic")
        table.add_column("boosting")
    for row in rows(summary):
        style = "bold" if row["kind"] == "together" else None
        missing = missing_metrics(summary) if row["kind"] == "together" else ""
        others = [score_text(row[model]) for model in ("logistic", "boosting")] if compared else []
        table.add_row(
            escape(row["title"]), escape(score_text(row["network"], long=True) or missing), *others, style=style
        )
    return table


def markdown(summary: Summary) -> str:
    """The one artifact of a run in Prefect's UI: the result, its ROC curve, what left whom, what to do next."""
    from .page import headline
    from .plots import roc_plot

    lines = [f"# {_cell(summary['job']['name'])}", "", f"**{_cell(headline(summary))}**", ""]
    lines += [_cell(summary["job"]["purpose"]), ""]
    compared = summary["baselines"] is not None
    lines.append("| model | AUC (95 % interval) |" + (" logistic | boosting |" if compared else ""))
    lines.append("| --- | --- |" + (" --- | --- |" if compared else ""))
    for row in rows(summary):
        missing = missing_metrics(summary) if row["kind"] == "together" else ""
        others = [score_text(row[model]) for model in ("logistic", "boosting")] if compared else []
        cells = [row["title"], score_text(row["network"], long=True) or missing, *others]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    if "roc" in summary["curves"]:
        image = roc_plot(summary).encode()
        if len(image) < MAX_PLOT_NBYTES:
            source = base64.b64encode(image).decode()
            lines += ["", f"![ROC curve](data:image/svg+xml;base64,{source})"]
    lines += ["", "| left | bytes | ledger |", "| --- | --- | --- |"]
    for party, nbytes in summary["bytes_left"].items():
        lines.append(f"| {party} | {nbytes:,} | `{summary['digests']['ledgers'].get(party, '')[:16]}` |")
    run = summary["run"]
    lines += [
        "",
        f"Each party keeps its own part of the model in its home, under `models/{run}`.",
        "",
        f"Next: `isthmus runs {run}` shows this again, `report.html` in the run's folder shows more, and every party "
        "can check what left it: `isthmus audit show PARTY`.",
    ]
    return "\n".join(lines) + "\n"


def missing_metrics(summary: Summary) -> str:
    """Why there is no test AUC."""
    if summary["active"] in summary["withheld"]["metrics"]:
        return f"withheld by {summary['active']}'s policy"
    return "not evaluated"


def score_text(score: Mapping[str, float | None] | None, *, long: bool = False) -> str:
    """An AUC for people: `0.797`, or with its interval `0.797 (0.762 to 0.831)`; empty if there is none."""
    if score is None:
        return ""
    text = f"{score['auc']:.3f}"
    if long and score["low"] is not None and score["high"] is not None:
        text += f" ({score['low']:.3f} to {score['high']:.3f})"
    return text


# --- below: out of the journal ---------------------------------------------------------------------------------------


def _party(job: VerticalJob, journal: Journal, name: str) -> dict[str, Any]:
    of_phase: dict[str, float] = {}
    for party, ended in journal.of(Finished):
        if party == name:
            of_phase[ended.phase.value] = round(ended.seconds, 3)
    return {
        "role": "active" if name == job.active.name else "passive",
        "dataset": job.party(name).dataset,
        "rows": _count(journal, "rows", name),
        "columns": _count(journal, "columns", name),
        "seconds": of_phase,
        "resumed": [{"phase": e.phase.value, "epoch": e.epoch} for party, e in journal.of(Resumed) if party == name],
        "traffic": [
            {"peer": event.peer, "topic": event.topic.value, "sent": event.sent, "received": event.received}
            for party, event in journal.of(Traffic)
            if party == name
        ],
    }


def _count(journal: Journal, name: str, party: str | None = None, linkage_pass: int | None = None) -> int | None:
    """The last such number, of one party or of whoever told it; None if all withhold it."""
    found = [
        event.value
        for who, event in journal.of(Count)
        if event.name == name and party in (None, who) and event.linkage_pass == linkage_pass
    ]
    return found[-1] if found else None


def _linkage(job: VerticalJob, journal: Journal) -> list[dict[str, Any]]:
    """Pass by pass: what was matched, and each party's keys. Empty where an earlier attempt's alignment was reused."""
    numbers = sorted({e.linkage_pass for _, e in journal.of(Count) if e.linkage_pass is not None})
    return [
        {
            "pass": number,
            "identifiers": list(job.align.passes[number - 1]),
            "matched": _count(journal, "matched", linkage_pass=number),
            "parties": {
                party.name: {word: _count(journal, count, party.name, number) for word, count in _LINKAGE.items()}
                for party in job.parties
            },
        }
        for number in numbers
    ]


def _history(journal: Journal) -> list[dict[str, Any]]:
    epochs: dict[int, dict[str, Any]] = {}
    for _, event in journal.of(Metric):
        if event.epoch is None:
            continue
        at = epochs.setdefault(event.epoch, {"epoch": event.epoch, "loss": None, "validation_auc": None})
        if (event.name, event.part) == ("log_loss", "train"):
            at["loss"] = event.value
        elif (event.name, event.part) == ("auc", "validation"):
            at["validation_auc"] = event.value
    return [epochs[epoch] for epoch in sorted(epochs)]


def _fingerprints(journal: Journal, name: str) -> dict[str, str]:
    return {party: event.value for party, event in journal.of(Fingerprint) if event.name == name}


def _withheld(job: VerticalJob, journal: Journal) -> dict[str, list[str]]:
    """Who got as far as having a number to tell and told none, by what the policy's `publish` would have to name."""
    done = {(party, event.phase) for party, event in journal.of(Finished)}
    told: dict[type, set[str]] = {kind: {party for party, _ in journal.of(kind)} for kind in (Count, Metric, Curve)}
    names = [party.name for party in job.parties]
    active = [job.active.name] if (job.active.name, Phase.EVALUATE) in done else []
    return {
        "counts": [name for name in names if (name, Phase.AGREE) in done and name not in told[Count]],
        "metrics": [name for name in active if name not in told[Metric]],
        "curves": [name for name in active if name not in told[Curve]],
    }


def _cell(text: str) -> str:
    """Plain words inside markdown, whoever wrote them."""
    for sign in "\\`*_[]<>|#!":
        text = text.replace(sign, {"<": "&lt;", ">": "&gt;"}.get(sign, "\\" + sign))
    return " ".join(text.split())
