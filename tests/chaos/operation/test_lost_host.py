"""A host that is lost with all its processes: nobody can say so but the server, which hears nothing of its runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from isthmus.flows.sandbox import COORDINATOR

from .pieces import Pieces

CRASHED_S = 120.0
COMPLETED_S = 300.0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("members", [("lab",), (COORDINATOR,), ("lab", COORDINATOR)], ids="+".join)
def test_the_runs_of_a_lost_host_are_marked_crashed_within_two_minutes_and_a_retry_completes_the_job(
    pieces: Pieces, say: Callable[[str], None], members: tuple[str, ...]
) -> None:
    flow, run = pieces.start_long(f"lost-{'-'.join(members)}")
    lost = {member: len(pieces.lose_host(member)) for member in members}
    began = time.monotonic()
    ended: dict[str, tuple[str, float]] = {}
    awaited = {flow, *(name for name in members if name != COORDINATOR)}
    while not ended.keys() >= awaited:  # what others do of the job may go on: nobody tells them to stop
        _note(pieces, flow, ended, time.monotonic() - began)
        assert time.monotonic() - began < CRASHED_S, ended
        time.sleep(1)
    assert ended[flow][0] == ("CRASHED" if COORDINATOR in members else "FAILED")
    if "lab" in members:
        assert ended["lab"][0] == "CRASHED"
    state = pieces.api.run(flow)["state"]
    assert "error[" in state["message"], state
    pieces.start(*members)
    began = time.monotonic()
    pieces.api.retry(flow)
    pieces.api.completed(flow, COMPLETED_S)
    again_s = time.monotonic() - began
    assert pieces.models(run) == ["insurer", "lab"]
    assert not pieces.run_folders_after(run)
    seen = ", ".join(
        f"{'the job' if name == flow else name} {how.lower()} {s:.0f} s" for name, (how, s) in ended.items()
    )
    say(f"killed at once {lost}; after that: {seen}; retried, the same run completed in {again_s:.0f} s")


def _note(pieces: Pieces, flow: str, ended: dict[str, tuple[str, float]], after_s: float) -> None:
    """Keep how and when the job and its parts ended."""
    found = {part["name"]: part["state"]["type"] for part in pieces.api.parts(flow)}
    found[flow] = pieces.api.state(flow)
    for name, how in found.items():
        if how in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            ended.setdefault(name, (how, after_s))
