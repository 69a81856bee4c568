"""A party's side of federated statistics: it counts what is asked of its rows. `statistics` has the protocol."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from ..parties.errors import InputError, PolicyRefusal
from ..parties.network.channel import Channel
from ..parties.network.message import Message, Step, Topic
from .codes import NumberCode
from .counting import OwnRows, Range
from .findings import StatisticsResult
from .fixed_point import EXACT
from .request import StatisticsRequest
from .summing import Giving, Sum, asked_in

Told = TypeVar("Told")
Pass = Literal["counted", "binned", "spread"]
PASSES: tuple[Pass, ...] = ("counted", "binned", "spread")
_FARTHEST = 2.0**64  # no range that follows from counts by magnitude reaches as far


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
        self._parties, self._data = tuple(parties), rows.digest()
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
        number, asked = asked_in(order, self._parties, self._channel, Topic.STATISTICS)
        floor = fields.get("floor")
        if type(floor) is not int:
            raise self._channel.refuse(Topic.STATISTICS, "a request without a floor")
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
        content, terms = pass_content(self._request, which), announced(ranges or [], centres or [])
        one = Sum(self._job, self._attempt, number, content, asked, strict=False, terms=terms)
        self._giving.offer(one, values, EXACT, data=self._data)

    def _told(self, order: Message, read: Callable[[Mapping[str, Any]], Told]) -> Told:
        try:
            return read(json.loads(order.arrays["result"].tobytes()))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as failure:
            raise self._channel.refuse(Topic.STATISTICS, "a result that is none") from failure


def pass_content(request: StatisticsRequest, which: Pass) -> str:
    """The digest of what one sum is over; with the party's own rows it says which numbers are in it.

    What changes none of them (floor, quantiles) is left out: another floor does not make it another sum. So are the
    ranges and centres that C announces, or it would shift one by a trifle, ask again, and leave a party out.
    """
    numbers = replace(request, floor=1, quantiles=()).digest()
    return hashlib.sha256(f"isthmus sum {json.dumps([numbers, which])}".encode()).hexdigest()


def announced(ranges: Sequence[Range], centres: Sequence[float]) -> str:
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
