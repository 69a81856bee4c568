"""Publisher: the only way out of a vault to its flow, held by the party's policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from ..parties.errors import IsthmusError
from ..parties.events import (
    Chosen,
    Count,
    Curve,
    Drift,
    Metric,
    Phase,
    Progress,
    PublicEvent,
    Round,
    Traffic,
    parse,
    public_failure,
)
from ..parties.policy import Policy, Publishable
from ..parties.released import CategorySummary, Cells, NumberSummary, Steps

PROGRESS_EVERY_S = 0.2
# The bytes of an alignment are a multiple of the number of its rows.
_NEEDS: dict[type, frozenset[Publishable]] = {
    Count: frozenset({"counts"}),
    Traffic: frozenset({"counts"}),
    Metric: frozenset({"metrics"}),
    Chosen: frozenset({"metrics"}),  # by them
    Curve: frozenset({"curves"}),
    Round: frozenset({"metrics"}),
    Drift: frozenset({"metrics"}),
    NumberSummary: frozenset({"counts", "metrics"}),
    CategorySummary: frozenset({"counts"}),
    Cells: frozenset({"counts"}),
    Steps: frozenset({"counts", "curves"}),
}
_OF_ROWS = frozenset({"count"})  # numbers of a failure that count rows


class Publisher:
    """Writes events as JSON lines, if they name nothing but the job's aliases and the policy lets their kind go."""

    def __init__(self, write: Callable[[bytes], None], aliases: Iterable[str]) -> None:
        self._write, self._aliases = write, frozenset(aliases)
        self._allowed: tuple[Publishable, ...] = ()  # nothing, until a policy has been read
        self._lock = threading.Lock()
        self._last_progress = (0.0, (Phase.AGREE, 0))

    def obey(self, policy: Policy) -> None:
        """Hold to a party's policy from here on."""
        self._allowed = policy.publish

    def __call__(self, event: PublicEvent) -> None:
        """Let an event go, or withhold it."""
        if not _NEEDS.get(type(event), frozenset()) <= set(self._allowed):
            return
        if isinstance(event, Metric) and event.rows is not None and "counts" not in self._allowed:
            event = event.model_copy(update={"rows": None})
        if isinstance(event, Progress):
            if self._too_soon(event):
                return
            if "counts" not in self._allowed:
                # Work goes in chunks and batches of known size, so that even a share tells how many rows there are.
                if event.done < event.total:
                    return
                event = event.model_copy(update={"done": 1, "total": 1})
        self._put(event)

    def failure(self, phase: Phase, error: IsthmusError) -> None:
        """Tell that a phase failed: the code, and what of its facts is public."""
        event = public_failure(phase, error, self._aliases)
        if "counts" not in self._allowed:
            numbers = {name: number for name, number in event.numbers.items() if name not in _OF_ROWS}
            event = event.model_copy(update={"numbers": numbers})
        self._put(event)

    def _put(self, event: PublicEvent) -> None:
        line = event.model_dump_json()
        parse(line, self._aliases)  # the same check that the flow makes: what it would refuse is never written
        with self._lock:
            self._write(line.encode() + b"\n")

    def _too_soon(self, event: Progress) -> bool:
        unit, now = (event.phase, event.index), time.monotonic()
        last, last_unit = self._last_progress
        if event.done < event.total and unit == last_unit and now - last < PROGRESS_EVERY_S:
            return True
        self._last_progress = (now, unit)
        return False
