"""A party whose worker is away when a job begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from isthmus.flows.workers.members import DEADLINE_S

from ...consortium import wait
from .pieces import SHORT, Pieces, run_of


def _part(pieces: Pieces, flow: str, member: str) -> dict[str, Any]:
    return next((part for part in pieces.api.parts(flow) if part["name"] == member), {})


@pytest.mark.timeout(600)
def test_a_job_whose_party_never_comes_fails_at_the_deadline_and_costs_the_others_nothing(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    pieces.stop("lab")
    job = pieces.job("away", SHORT)
    began = time.monotonic()
    flow, run = pieces.api.start(job), run_of(job)
    wait(lambda: (_part(pieces, flow, "lab") or {"state": {}})["state"].get("name") == "Late", 50)
    late_s = time.monotonic() - began
    assert pieces.api.state(flow) == "RUNNING"
    state = pieces.api.ended(flow, DEADLINE_S + 20)
    failed_s = time.monotonic() - began
    assert state["type"] == "FAILED"
    assert "error[worker.offline]: lab" in state["message"], state
    assert failed_s > DEADLINE_S - 1
    assert _part(pieces, flow, "lab")["state"]["type"] == "CANCELLED"
    assert not _part(pieces, flow, "insurer")  # nobody was asked in vain
    assert not pieces.vault_log("insurer", run)
    assert not (pieces.homes / "insurer" / "runs" / run).exists()
    pieces.start("lab")
    pieces.api.retry(flow)
    pieces.api.completed(flow, 120)
    assert (pieces.attempts("lab", run), pieces.attempts("insurer", run)) == (1, 1)
    say(
        f"lab's part was Late after {late_s:.0f} s, the job failed with worker.offline after {failed_s:.0f} s; insurer "
        "was not asked; retried once lab was back: completed, in each party's first attempt"
    )


@pytest.mark.timeout(600)
def test_a_job_waits_for_a_party_that_comes_before_the_deadline(pieces: Pieces, say: Callable[[str], None]) -> None:
    pieces.stop("insurer")
    job = pieces.job("late", SHORT)
    began = time.monotonic()
    flow = pieces.api.start(job)
    wait(lambda: _part(pieces, flow, "insurer"), 30)
    time.sleep(10)
    pieces.start("insurer")
    came_s = time.monotonic() - began
    pieces.api.completed(flow, 120)
    assert pieces.attempts("lab", run_of(job)) == 1
    say(f"insurer came after {came_s:.0f} s; the job completed after {time.monotonic() - began:.0f} s")
