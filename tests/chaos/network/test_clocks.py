"""A party whose clock is an hour off, as its whole process sees it: Python, gRPC and its TLS, DuckDB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .joined import Joined, assert_same

HOUR_S = 3600
SHIFTS = [-HOUR_S, HOUR_S]
if os.environ.get("QUICK"):
    SHIFTS = [-HOUR_S]  # the worse: for such a party what was signed a moment ago is not valid yet
_SHIM = Path(__file__).with_name("clock.c")


@pytest.fixture
def with_clock(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """The environment of a process whose clock is so many seconds off."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc, with which to make a clock that is wrong")
    built = tmp_path / "clock.so"
    subprocess.run(["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", built, _SHIM, "-ldl"], check=True)
    return lambda seconds: {**os.environ, "LD_PRELOAD": str(built), "SHIFT_S": str(seconds)}


@pytest.mark.timeout(500)
@pytest.mark.parametrize("seconds", SHIFTS)
def test_a_party_whose_clock_is_an_hour_off_takes_part(
    vertical: Joined, say: Callable[[str], None], with_clock: Any, tmp_path: Path, seconds: int
) -> None:
    env = with_clock(seconds)
    told = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], env=env, capture_output=True)
    assert abs(float(told.stdout) - time.time() - seconds) < 60
    vertical.consortium.start_exchange()
    vertical.join("insurer")
    vertical.join("lab", env=env)
    vertical.ends_well()
    models = vertical.models()
    assert_same(models, vertical.uninterrupted(tmp_path / "twin"))
    vertical.nothing_half_written(models)
    assert vertical.vault_log("lab").split(",")[0] != vertical.vault_log("insurer").split(",")[0]
    say(f"lab's clock {seconds:+d} s off: TLS, roster and signature accepted, the job completed, the twin's models")
