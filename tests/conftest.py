"""The worlds that tests of whole jobs run in, and the order of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from .kept_open import make_state
from .star_world import StarWorld
from .transfer_world import TransferWorld
from .vertical_world import VerticalWorld
from .world import World


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Makes a world of a shape once a session and gives copies of it: making one takes ten times as long."""
    made: dict[object, World] = {}

    def copy_of(shape: type[World], folder: Path, **options: Any) -> World:
        key = (shape, *sorted(options.items()))
        if key not in made:
            made[key] = shape(tmp_path_factory.mktemp(shape.__name__), **options)
            for home in made[key].homes.iterdir():
                make_state(home)
        return made[key].copy_to(folder)

    return copy_of


@pytest.fixture
def make_star(copies: Any) -> Callable[..., StarWorld]:
    """Make a star of any parties."""
    return lambda folder, **options: copies(StarWorld, folder, **options)


@pytest.fixture
def star(make_star: Any, tmp_path: Path) -> StarWorld:
    """Three hospitals and a coordinator, to train."""
    return make_star(tmp_path)


@pytest.fixture
def statistics_star(make_star: Any, tmp_path: Path) -> StarWorld:
    """Three hospitals and a coordinator, to count."""
    return make_star(tmp_path, kind="statistics")


@pytest.fixture
def world(copies: Any, tmp_path: Path) -> VerticalWorld:
    """Two parties."""
    return copies(VerticalWorld, tmp_path)


@pytest.fixture
def world_of_three(copies: Any, tmp_path: Path) -> VerticalWorld:
    """An active party and two passive ones."""
    return copies(VerticalWorld, tmp_path, passive=("lab", "clinic"))


@pytest.fixture
def transfer_world(copies: Any, tmp_path: Path) -> TransferWorld:
    """A source and a target."""
    return copies(TransferWorld, tmp_path)


NEED_A_SERVER = ("test_prefect.py", "test_planted.py", "test_planted_workers.py", "test_rehearsal_prefect.py")
LONGEST_FIRST = (*NEED_A_SERVER, "test_packaging.py", "test_star_runs.py", "test_baselines.py", "test_equality.py")
# Whole jobs over real processes, Prefect, installs: `make test-unit` leaves them out, `make test` and CI do not.
WHOLE = (*LONGEST_FIRST, "test_joining.py", "test_transfer_runs.py", "test_rehearsal.py", "test_up.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: what is left for the end then fits both processors."""
    for item in items:
        if item.path.name in WHOLE:
            item.add_marker("whole")
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.name) if item.path.name in LONGEST_FIRST else 9)


class _Scheduling(LoadFileScheduling):
    """One process runs a file, and one all that need a Prefect server, so that one server is started."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "server" if file.endswith(NEED_A_SERVER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _Scheduling(config, log)
