"""Federated statistics: parties k count in their own rows, the coordinator C sees sums over all of them.

::

    1  C→k  ASK "counted": the request's digest, the floor that holds, who is asked
       k    rows; numbers by magnitude, missing values; levels; tables; events and censorings by time
    2  C→k  ASK "binned": the range of each number column
       k    a histogram in that range, and the sum
    3  C→k  ASK "spread": a centre for each number column: its mean, as exactly as it may be told
       k    the sums of the deviations from it and of their squares
    4  C→k  RESULT: all that is told

Each answer is a sum over parties (`summing`, or masked: `secagg`), exact in fixed point. What is asked does not depend
on a party's data. Who was in the first sum has to be in the others: a sum over fewer would show the difference.

`standardise` is the same without histograms, tables and disclosure: what a training needs of each number column.

**Who learns what**: under secure aggregation C learns the pooled counts, also those that are then kept back, and the
range, mean and deviation of each number column; in plain it learns every party's own. Parties learn the ranges and
centres, and what is told: see `release`. A party that knows its own rows can take them away from what is told, and then
knows the same about the others together; with two or three parties a floor means little to them. `standardise` tells
the parties the exact pooled mean and scale of each number column, and whether any value is missing anywhere.

**Adversary**: semi-honest. A party checks that each sum is asked once, that the request is its own and that the floor
is no lower than its policy's; that C keeps the floor, it has to believe. What several jobs tell together is not judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..parties.errors import PeerFailure
from ..parties.network.message import Step, Topic
from .codes import NumberCode
from .counting import Floats, Range, Shapes, binned_shapes, counted_shapes, parts_of, size_of, spread_shapes
from .findings import StatisticsResult
from .fixed_point import EXACT
from .members import Members
from .quantiles import range_of
from .release import Release
from .request import StatisticsRequest
from .schema import ColumnSpec
from .statistics_party import PASSES, Pass, announced, pass_content
from .summing import Gathering, Sum

_SUMS = ("nothing", "sum ", "spread ")  # parts that are no counts
OnPass = Callable[[int, int], None]  # sums that are done, sums in all


def standards_request(columns: Sequence[ColumnSpec], floor: int) -> StatisticsRequest:
    """What `standardise` asks: of the number columns among these, no histogram."""
    numbers = tuple(spec for spec in columns if spec.kind == "number")
    return StatisticsRequest(numbers, quantiles=(), bins=0, floor=floor)


def collect(
    members: Members,
    gathering: Gathering,
    request: StatisticsRequest,
    *,
    job_digest: str,
    attempt: int,
    floor: int,
    quorum: int | None = None,
    deadline_s: float = 60.0,
    on_pass: OnPass | None = None,
) -> StatisticsResult:
    """C's side: ask all parties (`statistics_party`), and tell them and the caller what may be told.

    `floor` is the greatest among the job's and all policies'. Raises `PeerFailure` ``rounds.quorum`` when fewer than
    `quorum` (all, if None) parties answer the first sum, or one of those fails later, and ``sum.impossible`` when a
    party must have added what are no counts of its rows.
    """
    if not request.bins:
        raise ValueError("statistics need bins")
    asking = _Asking(members, gathering, request, job_digest, attempt, floor, quorum, deadline_s, on_pass)
    counted, ranges, binned = asking.ask_for_counts()
    by_name = {spec.name: one for spec, one in zip(request.numbers, ranges, strict=True)}
    try:
        release = Release(request, floor, by_name, counted, binned)
    except ValueError as failure:  # margins that are not those of the cells, say
        raise PeerFailure("sum.impossible", detail=str(failure)) from failure
    spread = asking.ask("spread", spread_shapes(request), ranges, release.centres)
    result = release.result(spread, asking.parties)
    asking.tell(result.to_dict())
    return result


def standardise(
    members: Members,
    gathering: Gathering,
    request: StatisticsRequest,
    *,
    job_digest: str,
    attempt: int,
    floor: int,
    quorum: int | None = None,
    deadline_s: float = 60.0,
    on_pass: OnPass | None = None,
) -> tuple[NumberCode, ...]:
    """C's side of the standardisation: the code of each number column of a `standards_request`, as from pooled rows.

    Equals `TabularEncoder.fit` on the rows of all parties. A column of which fewer values than the floor are known is
    left as it is (mean 0, scale 1). Arguments and errors are those of `collect`.
    """
    asking = _Asking(members, gathering, request, job_digest, attempt, floor, quorum, deadline_s, on_pass)
    counted, ranges, binned = asking.ask_for_counts()
    known = [float(counted[f"magnitudes {spec.name}"].sum()) for spec in request.numbers]
    means = [
        float(binned[f"sum {spec.name}"][0]) * one.unit / count if one.asked else 0.0
        for spec, one, count in zip(request.numbers, ranges, known, strict=True)
    ]
    spread = asking.ask("spread", spread_shapes(request), ranges, means)
    codes = []
    for spec, one, count, mean in zip(request.numbers, ranges, known, means, strict=True):
        first, second = (float(value) for value in spread[f"spread {spec.name}"])
        scale = math.sqrt(max(0.0, second - first * first / count) / count) * one.unit if one.asked else 0.0
        scale = scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0  # as TabularEncoder.fit
        codes.append(NumberCode(spec.name, mean, scale, indicator=bool(counted[f"missing {spec.name}"][0] > 0)))
    asking.tell({"codes": [[code.name, code.mean, code.scale, code.indicator] for code in codes]})
    return tuple(codes)


class _Asking:
    """C asks for one sum after the other."""

    def __init__(
        self,
        members: Members,
        gathering: Gathering,
        request: StatisticsRequest,
        job_digest: str,
        attempt: int,
        floor: int,
        quorum: int | None,
        deadline_s: float,
        on_pass: OnPass | None,
    ) -> None:
        self._members, self._gathering, self._request = members, gathering, request
        self._job, self._attempt, self._floor, self._deadline_s = job_digest, attempt, floor, deadline_s
        self._number, self._on_pass = 1, on_pass
        self.parties = members.names
        self._allowed = len(self.parties) if quorum is None else quorum

    def ask_for_counts(self) -> tuple[dict[str, Floats], list[Range], dict[str, Floats]]:
        """The first two sums: what is counted, the range of each number that follows from it, what lies where there."""
        counted = self.ask("counted", counted_shapes(self._request))
        ranges = [range_of(counted[f"magnitudes {spec.name}"], self._floor) for spec in self._request.numbers]
        return counted, ranges, self.ask("binned", binned_shapes(self._request, ranges), ranges)

    def ask(
        self, which: Pass, shapes: Shapes, ranges: Sequence[Range] = (), centres: Sequence[float] = ()
    ) -> dict[str, Floats]:
        """The parts of one sum."""
        content, terms = pass_content(self._request, which), announced(ranges, centres)
        one = Sum(self._job, self._attempt, self._number, content, self.parties, strict=False, terms=terms)
        fields = {
            "pass": which,
            "request": self._request.digest(),
            "floor": self._floor,
            "parties": list(self.parties),
            "ranges": [[part.low, part.high] for part in ranges],
            "centres": list(centres),
        }
        self._members.tell(self.parties, Topic.STATISTICS, Step.ASK, self._number, fields)
        found = self._gathering.gather(
            self._members,
            Topic.STATISTICS,
            one,
            size_of(shapes),
            EXACT,
            deadline_s=self._deadline_s,
            fewest=self._allowed,
        )
        if len(found.survivors) < self._allowed:
            raise PeerFailure("rounds.quorum", count=len(found.survivors), allowed=self._allowed)
        self.parties, self._allowed = found.survivors, len(found.survivors)
        self._number += 1
        if self._on_pass is not None:
            self._on_pass(PASSES.index(which) + 1, len(PASSES))
        parts = parts_of(found.total, shapes)
        for name, part in parts.items():
            if not name.startswith(_SUMS) and (part < 0).any():
                raise PeerFailure("sum.impossible", detail=name)
        return parts

    def tell(self, result: Mapping[str, Any]) -> None:
        """Send the result to those that are in it."""
        text = np.frombuffer(json.dumps(result, allow_nan=False).encode(), dtype=np.uint8)
        self._members.tell(
            self.parties, Topic.STATISTICS, Step.RESULT, self._number, arrays={"result": text}, answer=False
        )
