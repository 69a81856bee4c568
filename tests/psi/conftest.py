"""Two or more parties in one process: channels over memory, a thread each, and a record of what went over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.message import Message
from isthmus.parties.table import Identifier

from ..recording import recording_pair

TIMEOUT_S = 20.0


class Link:
    """Both ends of the way between two parties, and what each sent."""

    def __init__(self, left: str, right: str, timeout_s: float) -> None:
        self._first, self._second = recording_pair()
        self.left = Channel(self._first, me=left, peer=right, log=CountingLog(), timeout_s=timeout_s)
        self.right = Channel(self._second, me=right, peer=left, log=CountingLog(), timeout_s=timeout_s)

    @property
    def left_sent(self) -> list[Message]:
        return self._first.messages()

    @property
    def right_sent(self) -> list[Message]:
        return self._second.messages()

    def close(self) -> None:
        self.left.close()
        self.right.close()


@pytest.fixture
def link() -> Iterator[Callable[..., Link]]:
    """Makes links; closes them at the end."""
    made: list[Link] = []

    def make(left: str = "lab", right: str = "insurer", timeout_s: float = TIMEOUT_S) -> Link:
        made.append(Link(left, right, timeout_s))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    """The same two threads for all tests."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="session")
def together() -> Callable[..., list[Any]]:
    """Runs each side in a thread. Gives what each returned, or the exception that ended it; fails if one hangs."""

    def run(*sides: Callable[[], Any]) -> list[Any]:
        outcomes: list[Any] = [None] * len(sides)

        def one(place: int) -> None:
            try:
                outcomes[place] = sides[place]()
            except Exception as failure:
                outcomes[place] = failure

        threads = [threading.Thread(target=one, args=(place,), daemon=True) for place in range(len(sides))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a side hangs"
        return outcomes

    return run


@pytest.fixture(scope="session")
def identifiers() -> Callable[..., Mapping[str, Identifier]]:
    """Text columns by name, as a store gives them."""

    def make(**columns: Sequence[str | None]) -> Mapping[str, Identifier]:
        return {name: Identifier([np.array(values, dtype=object)]) for name, values in columns.items()}

    return make
