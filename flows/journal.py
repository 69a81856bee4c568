"""The journal of one run: every public event of every party, as it comes. Screen, artifacts and report read it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from ..parties.events import PublicEvent

E = TypeVar("E")
_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def log_to_stderr() -> None:
    """Say on stderr what this process does, whatever Prefect sets for the loggers of others."""
    ours = logging.getLogger("isthmus")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


Listener = Callable[[str, PublicEvent], None]


@dataclass
class Journal:
    """Events by party, in the order of their coming. `listeners` are called for each, in the flow's process."""

    run: str
    listeners: list[Listener] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    events: list[tuple[str, PublicEvent]] = field(default_factory=list)

    def note(self, party: str, event: PublicEvent) -> None:
        """Keep one event of one party."""
        self.events.append((party, event))
        for listener in self.listeners:
            listener(party, event)

    def of(self, kind: type[E]) -> Iterator[tuple[str, E]]:
        """All events of a kind with their parties, oldest first."""
        return ((party, event) for party, event in self.events if isinstance(event, kind))
