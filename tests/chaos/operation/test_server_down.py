"""A Prefect server that is away for a while in the middle of a job: vaults need none, and all others wait for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from .pieces import SERVER, Pieces, step_of

DOWN_S = 15.0


def _killed(pieces: Pieces) -> None:
    pieces.kill(SERVER)
    time.sleep(DOWN_S)
    pieces.start(SERVER)


def _stopped(pieces: Pieces) -> None:
    pieces.signal(SERVER, signal.SIGSTOP)
    time.sleep(DOWN_S)
    pieces.signal(SERVER, signal.SIGCONT)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("away", [_killed, _stopped])
def test_a_job_completes_although_the_server_is_away_for_fifteen_seconds(
    pieces: Pieces, say: Callable[[str], None], away: Callable[[Pieces], None]
) -> None:
    flow, run = pieces.start_long(f"server-{away.__name__.strip('_')}")
    before = step_of(pieces.homes, run)
    away(pieces)
    after = step_of(pieces.homes, run)
    assert after > before  # the parties went on meanwhile
    pieces.api.completed(flow, 180)
    assert {part["name"]: part["state"]["type"] for part in pieces.api.parts(flow)} == {
        "insurer": "COMPLETED",
        "lab": "COMPLETED",
    }
    assert pieces.models(run) == ["insurer", "lab"]
    assert (pieces.attempts("lab", run), pieces.attempts("insurer", run)) == (1, 1)
    assert (pieces.runs / run / "report.html").is_file()
    say(
        f"{away.__name__.strip('_')} for {DOWN_S:.0f} s from epoch {before} on, at epoch {after} when it was back; the "
        "job completed in its first attempt, with its report"
    )
