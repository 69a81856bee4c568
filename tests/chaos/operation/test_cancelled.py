"""A job that somebody cancels in the UI."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from ...consortium import wait
from .pieces import LONG, Pieces

STOPPED_S = 15.0


@pytest.mark.timeout(600)
def test_a_job_that_is_cancelled_stops_at_all_parties_within_fifteen_seconds(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    before = pieces.settled()
    flow, run = pieces.start_long("cancelled")
    pieces.api.cancel(flow)
    began = time.monotonic()
    wait(lambda: not pieces.vaults(), STOPPED_S)
    vaults_s = time.monotonic() - began
    # Prefect's engine calls what it cancels crashed; the worker, who knows better, says so right after.
    wait(lambda: pieces.api.state(flow) == "CANCELLED" and not pieces.api.going(), STOPPED_S - vaults_s)
    told_s = time.monotonic() - began
    assert {part["name"]: part["state"]["type"] for part in pieces.api.parts(flow)} == {
        "insurer": "CANCELLED",
        "lab": "CANCELLED",
    }
    assert _without_numbers(pieces.settled()) == _without_numbers(before)
    assert not pieces.models(run)
    say(
        f"the last vault was gone after {vaults_s:.1f} s, all runs cancelled after {told_s:.1f} s; then the "
        f"{len(before)} processes from before, and no other"
    )


@pytest.mark.timeout(600)
def test_a_job_that_is_cancelled_before_its_parties_begin_starts_no_vault(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    job = pieces.job("cancelled-early", LONG)
    flow = pieces.api.start(job)
    wait(lambda: pieces.api.state(flow) == "RUNNING", 30)
    pieces.api.cancel(flow)
    began = time.monotonic()
    wait(lambda: pieces.api.state(flow) == "CANCELLED" and not pieces.api.going(), STOPPED_S)
    pieces.no_vault(1)
    say(f"all runs had ended {time.monotonic() - began:.1f} s after; {len(pieces.api.parts(flow))} parts were begun")


def _without_numbers(commands: list[str]) -> list[str]:
    """The descriptor of a vault's pipe is another one each time."""
    return [re.sub(r"--control \d+", "", command) for command in commands]
