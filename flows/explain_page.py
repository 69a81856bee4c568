"""An explanation as people read it: a page of 80 columns for the terminal, or one of HTML that needs no other file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from html import escape

from ..parties.network.message import Topic
from .check import Asked, Leaving
from .explain import ALL_SEMI_HONEST, NO_EPSILON, Explanation, Rules
from .markup import PAGE, items, table
from .stands import ADVERSARIES
from .terminal import alike, size_text

WIDTH = 80  # a terminal, and a sheet of paper
_LONGEST = 16  # of names that what is said of them stands beside
_NOTHING = "Nothing: there is nobody to send to."
_AT_MOST = "At most so many bytes, padding and headers included. No row and no identifier is among it."
_NEVER_LEFT = "Nothing has left, and no member elsewhere was asked."


def text_page(found: Explanation) -> str:
    """The page for a terminal: lines of at most 80 columns, where names are not longer."""
    job = found.job
    lines = [
        f"{job.name}: a {job.kind} job, explained. Nothing has left.",
        *_wrapped("  purpose  ", job.purpose),
        *_wrapped("  digest   ", job.digest()),
        *_wrapped("  signed   ", found.signature),
        *_columns([_MEMBERS, *_members(found)], long=_MEMBERS.index("floors")),
    ]
    for one in _starts(found):
        lines += _wrapped("  starts   ", one)
    for one in _problems(found):
        lines += _wrapped("  stopped  ", one)
    lines.append("WHAT LEAVES, AT MOST: no row and no identifier")
    if found.check.leaving:
        lines += _columns([[*way, item.topic.value, item.what, _size(item.nbytes)] for *way, item in _ways(found)], 3)
        for one in _sums(found):
            lines += _wrapped("  sum      ", one)
    else:
        lines.append(f"  {_NOTHING}")
    lines += ["WHO LEARNS WHAT", *_listed(found.learns)]
    lines += ["WHAT HIDES WHAT, AND WHAT IT COSTS", *_listed([("epsilon", NO_EPSILON), *found.protects])]
    lines.append("AGAINST WHOM (docs/security.md): what holds; and what they can do all the same")
    for stand in found.stands:
        words = f"{stand.holds}; BUT {stand.but}" if stand.but else stand.holds
        lines += _wrapped(f"  {stand.adversaries} ", f"{_names(stand.adversaries)}: {words}")
    lines += ["WHAT IS KEPT, AND WHERE", *_listed([(one.who, f"{one.what}: {one.where}") for one in found.keeps])]
    return "\n".join(lines) + "\n"


def html_page(found: Explanation) -> str:
    """The page as HTML: no script, no other file, no request to anywhere."""
    job = found.job
    leaving = f"<p>{_NOTHING}</p>"
    if found.check.leaving:
        cells = [
            [*map(escape, way), item.topic.value, escape(item.what), _size(item.nbytes)] for *way, item in _ways(found)
        ]
        leaving = f"<p>{_AT_MOST}</p>" + table(["from", "to", "topic", "what", "at most"], cells)
        leaving += items(map(escape, _sums(found)))
    stands = [
        [_who(one.adversaries), escape(one.holds), escape(one.but) or "nothing that is known"] for one in found.stands
    ]
    protects = [[escape(one.what), escape(one.by)] for one in found.protects]
    keeps = [[escape(one.who), escape(one.what), f"<code>{escape(one.where)}</code>"] for one in found.keeps]
    starts = items(f"May start it: {escape(one)}" for one in _starts(found))
    sections = [
        ("The members", table(_MEMBERS, [[escape(cell) for cell in line] for line in _members(found)]) + starts),
        ("What leaves", leaving),
        ("Who learns what", items(f"<b>{escape(who)}</b>: {escape(what)}" for who, what in found.learns)),
        ("What it costs in privacy", f"<p>Epsilon: {escape(NO_EPSILON)}.</p>" + table(["hidden", "by"], protects)),
        (
            "Against whom it holds",
            f"<p>{ALL_SEMI_HONEST}</p>" + table(["adversary", "holds", "can all the same"], stands),
        ),
        ("What is kept", table(["at", "what", "where, below its home"], keeps)),
        ("For the file", f"<p>Digest of the job: <code>{job.digest()}</code></p>"),
    ]
    problems = _problems(found)
    return PAGE.substitute(
        title=escape(f"{job.name}: a {job.kind} job, explained"),
        purpose=escape(job.purpose),
        headline=escape(_headline(found)),
        facts=escape(f"Signed {found.signature}."),
        notes="".join(
            f'<p class="note">{escape(one)}</p>'
            for one in [*(f"Would be stopped: {one}" for one in problems), _NEVER_LEFT]
        ),
        sections="".join(f"<section><h2>{title}</h2>{body}</section>" for title, body in sections),
    )


# --- below: what both pages say --------------------------------------------------------------------------------------

_MEMBERS = ["member", "role", "dataset", "rows", "cols", "floors", "says"]


def _members(found: Explanation) -> Iterable[list[str]]:
    for one in found.check.asked:
        rules = found.rules[one.party]
        yield [
            one.party,
            one.role,
            found.job.terms(one.party).dataset or "none",
            _rows(found, one),
            "–" if one.elsewhere else str(len(one.columns)),
            _floors(rules) or "–",
            "not asked" if one.elsewhere else "no" if one.error else "yes",
        ]


def _rows(found: Explanation, one: Asked) -> str:
    if one.rows is not None:
        return f"{one.rows:,}"
    return f"{found.stated[one.party]:,} stated" if one.party in found.stated else "–"


def _floors(rules: Rules) -> str:
    shared = [f"{rules.at_least:,} shared"] if rules.at_least is not None else []
    return ", ".join([*shared, *([f"{rules.cohort:,} a group"] if rules.cohort is not None else [])])


def _starts(found: Explanation) -> list[str]:
    """Whose signature starts it how often, by the policies of those who are asked and say the same."""
    alike_rules: dict[str, list[str]] = {}
    for name, rules in found.rules.items():
        if rules.starts is not None:
            may = ", ".join(rules.starts) or "nobody"
            alike_rules.setdefault(may + (", once a person agrees" if rules.waits else ""), []).append(name)
    return [f"{may}, says {', '.join(names)}" for may, names in alike_rules.items()]


def _problems(found: Explanation) -> list[str]:
    errors = [found.unfinished, *(one.error for one in found.check.asked)]
    if found.unfinished is not None:  # which is why its party finds no model
        errors = [error for error in errors if error is None or error.code != "model.start_missing"]
    return [f"{error.what}; {error.next}" for error in errors if error is not None]


def _ways(found: Explanation) -> list[tuple[str, str, Leaving]]:
    return list(alike(found.check.leaving))


def _sums(found: Explanation) -> list[str]:
    pairs = [Leaving(*pair, Topic.AGREE, "", nbytes) for pair, nbytes in found.pairs.items()]
    each = [f"{sender} → {receiver} {_size(item.nbytes)}" for sender, receiver, item in alike(pairs)]
    return [", ".join([*each, f"in all {_size(found.total)}"]), *([found.unknown] if found.unknown else [])]


def _headline(found: Explanation) -> str:
    if not found.check.leaving:
        return "Nothing leaves."
    known = "an unknown number of bytes" if found.total is None else f"at most {size_text(found.total)}"
    return f"{known[0].upper()}{known[1:]} pass between {len(found.job.members)} members: no row and no identifier."


def _size(nbytes: int | None) -> str:
    return "?" if nbytes is None else size_text(nbytes)


def _names(letters: str) -> str:
    """The adversaries in few words: those up to the first comma or colon."""
    return ", ".join(re.split(",|:| that keeps", ADVERSARIES[letter])[0] for letter in letters)


def _who(letters: str) -> str:
    return "<br>".join(f"<b>{letter}</b> {escape(ADVERSARIES[letter])}" for letter in letters)


# --- below: lines of a terminal ---------------------------------------------------------------------------------------


def _wrapped(label: str, text: str) -> list[str]:
    """Words behind a label, whose further lines stand under the first."""
    further = " " * len(label)
    return textwrap.wrap(text, WIDTH, initial_indent=label, subsequent_indent=further, break_long_words=False)


def _listed(pairs: Iterable[Sequence[str]]) -> list[str]:
    """Who and what: the second column is as wide as is left, and a name that comes again is not repeated."""
    pairs = [(who, what) for who, what in pairs]
    wide = 4 + max((len(who) for who, _ in pairs if len(who) <= _LONGEST), default=_LONGEST)
    lines: list[str] = []
    before = None
    for who, what in pairs:
        label = "  " + ("" if who == before else who)
        if len(label) > wide - 2:
            lines.append(label)
            label = ""
        lines += _wrapped(label.ljust(wide), what)
        before = who
    return lines


def _columns(rows: Sequence[Sequence[str]], long: int) -> list[str]:
    """A table whose column at place `long` is wrapped where the lines would not fit."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    over = 2 + sum(widths) + 2 * (len(widths) - 1) - WIDTH
    widths[long] = min(widths[long], max(12, widths[long] - max(0, over)))
    lines: list[str] = []
    for row in rows:
        parts = textwrap.wrap(row[long], widths[long], break_long_words=False) or [""]
        for number, part in enumerate(parts):
            cells = [part if place == long else cell if number == 0 else "" for place, cell in enumerate(row)]
            lines.append(
                "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            )
    return lines
