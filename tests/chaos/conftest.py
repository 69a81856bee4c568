"""What the chaos tests share: runs as processes, their vaults, waiting for something to happen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


def start(world: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "isthmus.flows.cli", "run", str(world.job_file())],
        cwd=world.folder,
        env={**os.environ, "ISTHMUS_HOMES": str(world.homes), "ISTHMUS_RUNS": str(world.runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def vaults(world: Any, member: str = "") -> list[int]:
    """Process ids of a world's vaults, or of one member's."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"isthmus.flows.vault" in words and str(world.homes / member).encode() in b" ".join(words):
            found.append(int(folder.name))
    return found


def kill_all(world: Any, flow: subprocess.Popen[str]) -> None:
    for pid in [flow.pid, *vaults(world)]:
        with contextlib.suppress(ProcessLookupError):  # a vault that noticed was faster
            os.kill(pid, signal.SIGKILL)


def finished_twin(world: Any, folder: Path) -> Any:
    """A copy of a world whose job has run without being stopped."""
    twin = world.copy_to(folder)
    process = start(twin)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return twin


def wait(ask: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def assert_same(one: Any, other: Any) -> None:
    for party, weights in one.items():
        assert weights.keys() == other[party].keys()
        for name, value in weights.items():
            assert np.array_equal(value, other[party][name]), (party, name)


@pytest.fixture
def chaos(make_star: Any) -> SimpleNamespace:
    """The helpers above, and a star of any parties."""
    return SimpleNamespace(
        start=start, vaults=vaults, kill_all=kill_all, finished_twin=finished_twin, wait=wait,
        assert_same=assert_same, star=make_star,
    )  # fmt: skip
