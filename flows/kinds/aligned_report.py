"""What the report of every job about shared patients says of how they were found."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ...parties.events import Count
from ..journal import Journal
from ..markup import bar, count_text, table
from ..report import Summary, count_of
from .aligned import AlignedJob

_LINKAGE = {"null": "keys_null", "repeated": "keys_repeated", "used": "keys_used"}


def linkage(job: AlignedJob, journal: Journal) -> list[dict[str, Any]]:
    """Pass by pass: what was matched, and each party's keys. Empty where an earlier attempt's alignment was reused."""
    numbers = sorted({e.linkage_pass for _, e in journal.of(Count) if e.linkage_pass is not None})
    return [
        {
            "pass": number,
            "identifiers": list(job.align.passes[number - 1]),
            "matched": count_of(journal, "matched", linkage_pass=number),
            "parties": {
                party.name: {word: count_of(journal, count, party.name, number) for word, count in _LINKAGE.items()}
                for party in map(job.party, job.members)
            },
        }
        for number in numbers
    ]


def linkage_section(summary: Summary, truth: Mapping[str, Any] | None = None) -> str:
    """Which patients are shared, pass by pass, as HTML; `truth` is what only a demo can know."""
    shared = summary["shared"]
    sizes = [f"{name} has {p['rows']:,}" for name, p in summary["parties"].items() if p["rows"] is not None]
    words = [f"{shared:,} shared patients" if shared is not None else "", *sizes]
    body = f"<p>{escape('; '.join(filter(None, words)))}.</p>" if any(words) else ""
    if truth is not None:
        body += (
            f"<p>In truth they share {truth['shared']:,}: precision {truth['precision']:.4f}, "
            f"recall {truth['recall']:.4f}. Only a demo can know that.</p>"
        )
    if not summary["linkage"]:
        return body
    most = max((at["matched"] or 0 for at in summary["linkage"]), default=0)
    header = ["pass", "identifiers", "matched", ""]
    header += [f"{name}: keys used (missing, repeated)" for name in summary["parties"]]
    lines = []
    for at in summary["linkage"]:
        cells = [
            str(at["pass"]),
            escape(", ".join(at["identifiers"])),
            count_text(at["matched"]),
            bar(at["matched"], most),
        ]
        for keys in at["parties"].values():
            told = None not in keys.values()
            cells.append(f"{keys['used']:,} ({keys['null']:,}, {keys['repeated']:,})" if told else "withheld")
        lines.append(cells)
    return body + table(header, lines)
