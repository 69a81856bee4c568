"""`isthmus up` in the middle of a job, when it is told to end, and when it is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ...consortium import wait
from ...marked import Mark
from ...prefect_api import FINAL, PrefectApi
from ...whole_up import WholeUp
from .pieces import LONG, PATIENTS, job_file, run_of, step_of

GONE_S = 20.0
PORT = 4345


@pytest.fixture
def mark() -> Iterator[Mark]:
    """Whatever bears it ends with the test."""
    mark = Mark()
    yield mark
    mark.kill()


def _ctrl_c(up: WholeUp) -> None:
    up.interrupt()


def _killed(up: WholeUp) -> None:
    assert up.process is not None
    up.process.kill()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("end", [_ctrl_c, _killed])
def test_all_of_isthmus_up_is_gone_within_twenty_seconds(
    tmp_path: Path, mark: Mark, say: Callable[[str], None], end: Callable[[WholeUp], None]
) -> None:
    up = WholeUp(tmp_path, PATIENTS, PORT, mark.environment)
    up_s = up.start()
    there = len(mark.processes())
    job = job_file(up.homes, "ends", LONG)
    with closing(PrefectApi(up.url)) as api:
        flow = api.start(job)
    wait(lambda: step_of(up.homes, run_of(job)) >= 3, 150)
    during = len(mark.processes())
    assert during >= there + 2  # the vaults
    end(up)
    began = time.monotonic()
    wait(lambda: not mark.processes(), GONE_S)
    gone_s = time.monotonic() - began
    assert up.process is not None
    code = up.process.wait(5)
    up.start()  # from the same folder
    with closing(PrefectApi(up.url)) as api:
        state = api.state(flow)
        if end is _ctrl_c:
            assert code == 0
            assert state in FINAL  # the members were asked first, while there was a server to tell
            api.retry(flow)
            api.completed(flow, 300)
    assert up.stop() == 0
    assert not mark.processes()
    say(
        f"up in {up_s:.0f} s with {there} processes, {during} in mid-job; the last was gone after {gone_s:.1f} s (exit "
        f"code {code}); when it was up again the job was {state.lower()}"
    )
