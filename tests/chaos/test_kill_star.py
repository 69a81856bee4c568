"""A horizontal run whose party or coordinator is killed in mid-round goes on to the weights of one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger

ROUNDS = 40
Stop = Callable[[Any, Any], None]


def _weights(star: Any) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    return {name: read_tensors(next(star.homes.glob(f"{name}/models/*/*")))[0] for name in star.parties}


def _in_mid_training(star: Any) -> bool:
    checkpoints = star.homes.glob("hub/runs/*/checkpoints/step-*.safetensors")
    return any(int(path.stem.removeprefix("step-")) >= 4 for path in checkpoints)


@pytest.fixture(params=["fedavg", "scaffold"])
def long_star(request: Any, star: Any) -> Any:
    star.job["strategy"] = request.param
    star.job["rounds"] |= {"count": ROUNDS, "local_epochs": 2, "batch_size": 4, "keep": "last"}
    star.job["alone"] = False
    return star


@pytest.fixture
def uninterrupted(tmp_path: Path, long_star: Any, chaos: Any) -> Any:
    return _weights(chaos.finished_twin(long_star, tmp_path / "twin"))


def _kill(chaos: Any, star: Any, member: str) -> None:
    os.kill(chaos.vaults(star, member)[0], signal.SIGKILL)


def _a_party(chaos: Any, star: Any, flow: Any) -> None:
    _kill(chaos, star, "south")


def _the_coordinator(chaos: Any, star: Any, flow: Any) -> None:
    _kill(chaos, star, "hub")


def _everything(chaos: Any, star: Any, flow: Any) -> None:
    chaos.kill_all(star, flow)


@pytest.mark.timeout(500)
@pytest.mark.parametrize("stop", [_a_party, _the_coordinator, _everything])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(
    long_star: Any, uninterrupted: Any, stop: Any, chaos: Any
) -> None:
    flow = chaos.start(long_star)
    chaos.wait(lambda: _in_mid_training(long_star))
    stop(chaos, long_star, flow)
    output, _ = flow.communicate(timeout=60)
    assert flow.returncode != 0
    if stop is not _everything:
        assert flow.returncode == 4, output
        assert "error[vault.died]" in output
    assert "Traceback" not in output
    chaos.wait(lambda: not chaos.vaults(long_star), seconds=10)  # no orphan
    assert not list(long_star.homes.glob("*/models/*/*"))

    again = chaos.start(long_star)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert "resumed after round" in output
    chaos.assert_same(_weights(long_star), uninterrupted)
    for name in long_star.members:
        Ledger(PartyHome(long_star.homes / name)).verify()


@pytest.mark.timeout(300)
def test_above_the_quorum_a_training_goes_on_without_a_party_that_was_killed(tmp_path: Path, chaos: Any) -> None:
    star = chaos.star(tmp_path, parties=("north", "south", "east", "west", "central"))
    star.job["rounds"] |= {"count": ROUNDS, "local_epochs": 2, "batch_size": 4, "quorum": 4, "deadline_s": 60}
    star.job["alone"] = False
    flow = chaos.start(star)
    chaos.wait(lambda: _in_mid_training(star))
    _kill(chaos, star, "south")
    output, _ = flow.communicate(timeout=200)
    assert flow.returncode == 0, output
    assert "south" in output  # that it dropped out is said
    assert len(list(star.homes.glob("*/models/*/part.safetensors"))) == 4
