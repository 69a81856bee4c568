"""A run that is killed at any point is started again and ends with the weights of a run that was not."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger

EPOCHS = 60


def _in_mid_training(world: Any) -> bool:
    checkpoints = world.homes.glob("*/runs/*/checkpoints/step-*.safetensors")
    return any(int(path.stem.removeprefix("step-")) >= 3 for path in checkpoints)


def _weights(world: Any) -> dict[str, dict[str, np.ndarray]]:
    return {name: read_tensors(next(world.homes.glob(f"{name}/models/*/*")))[0] for name in ("insurer", "lab")}


@pytest.fixture
def long_world(world: Any) -> Any:
    world.job["training"] |= {"epochs": EPOCHS, "patience": EPOCHS, "batch_size": 4}
    for name in ("insurer", "lab"):
        world.edit_party(name, lambda content: content["policy"].update(max_epochs=EPOCHS))
    # Every alignment has fresh keys, and so an order of its own: both runs start from the same one.
    job = world.load_job()
    world.run(f"{job.name}-{job.digest()[:8]}-1", phases=ALIGN_PHASES)
    return world


@pytest.fixture
def uninterrupted(tmp_path: Path, long_world: Any, chaos: Any) -> Any:
    return _weights(chaos.finished_twin(long_world, tmp_path / "twin"))


def _one_vault(chaos: Any, world: Any, flow: subprocess.Popen[str]) -> None:
    os.kill(chaos.vaults(world)[0], signal.SIGKILL)


def _the_flow(chaos: Any, world: Any, flow: subprocess.Popen[str]) -> None:
    flow.kill()


def _everything(chaos: Any, world: Any, flow: subprocess.Popen[str]) -> None:
    chaos.kill_all(world, flow)


def _ctrl_c(chaos: Any, world: Any, flow: subprocess.Popen[str]) -> None:
    os.killpg(flow.pid, signal.SIGINT)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("stop", [_one_vault, _the_flow, _everything, _ctrl_c])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    long_world: Any, uninterrupted: Any, stop: Any, chaos: Any
) -> None:
    flow = chaos.start(long_world)
    chaos.wait(lambda: _in_mid_training(long_world))
    stop(chaos, long_world, flow)
    output, _ = flow.communicate(timeout=60)
    assert flow.returncode != 0
    if stop is _one_vault:
        assert flow.returncode == 4
        assert "error[vault.died]" in output
    if stop is _ctrl_c:
        assert flow.returncode == 130
        assert "error[run.interrupted]" in output
    assert "Traceback" not in output
    chaos.wait(lambda: not chaos.vaults(long_world), seconds=10)  # no orphan
    assert not list(long_world.homes.glob("*/models/*/*"))

    again = chaos.start(long_world)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert "resumed after epoch" in output
    assert len(list(long_world.runs.glob("test-job-*"))) == 1
    chaos.assert_same(_weights(long_world), uninterrupted)
    for name in ("insurer", "lab"):
        Ledger(PartyHome(long_world.homes / name)).verify()


@pytest.mark.timeout(400)
def test_fresh_starts_over(long_world: Any, chaos: Any) -> None:
    flow = chaos.start(long_world)
    chaos.wait(lambda: _in_mid_training(long_world))
    _the_flow(chaos, long_world, flow)
    flow.communicate(timeout=60)
    chaos.wait(lambda: not chaos.vaults(long_world), seconds=10)
    done = long_world.command("run", str(long_world.job_file()), "--fresh")
    assert done.returncode == 0, done.stderr
    assert "resumed" not in done.stdout
    assert len(list(long_world.runs.glob("test-job-*"))) == 2
