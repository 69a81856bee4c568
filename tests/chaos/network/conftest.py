"""What the chaos tests of the network share: a consortium whose members meet at an exchange, behind a bad network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ...consortium import Consortium, free_port
from ...parties.cut_proxy import CutProxy
from ...star_world import StarWorld
from ...vertical_world import VerticalWorld
from .joined import Joined
from .transfers import Transfer

QUICK = bool(os.environ.get("QUICK"))


@pytest.fixture
def quick() -> bool:
    """Whether the short form of the tests was asked for."""
    return QUICK


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Print what was done and seen, under the test's name."""

    def line(text: str) -> None:
        print(f"\n{request.node.name}: {text}", flush=True)

    return line


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What is entered here ends with the test, however it ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def transfer(world: VerticalWorld, tmp_path: Path, ends: ExitStack) -> Callable[[int], Transfer]:
    """Make a transfer of so many MiB between two members; the exchange is up."""

    def make(mib: int) -> Transfer:
        consortium = ends.enter_context(Consortium(tmp_path, world.job, starter="insurer"))
        consortium.start_exchange()
        return ends.enter_context(Transfer(consortium, mib))

    return make


@pytest.fixture
def joined(ends: ExitStack, tmp_path: Path) -> Callable[..., Joined]:
    """Make a consortium of a world's homes, whose members reach the exchange through a proxy."""

    def make(world: Any, *, starter: str) -> Joined:
        port = free_port()
        proxy = ends.enter_context(CutProxy(f"127.0.0.1:{port}"))
        pristine = world.copy_to(tmp_path / "pristine")
        founded = Consortium(world.folder, world.job, starter=starter, port=port, connect=proxy.address)
        return Joined(world, pristine, ends.enter_context(founded), proxy)

    return make


@pytest.fixture
def vertical(world: VerticalWorld, joined: Callable[..., Joined]) -> Joined:
    """An insurer and a lab that train together for some seconds."""
    world.job["training"] |= {"epochs": 20, "patience": 20, "batch_size": 8}
    return joined(world, starter="insurer")


@pytest.fixture
def horizontal(star: StarWorld, joined: Callable[..., Joined]) -> Joined:
    """Three hospitals and a coordinator that train together for some seconds."""
    rounds = {"count": 12, "local_epochs": 2, "batch_size": 8, "keep": "last", "deadline_s": 30}
    star.job["rounds"] |= rounds
    star.job["alone"] = False
    return joined(star, starter="hub")
