"""What the chaos tests of operation share: one consortium, made whole again before each test, and silent after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from isthmus.flows.sandbox import free_port

from .pieces import Pieces

QUICK = bool(os.environ.get("QUICK"))
PORT = 4340


@pytest.fixture
def quick() -> bool:
    """Whether the short form of the tests was asked for."""
    return QUICK


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print what was done and seen, under the test's name."""

    def line(text: str) -> None:
        print(f"\n{request.node.name}: {text}", flush=True)

    return line


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pieces]:
    """A Prefect server, an exchange, a coordinator and three parties, for all tests."""
    pieces = Pieces(tmp_path_factory.mktemp("operation"), free_port(PORT))
    try:
        yield pieces
    finally:
        pieces.close()


@pytest.fixture
def pieces(started: Pieces) -> Iterator[Pieces]:
    """All of them at work, and no job. What a test leaves running is ended."""
    started.whole()
    try:
        yield started
    finally:
        started.whole()
        for run in started.api.going():
            started.api.end(run)
        started.no_vault(30)
