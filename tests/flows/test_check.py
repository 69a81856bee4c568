"""What `isthmus check` says before a job is what the job then does."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.flows.check import check_job
from isthmus.flows.kinds import aligned_check as module
from isthmus.parties.events import Traffic
from isthmus.psi.cipher import CHUNK, POINT_NBYTES
from isthmus.psi.matching import VALUE_NBYTES
from isthmus.vertical.training import SCORING_ROWS

NETWORK = {"kind": "network", "bottom": [8, 4], "top": [4]}


def _assert_bounded(world: Any) -> None:
    said = {(item.sender, item.receiver, item.topic): item.nbytes for item in _check(world).leaving}
    told = world.run_inside().of(Traffic)
    left = {(party, event.peer, event.topic): event.sent for party, event in told if event.sent}
    assert left.keys() == said.keys()
    assert {way: nbytes for way, nbytes in left.items() if nbytes > said[way]} == {}


def _check(world: Any) -> Any:
    check = check_job(world.load_job(), world.homes)
    assert check.error is None
    return check


@pytest.mark.parametrize("model", [NETWORK, {"kind": "logistic"}], ids=["network", "logistic"])
def test_no_more_leaves_than_the_check_said(world_of_three: Any, model: dict[str, Any]) -> None:
    world_of_three.job["model"] = model
    _assert_bounded(world_of_three)


def test_no_more_leaves_where_one_pass_matches_everybody(world: Any) -> None:
    world.job["align"]["passes"] = [["national_id"]]
    world.job["training"] |= {"epochs": 2, "batch_size": 1}
    _assert_bounded(world)


def test_a_check_leaves_nothing_behind_and_no_word_to_a_peer(world: Any) -> None:
    before = sorted(world.homes.rglob("*"))
    _check(world)
    assert sorted(world.homes.rglob("*")) == before


def test_sizes_that_the_check_repeats_are_those_of_the_protocols() -> None:
    assert (module.POINT_NBYTES, module.CUT_POINT_NBYTES) == (POINT_NBYTES, VALUE_NBYTES)
    assert module.CHUNK_ROWS == CHUNK == SCORING_ROWS
