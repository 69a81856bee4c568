"""An exchange that is not there: at the start, at all, or at the end; and one whose port is taken."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .joined import Joined, assert_same

LATER_S = 5.0


def _kill_exchange_when_evaluated(run: Joined) -> None:
    """kill -9 once the first member has ended its last phase, and begins to say goodbye."""
    run.join(timeout_s=15)
    run.wait(lambda: any(run.ended("evaluate", member) for member in run.members))
    run.consortium.kill_exchange()


def test_an_exchange_whose_port_is_taken_says_so(vertical: Joined, say: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", vertical.consortium.port)):
        process = vertical.consortium.spawn("exchange", "start", "--folder", vertical.consortium.exchange_folder)
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "error[exchange.port_taken]" in said
    assert "Traceback" not in said
    say("a second listener on the exchange's port: exchange.port_taken, exit 2")


@pytest.mark.timeout(300)
def test_members_wait_for_an_exchange_that_is_started_later(vertical: Joined, say: Callable[[str], None]) -> None:
    vertical.join()
    vertical.wait(lambda: all("cannot reach the exchange" in vertical.said(member) for member in vertical.members))
    time.sleep(LATER_S)
    vertical.consortium.start_exchange()
    vertical.ends_well()
    for member in vertical.members:
        assert vertical.said(member).count("cannot reach the exchange") == 1
        assert vertical.said(member).count("has reached the exchange") == 1
    vertical.nothing_half_written(vertical.models())
    say(f"both members said that they cannot reach the exchange; started {LATER_S:.0f} s later, the job completed")


@pytest.mark.timeout(300)
def test_members_give_up_an_exchange_that_is_never_started(vertical: Joined, say: Callable[[str], None]) -> None:
    vertical.join(timeout_s=10)
    took = [vertical.ends_with(member, 4, "exchange.down", within_s=60) for member in vertical.members]
    vertical.nothing_runs()
    vertical.nothing_half_written()
    say(f"no exchange, --timeout 10: both gave up with exchange.down (4) after {sum(took):.0f} s; nothing left behind")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("shape", ["vertical", "horizontal"])
def test_an_exchange_that_goes_at_the_end_and_comes_back_harms_nobody(
    request: Any, say: Callable[[str], None], shape: str, quick: bool
) -> None:
    if quick and shape == "horizontal":
        pytest.skip("in the long form")
    run: Joined = request.getfixturevalue(shape)
    run.consortium.start_exchange()
    _kill_exchange_when_evaluated(run)
    time.sleep(2)
    run.consortium.start_exchange()
    run.ends_well()
    run.nothing_half_written(run.models())
    say(f"{shape}: the exchange killed as the first member had evaluated, started again 2 s later: all finished")


@pytest.mark.timeout(400)
def test_what_an_exchange_that_goes_at_the_end_leaves_open_a_retry_finishes(
    vertical: Joined, say: Callable[[str], None], tmp_path: Path
) -> None:
    vertical.consortium.start_exchange()
    _kill_exchange_when_evaluated(vertical)
    codes = {member: process.wait(100) for member, process in vertical.processes.items()}
    for member, code in codes.items():
        assert code == 0 or (code == 4 and "error[exchange.down]" in vertical.said(member)), vertical.said(member)
    vertical.nothing_runs()
    models = vertical.models()
    vertical.nothing_half_written(models)
    vertical.consortium.start_exchange()
    vertical.join()
    began = time.monotonic()
    vertical.ends_well()
    took = time.monotonic() - began
    for member in vertical.members:
        assert "resumed after epoch 20" in vertical.said(member)  # nothing is trained again
    assert_same({member: vertical.models()[member] for member in models}, models)
    assert_same(vertical.models(), vertical.uninterrupted(tmp_path / "twin"))
    say(
        f"the exchange killed as the first member had evaluated, and not started again: exit codes {codes}; a retry "
        f"took {took:.0f} s, the models are the same"
    )
