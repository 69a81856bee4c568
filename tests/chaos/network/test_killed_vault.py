"""A vault that is killed in any phase: its peers end with a clear error, and all go on to the models of a run that
nobody has stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isthmus.horizontal.participant import PHASES

from ...parties.cut_proxy import BOTH
from .joined import Joined, assert_same

TIMEOUT_S = 15.0
WAY_S = 0.2  # from a member to the exchange, and from there to another: longer than it takes to see a phase end
VERTICAL = [(phase, victim) for phase in ("agree", "align", "train", "evaluate") for victim in ("insurer", "lab")]
HORIZONTAL = [(phase, victim) for phase in ("agree", "prepare", "train", "evaluate") for victim in ("south", "hub")]
if os.environ.get("QUICK"):
    VERTICAL, HORIZONTAL = [("train", "insurer")], [("train", "south")]
BY_PEERS = ("peer.deadline", "peer.gone", "rounds.quorum")


def _kill_in(run: Joined, phase: str, victim: str) -> None:
    """Have all join, and kill the vault of one in a phase, which cannot end meanwhile: the network stands still.

    Who only has to send in a phase may have said all of it by then. So the way is long before that phase begins, and
    what was said is still on it, and is lost.
    """
    phases = [each.value for each in run.world.load_job().phases]
    if phase == "agree":
        run.proxy.pause()
    run.join(timeout_s=TIMEOUT_S)
    if phase == "agree":
        run.wait(lambda: run.attempts(victim) == 1)
    elif phase == "train":
        run.wait(lambda: run.steps() >= 3)  # of a party of a star, whose model is the coordinator's, there are none
    else:
        if phase == "evaluate":
            run.wait(lambda: run.steps() >= run.last_step - 1)
            run.proxy.delay_s = dict.fromkeys(BOTH, WAY_S)
        run.wait(lambda: run.ended(phases[phases.index(phase) - 1], victim))
    run.proxy.pause()
    time.sleep(0.1)
    assert phase == "evaluate" or not run.ended(phase, victim), run.said(victim)
    run.kill_vault(victim)
    run.proxy.delay_s = dict.fromkeys(BOTH, 0.0)
    if phase == "evaluate":
        run.proxy.cut()
    run.proxy.resume()


def _goes_on(run: Joined, phase: str, victim: str, deadline_s: float, folder: Path) -> str:
    """All that has to hold from the kill on; what was seen, in words."""
    run.ends_with(victim, 4, "vault.died", within_s=TIMEOUT_S)
    peers = [member for member in run.members if member in run.processes and member != victim]
    began = time.monotonic()
    for peer in peers:
        run.ends_with(peer, 4, *BY_PEERS, within_s=deadline_s)
    took = time.monotonic() - began
    run.nothing_runs()
    early = run.models()
    run.nothing_half_written(early)
    assert phase == "evaluate" or not early
    run.join()
    run.ends_well()
    assert run.attempts(victim) == 2
    if phase == "train":
        assert any("resumed after" in run.said(member) for member in run.members)
    models = run.models()
    assert_same(models, run.uninterrupted(folder, 1 if phase in ("train", "evaluate") else 2))
    assert_same(early, {member: models[member] for member in early})
    run.nothing_half_written(models)
    return (
        f"{victim}'s vault killed in {phase}: the last of {', '.join(peers)} ended {took:.0f} s later (4); started "
        "again, all complete with the twin's models"
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("phase", "victim"), VERTICAL)
def test_a_vertical_job_goes_on_after_a_vault_was_killed(
    vertical: Joined, say: Callable[[str], None], tmp_path: Path, phase: str, victim: str
) -> None:
    vertical.consortium.start_exchange()
    _kill_in(vertical, phase, victim)
    say(_goes_on(vertical, phase, victim, TIMEOUT_S, tmp_path / "twin"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("phase", "victim"), HORIZONTAL)
def test_a_horizontal_job_goes_on_after_a_vault_was_killed(
    horizontal: Joined, say: Callable[[str], None], tmp_path: Path, phase: str, victim: str
) -> None:
    horizontal.consortium.start_exchange()
    _kill_in(horizontal, phase, victim)
    # While the coordinator waits for others, a party waits for it; so it does where the coordinator is gone for good.
    waits = PHASES * horizontal.world.job["rounds"]["deadline_s"]
    say(_goes_on(horizontal, phase, victim, TIMEOUT_S + waits, tmp_path / "twin"))
