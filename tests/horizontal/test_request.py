"""A request that cannot be answered, or whose answers could be subtracted from one another, is refused when read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.horizontal.request import CountTable, Curve, Grouping, StatisticsRequest
from isthmus.horizontal.schema import ColumnSpec

AGE, SEX = ColumnSpec("age", "number"), ColumnSpec("sex", "category", ("f", "m"))
PLAIN = StatisticsRequest((AGE, SEX))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"columns": (AGE, AGE)}, "named twice"),
        ({"columns": (ColumnSpec("age", "number", ("old",)),)}, "has no levels"),
        ({"columns": (ColumnSpec("sex", "category"),)}, "needs its levels"),
        ({"columns": (ColumnSpec("sex", "category", ("f", "f")),)}, "have to differ"),
        ({"columns": (ColumnSpec("sex", "category", ("f", "(other)")),)}, "have to differ"),
        ({"quantiles": (0.0,)}, "between 0 and 1"),
        ({"floor": 0}, "cannot be that low"),
        ({"tables": (CountTable("t", ()),)}, "one to 3 columns"),
        ({"tables": (CountTable("t", (Grouping("sex"), Grouping("sex"))),)}, "same column twice"),
        ({"tables": (CountTable("t", (Grouping("region"),)),)}, "not among the columns"),
        ({"tables": (CountTable("t", (Grouping("age"),)),)}, "needs edges"),
        ({"tables": (CountTable("t", (Grouping("sex", (1.0,)),)),)}, "has none"),
        ({"tables": (CountTable("t", (Grouping("age", (2.0, 1.0)),)),)}, "have to rise"),
        ({"tables": tuple(CountTable(f"t{edge}", (Grouping("age", (edge,)),)) for edge in (1.0, 2.0))}, "same edges"),
        ({"tables": (CountTable("t", (Grouping("age", tuple(map(float, range(100_000)))),)),)}, "more than"),
        ({"tables": (CountTable("t", (Grouping("sex"),)), CountTable("t", (Grouping("sex"),)))}, "called 't'"),
        ({"curves": (Curve("c", "time", "dead", 10.0), Curve("d", "time", "ill", 10.0))}, "told apart by subtraction"),
        ({"curves": (Curve("c", "age", "dead", 10.0),)}, "stands among the columns"),
        ({"curves": (Curve("c", "time", "dead", 10.0, unit=20.0),)}, "not above `until`"),
        ({"curves": (Curve("c", "time", "dead", 10.0, unit=3.0),)}, "a multiple of `unit`"),
        ({"curves": (Curve("c", "time", "dead", 10.0, by=("age",)),)}, "split by categories"),
        ({"curves": (Curve("c", "time", "dead", 50_000.0),)}, "wider `unit`"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **changes)


def test_the_digest_holds_everything() -> None:
    others = [{"floor": 6}, {"bins": 64}, {"quantiles": (0.5,)}, {"columns": (SEX, AGE)}]
    digests = {replace(PLAIN, **changes).digest() for changes in others} | {PLAIN.digest()}
    assert len(digests) == 5 and replace(PLAIN).digest() == PLAIN.digest()
