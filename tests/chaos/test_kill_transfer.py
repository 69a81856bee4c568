"""A transfer that is killed while the source trains, while both do, or while the target judges, goes on to the models
of one that was not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger


def _models(world: Any) -> dict[str, Any]:
    paths = world.homes.glob("*/models/*/*")
    return {f"{path.parts[-4]} {path.stem}": read_tensors(path)[0] for path in paths}


@pytest.fixture
def long_world(transfer_world: Any) -> Any:
    world = transfer_world
    world.sql("lab", "UPDATE t SET died = 1 WHERE died IS NULL")
    world.job["pretraining"] |= {"epochs": 60, "batch_size": 4, "learning_rate": 0.001}
    world.edit_party("insurer", lambda content: content["policy"].update(max_epochs=60))
    world.job["split"] = {"at_least": 50, "epochs": 50, "patience": 50, "batch_size": 4, "top": [4]}
    # Every alignment has fresh keys, and so an order of its own: both runs start from the same one.
    job = world.load_job()
    world.run(f"{job.name}-{job.digest()[:8]}-1", phases=ALIGN_PHASES)
    return world


@pytest.fixture
def uninterrupted(tmp_path: Path, long_world: Any, chaos: Any) -> Any:
    return _models(chaos.finished_twin(long_world, tmp_path / "twin"))


def _pretraining(world: Any) -> bool:
    return bool(list(world.homes.glob("insurer/runs/*/checkpoints/pretraining/fold-1.safetensors")))


def _tuning(world: Any) -> bool:
    checkpoints = world.homes.glob("lab/runs/*/checkpoints/step-*.safetensors")
    return any(int(path.stem.removeprefix("step-")) >= 3 for path in checkpoints)


def _judging(world: Any) -> bool:
    return bool(list(world.homes.glob("insurer/models/*/part.safetensors")))


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("when", "who"),
    [(_pretraining, "insurer"), (_pretraining, ""), (_tuning, "lab"), (_tuning, ""), (_judging, "lab")],
    ids=["source pretrains", "everything pretrains", "target tunes", "everything tunes", "target judges"],
)
def test_a_transfer_that_was_killed_goes_on_to_the_same_models(
    long_world: Any, uninterrupted: Any, when: Any, who: str, chaos: Any
) -> None:
    flow = chaos.start(long_world)
    chaos.wait(lambda: when(long_world))
    if who:
        os.kill(chaos.vaults(long_world, who)[0], signal.SIGKILL)
    else:
        chaos.kill_all(long_world, flow)
    output, _ = flow.communicate(timeout=60)
    assert flow.returncode == (4 if who else -signal.SIGKILL), output
    assert "Traceback" not in output
    chaos.wait(lambda: not chaos.vaults(long_world), seconds=10)  # no orphan
    assert not list(long_world.homes.glob("lab/models/*/*"))

    again = chaos.start(long_world)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert "resumed after model" in output
    chaos.assert_same(_models(long_world), uninterrupted)
    for name in ("insurer", "lab"):
        Ledger(PartyHome(long_world.homes / name)).verify()
