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

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np

from ..parties.errors import InputError, PeerFailure, PolicyRefusal
from ..parties.network.channel import Channel
from ..parties.network.message import Message, Step, Topic
from .codes import NumberCode
from .counting import (
    Floats,
    OwnRows,
    Range,
    Shapes,
    binned_shapes,
    counted_shapes,
    parts_of,
    size_of,
    spread_shapes,
)
from .findings import StatisticsResult
from .fixed_point import EXACT
from .members import Members
from .quantiles import range_of
from .release import Release
from .request import StatisticsRequest
from .schema import ColumnSpec
from .summing import Gathering, Giving, Sum

Told = TypeVar("Told")
Pass = Literal["counted", "binned", "spread"]
PASSES: tuple[Pass, ...] = ("counted", "binned", "spread")
_FARTHEST = 2.0**64  # no range that follows from counts by magnitude reaches as far
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
    first_sum: int = 1,
    on_pass: OnPass | None = None,
) -> StatisticsResult:
    """C's side: ask all parties, and tell them and the caller what may be told.

    `floor` is the greatest among the job's and all policies'. Sums are numbered from `first_sum`. Raises `PeerFailure`
    ``rounds.quorum`` when fewer than `quorum` (all, if None) parties answer the first sum, or one of those fails later,
    and ``sum.impossible`` when a party must have added what are no counts of its rows.
    """
    if not request.bins:
        raise ValueError("statistics need bins")
    asking = _Asking(members, gathering, request, job_digest, attempt, floor, quorum, deadline_s, first_sum, on_pass)
    counted = asking.ask("counted", counted_shapes(request))
    ranges = [range_of(counted[f"magnitudes {spec.name}"], floor) for spec in request.numbers]
    binned = asking.ask("binned", binned_shapes(request, ranges), ranges)
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
    first_sum: int = 1,
    on_pass: OnPass | None = None,
) -> tuple[NumberCode, ...]:
    """C's side of the standardisation: the code of each number column of a `standards_request`, as from pooled rows.

    Equals `TabularEncoder.fit` on the rows of all parties. A column of which fewer values than the floor are known is
    left as it is (mean 0, scale 1). Arguments and errors are those of `collect`.
    """
    asking = _Asking(members, gathering, request, job_digest, attempt, floor, quorum, deadline_s, first_sum, on_pass)
    counted = asking.ask("counted", counted_shapes(request))
    known = [float(counted[f"magnitudes {spec.name}"].sum()) for spec in request.numbers]
    ranges = [range_of(counted[f"magnitudes {spec.name}"], floor) for spec in request.numbers]
    binned = asking.ask("binned", binned_shapes(request, ranges), ranges)
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


