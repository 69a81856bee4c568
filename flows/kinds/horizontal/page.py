"""The parts of the report's page that a horizontal job has. Every word of a user's is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from ... import plots as common
from ...markup import HELD_BACK, METRICS, bar, figure, table
from ...report import Summary
from ..compared_report import score_text
from . import plots
from .report import (
    MAIN,
    OTHERS,
    compared,
    dropped_text,
    evaluated,
    headers,
    last_round,
    lines,
    main_of,
    missing_pooled,
)


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Titles and bodies."""
    return [
        ("Result", _result(summary)),
        ("By subgroup", _subgroups(summary)),
        ("How it was trained", _training(summary)),
        ("How the parties differ", _drift(summary)),
    ]


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    found = [f"{dropped_text(one)}; the rounds went on without it." for one in summary["dropped"]]
    for what, members in summary["withheld"].items():
        found += [f"{what.capitalize()} are withheld by {member}'s policy." for member in members]
    if not summary["job"]["secure_aggregation"]:
        found.append(
            f"Without secure aggregation: {summary['coordinator']} saw every party's own updates, from which rows can "
            "be reconstructed in part. Every policy here allows it."
        )
    return found


def _result(summary: Summary) -> str:
    told = summary["metrics"] or any(one["federated"] for one in summary["models"].values())
    if not told:
        return f"<p>The result is {escape(missing_pooled(summary))}.</p>" if evaluated(summary) else ""
    cells = lines(summary)
    body = table(
        [escape(header) for header in headers(summary)],
        [[escape(text) for text in line] for line, _ in cells],
        strong=[together for _, together in cells],
    )
    words = "Each party judges the model on its own held-out patients; all together are judged by sums over parties. "
    if summary["job"]["alone"]:
        words += "Alone means the same model, trained on a party's own patients only. "
    if pairs := compared(summary):
        mean = sum(together - alone for alone, together in pairs.values()) / len(pairs)
        words += f"On average over parties the common model gains {mean:+.3f} {MAIN[summary['task']][1]}."
    body += f"<p>{escape(words)}</p>"
    if any(main_of(summary, one["federated"]) for one in summary["models"].values()):
        key = "Filled: the common model." + (" Hollow: each party alone." if summary["job"]["alone"] else "")
        body += figure(plots.parties_plot(summary, themed=True), key, wide=True)
    figures = ""
    if "roc" in summary["curves"]:
        figures += figure(common.roc_plot(summary, themed=True), "ROC curve, all held-out patients together")
    if "calibration" in summary["curves"]:
        figures += figure(common.calibration_plot(summary, themed=True), "Calibration, all together (dotted: perfect)")
    body += f'<div class="pair">{figures}</div>' if figures else ""
    others = [(name, metric) for name, metric in summary["metrics"].items() if name != summary["main"]]
    if others:
        body += table(
            ["all together", "on held-out patients"],
            [[METRICS[name], escape(score_text(metric))] for name, metric in others],
        )
    return body


def _subgroups(summary: Summary) -> str:
    groups = summary["subgroups"]
    if not groups or not evaluated(summary):
        return ""
    if summary["coordinator"] in summary["withheld"]["metrics"]:
        return f"<p>Withheld by {escape(summary['coordinator'])}'s policy.</p>"
    cells, most = [], max((group["rows"] or 0 for group in groups), default=0)
    for place, group in enumerate(groups):
        first = place == 0 or groups[place - 1]["column"] != group["column"]
        level = escape(group["level"] if group["level"] is not None else OTHERS)
        score = main_of(summary, group["metrics"])
        told = (
            escape(score_text(score)) if score else '<span class="held">withheld</span>' if not group["metrics"] else ""
        )
        rows = HELD_BACK if group["rows"] is None else f"{group['rows']:,}"
        cells.append(
            [
                escape(group["column"]) if first else "",
                level,
                rows,
                bar(group["rows"], most) if group["rows"] else "",
                told,
            ]
        )
    title = MAIN[summary["task"]][1]
    note = (
        "A group is withheld where it, or what all withheld groups of its column come to, has fewer patients (of each "
        "outcome) than the highest floor."
    )
    return table(["column", "level", "held out", "", f"federated, {title}"], cells) + f"<p>{note}</p>"


def _training(summary: Summary) -> str:
    splits = [one["split"] for one in summary["models"].values()]
    totals = {part: [split[part] for split in splits] for part in ("train", "validation", "test")}
    words = {"train": "learn from", "validation": "choose the round by", "test": "judge by"}
    known = [f"{sum(counts):,} patients to {words[part]}" for part, counts in totals.items() if None not in counts]
    job, trained = summary["job"], last_round(summary)
    sentences = [f"{', '.join(known)}."] if known else []
    if trained:
        kept = "" if summary["best_round"] is None else f", of which the model of round {summary['best_round']} is kept"
        sentences.append(f"{trained} of at most {job['rounds']['count']} rounds of {job['strategy']['name']}{kept}.")
    if job["secure_aggregation"]:
        sentences.append(
            "Updates were added up under masks: nobody saw one party's, so nobody could see either whether a party "
            "sent a false one."
        )
    body = f"<p>{escape(' '.join(sentences))}</p>" if sentences else ""
    if any(at[name] is not None for at in summary["history"] for name in ("loss", "validation_loss")):
        body += figure(plots.rounds_plot(summary, themed=True), wide=True)
    return body + _took_part(summary)


def _took_part(summary: Summary) -> str:
    """Who was in how many rounds, where not all were in all."""
    trained = [at["parties"] for at in summary["history"] if at["parties"]]
    counts = {name: sum(name in parties for parties in trained) for name in summary["models"]}
    if all(count == len(trained) for count in counts.values()):
        return ""
    cells = [
        [escape(name), f"{count:,} of {len(trained):,}", bar(count, len(trained))] for name, count in counts.items()
    ]
    return table(["party", "rounds that it is in", ""], cells)


def _drift(summary: Summary) -> str:
    body = ""
    columns = plots.drift_columns(summary)
    if columns:
        caption = (
            "How far a party's mean lies from that of all patients, in standard deviations of all: orange above, blue "
            "below. A dot: too few patients to tell."
        )
        body += figure(plots.drift_plot(summary, themed=True), caption, wide=True)
    return body + _missing(summary)


def _missing(summary: Summary) -> str:
    """Shares of missing values, of the columns for which any party may tell one."""
    parties = [name for name, told in summary["drift"].items() if told]
    shares: dict[str, dict[str, Any]] = {}
    for name in parties:
        for one in summary["drift"][name]:
            shares.setdefault(one["column"], {})[name] = one["missing"]
    told = {column: found for column, found in shares.items() if any(share is not None for share in found.values())}
    cells = [[escape(column), *(_share(found.get(name)) for name in parties)] for column, found in told.items()]
    return table(["missing values", *map(escape, parties)], cells) if cells else ""


def _share(value: float | None) -> str:
    return HELD_BACK if value is None else f"{value:.0%}"
