"""The report as one HTML page: no script, no other file, no request to anywhere. Every word of a user's is escaped."""

from __future__ import annotations

from html import escape

from ..parties.events import Phase
from .kinds import room
from .markup import PAGE, bar, items, table
from .report import Summary, headline, job_in


def page(summary: Summary) -> str:
    """The whole page."""
    job = job_in(summary)
    kind = room(job.kind, "report")
    learns = room(job.kind, "check").learns(job)
    sections = [
        *kind.sections(summary),
        ("What left whom", _traffic(summary)),
        ("Who learns what", items(f"<b>{escape(who)}</b>: {escape(what)}" for who, what in learns)),
        ("Time", _time(summary)),
        ("For an auditor", _digests(summary)),
    ]
    notes = [*([summary["rehearsal"]] if "rehearsal" in summary else []), *kind.notes(summary)]
    return PAGE.substitute(
        title=escape(job.name),
        purpose=escape(job.purpose),
        headline=escape(headline(summary)),
        facts=" · ".join(map(escape, _facts(summary))),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        sections="".join(f"<section><h2>{title}</h2>{body}</section>" for title, body in sections if body),
    )


def _facts(summary: Summary) -> list[str]:
    facts = [summary["run"], summary["started"].replace("T", " ")[:16] + " UTC", f"{summary['seconds']:.0f} s"]
    if summary["attempts"] > 1:
        facts.append(f"attempt {summary['attempts']}" + (", resumed" if summary["resumed"] else ""))
    return facts


def _traffic(summary: Summary) -> str:
    topics = room(summary["job"]["kind"], "report").TOPICS
    order = list(topics)
    sent = [
        (name, item)
        for name, party in summary["parties"].items()
        for item in sorted(party["traffic"], key=lambda item: order.index(item["topic"]))
        if item["sent"]
    ]
    most = max((item["sent"] for _, item in sent), default=0)
    cells = [
        [escape(name), escape(item["peer"]), topics[item["topic"]], f"{item['sent']:,}",
         bar(item["sent"], most)]
        for name, item in sent
    ]  # fmt: skip
    if not cells:
        return ""
    totals = ", ".join(f"{name} {nbytes / 1e6:.2f} MB" for name, nbytes in summary["bytes_left"].items())
    return f"<p>In all: {escape(totals)}. No row and no identifier is among it.</p>" + table(
        ["from", "to", "what", "bytes", ""], cells
    )


def _time(summary: Summary) -> str:
    parties = summary["parties"]
    phases = [phase.value for phase in Phase if any(phase.value in party["seconds"] for party in parties.values())]
    most = max((seconds for party in parties.values() for seconds in party["seconds"].values()), default=0)
    cells = []
    for phase in phases:
        seconds = [party["seconds"].get(phase) for party in parties.values()]
        known = [one for one in seconds if one is not None]
        cells.append([phase, *("" if one is None else f"{one:.1f} s" for one in seconds), bar(max(known), most)])
    return table(["phase", *map(escape, parties), ""], cells) if cells else ""


def _digests(summary: Summary) -> str:
    digests = summary["digests"]
    found = [("job", digests["job"]), ("alignment", digests.get("alignment"))]
    found += [(f"{party}'s model", value) for party, value in digests["models"].items()]
    found += [(f"head of {party}'s ledger", value) for party, value in digests["ledgers"].items()]
    cells = [[escape(name), f"<code>{escape(value)}</code>"] for name, value in found if value]
    note = "Note these down elsewhere: they show a ledger that was cut off, a model or a job that was changed."
    return f"<p>{note}</p>" + table(["", "SHA-256"], cells)