class StatisticsParty:
    """k's side: answers C until it tells the result.

    `floor` is the smallest cohort of this party's own policy. `rows` holds what the request names; for
    `standardisation`, of the training rows alone. C may take `wait_s` for the others and for its own reckoning.

    Raises `InputError` ``job.not_agreed`` for another request and ``data.too_large``, `PolicyRefusal` ``policy.cohort``
    for a floor below its own, and `PeerFailure`.
    """

    def __init__(
        self,
        channel: Channel,
        giving: Giving,
        request: StatisticsRequest,
        rows: OwnRows,
        *,
        parties: Sequence[str],
        job_digest: str,
        attempt: int,
        floor: int,
        dataset: str = "",
        wait_s: float | None = None,
    ) -> None:
        self._channel, self._giving, self._request, self._rows = channel, giving, request, rows
        self._job, self._attempt, self._floor, self._dataset = job_digest, attempt, floor, dataset
        self._parties, self._data = frozenset(parties), rows.digest()
        self._wait_s = 2 * channel.timeout_s if wait_s is None else wait_s
        self._answered = 0

    def run(self) -> StatisticsResult:
        """Take part in `collect`."""
        return self._told(self._run(), StatisticsResult.from_dict)

    def standardisation(self) -> tuple[NumberCode, ...]:
        """Take part in `standardise`."""
        return self._told(self._run(), self._codes)

    def _codes(self, content: Mapping[str, Any]) -> tuple[NumberCode, ...]:
        """The codes that C tells; raises `ValueError` for those of other columns and for what cannot be one."""
        codes = tuple(
            NumberCode(str(name), float(mean), float(scale), bool(indicator))
            for name, mean, scale, indicator in content["codes"]
        )
        if [code.name for code in codes] != [spec.name for spec in self._request.numbers]:
            raise ValueError("codes of other columns")
        if not all(math.isfinite(code.mean) and 0 < code.scale < math.inf for code in codes):
            raise ValueError("no mean, or no scale")
        return codes

    def _run(self) -> Message:
        while True:
            order = self._channel.receive(
                Topic.STATISTICS, Step.ASK, Step.RESULT, *self._giving.steps, timeout_s=self._wait_s
            )
            if order.step is Step.RESULT:
                return order
            if order.step is Step.ASK:
                self._answer(order)
            else:
                self._giving.handle(order)

    def _answer(self, order: Message) -> None:
        fields = order.fields
        if fields.get("request") != self._request.digest():
            raise InputError(
                "job.not_agreed", party=self._channel.me, peer=self._channel.peer, field="columns and statistics"
            )
        number, floor, parties = fields.get("sum"), fields.get("floor"), fields.get("parties")
        if type(number) is not int or type(floor) is not int or not self._are_asked(parties):
            raise self._channel.refuse(Topic.STATISTICS, "a request without its fields")
        if self._answered == len(PASSES) or fields.get("pass") != PASSES[self._answered]:
            raise self._channel.refuse(Topic.STATISTICS, "a sum that is not due")
        if floor < max(self._floor, self._request.floor):
            raise PolicyRefusal("policy.cohort", party=self._channel.me, dataset=self._dataset)
        which = PASSES[self._answered]
        count = len(self._request.numbers)
        ranges, centres = _ranges(fields.get("ranges"), count), _numbers(fields.get("centres"), count)
        if (ranges is None and which != "counted") or (centres is None and which == "spread"):
            raise self._channel.refuse(Topic.STATISTICS, "ranges or centres that are none")
        self._answered += 1
        if which == "counted":
            values = self._rows.counted()
        elif which == "binned":
            values = self._rows.binned(ranges or [])
        else:
            values = self._rows.spread(ranges or [], centres or [])
        content, terms = _content(self._request, which), _terms(ranges or [], centres or [])
        one = Sum(self._job, self._attempt, number, content, tuple(parties or ()), strict=False, terms=terms)
        self._giving.offer(one, values, EXACT, data=self._data)

    def _are_asked(self, parties: object) -> bool:
        """Whether these are parties of the job, and this one among them."""
        if not isinstance(parties, list) or not all(isinstance(name, str) for name in parties):
            return False
        return self._channel.me in parties and self._parties.issuperset(parties)

    def _told(self, order: Message, read: Callable[[Mapping[str, Any]], Told]) -> Told:
        try:
            return read(json.loads(order.arrays["result"].tobytes()))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as failure:
            raise self._channel.refuse(Topic.STATISTICS, "a result that is none") from failure


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
        first_sum: int,
        on_pass: OnPass | None,
    ) -> None:
        self._members, self._gathering, self._request = members, gathering, request
        self._job, self._attempt, self._floor, self._deadline_s = job_digest, attempt, floor, deadline_s
        self._number, self._on_pass = first_sum, on_pass
        self.parties = members.names
        self._allowed = len(self.parties) if quorum is None else quorum

    def ask(
        self, which: Pass, shapes: Shapes, ranges: Sequence[Range] = (), centres: Sequence[float] = ()
    ) -> dict[str, Floats]:
        """The parts of one sum."""
        content, terms = _content(self._request, which), _terms(ranges, centres)
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


def _content(request: StatisticsRequest, which: Pass) -> str:
    """The digest of what one sum is over; with the party's own rows it says which numbers are in it.

    What changes none of them (floor, quantiles) is left out: another floor does not make it another sum. So are the
    ranges and centres that C announces, or it would shift one by a trifle, ask again, and leave a party out.
    """
    numbers = replace(request, floor=1, quantiles=()).digest()
    return hashlib.sha256(f"isthmus sum {json.dumps([numbers, which])}".encode()).hexdigest()


def _terms(ranges: Sequence[Range], centres: Sequence[float]) -> str:
    """The digest of what C has announced: there is no masked sum of parties that were told different ranges."""
    announced = [[float(one.low).hex(), float(one.high).hex()] for one in ranges], [float(one).hex() for one in centres]
    return hashlib.sha256(f"isthmus announced {json.dumps(announced)}".encode()).hexdigest()


def _numbers(found: object, count: int) -> list[float] | None:
    """Numbers as they came, or None; that they are finite, the channel has seen to."""
    if not isinstance(found, list) or len(found) != count or any(type(one) not in (int, float) for one in found):
        return None
    return [float(one) for one in found]


def _ranges(found: object, count: int) -> list[Range] | None:
    if not isinstance(found, list) or len(found) != count:
        return None
    pairs = [_numbers(one, 2) for one in found]
    if any(pair is None or not -_FARTHEST < pair[0] <= pair[1] < _FARTHEST for pair in pairs):
        return None
    return [Range(*pair) for pair in pairs if pair is not None]
