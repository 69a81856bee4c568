"""One process that is killed in the middle of a job: it ends with a clear error, and a retry in the UI completes it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from isthmus.flows.sandbox import COORDINATOR

from ...consortium import wait
from .pieces import Pieces

ENDED_S = 60.0
COMPLETED_S = 300.0


def _retried(pieces: Pieces, flow: str, run: str) -> str:
    """What the UI's Retry comes to; in words."""
    began = time.monotonic()
    pieces.api.retry(flow)
    wait(lambda: pieces.api.state(flow) in ("PENDING", "RUNNING"), 30)
    pieces.api.completed(flow, COMPLETED_S)
    assert pieces.models(run) == ["insurer", "lab"]
    assert pieces.resumed(run)
    assert not pieces.run_folders_after(run)  # it is the same run that went on
    parts = [(part["name"], part["state"]["type"]) for part in pieces.api.parts(flow)]
    return f"retried: completed in {time.monotonic() - began:.0f} s, resumed; parts {parts}"


def _error(state: dict[str, object], *codes: str) -> str:
    found = re.search(r"error\[([a-z_.]+)\]", str(state["message"]))
    assert found is not None, state
    assert found[1] in codes, state
    assert "Traceback" not in str(state["message"])
    return found[1]


@pytest.mark.timeout(600)
def test_a_job_whose_party_lost_its_worker_fails_and_goes_on_when_it_is_retried(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    flow, run = pieces.start_long("killed-worker")
    pieces.kill("lab")
    began = time.monotonic()
    pieces.no_vault()  # that of a dead worker ends, and its peer's with it
    silent_s = time.monotonic() - began
    state = pieces.api.ended(flow, ENDED_S)
    ended_s = time.monotonic() - began
    assert state["type"] == "FAILED"
    code = _error(state, "worker.lost", "peer.gone")
    assert not pieces.models(run)
    pieces.start("lab")
    retried = _retried(pieces, flow, run)
    say(f"no vault was left after {silent_s:.1f} s, the job failed with {code} after {ended_s:.0f} s; {retried}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("member", ["lab", "insurer"])
def test_a_job_whose_vault_was_killed_fails_and_goes_on_when_it_is_retried(
    pieces: Pieces, say: Callable[[str], None], member: str
) -> None:
    flow, run = pieces.start_long(f"killed-vault-{member}")
    [vault] = pieces.vaults(member)
    os.kill(vault, signal.SIGKILL)
    began = time.monotonic()
    state = pieces.api.ended(flow, ENDED_S)
    ended_s = time.monotonic() - began
    code = _error(state, "vault.died", "peer.gone")
    said = {part["name"]: part["state"] for part in pieces.api.parts(flow)}
    assert "error[vault.died]" in said[member]["message"], said
    assert said[member]["type"] == "FAILED"
    assert {part["type"] for part in said.values()} <= {"FAILED", "CANCELLED"}, said  # nobody waits for a deadline
    pieces.no_vault()
    retried = _retried(pieces, flow, run)
    say(f"{member}'s vault: the job failed with {code} after {ended_s:.1f} s; {retried}")


@pytest.mark.timeout(600)
def test_a_job_whose_coordinating_flow_was_killed_crashes_and_goes_on_when_it_is_retried(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    waiting = pieces.flows()
    flow, run = pieces.start_long("killed-flow")
    [running] = [pid for pid in waiting if pid in pieces.flows()]
    os.kill(running, signal.SIGKILL)
    began = time.monotonic()
    state = pieces.api.ended(flow, ENDED_S)
    ended_s = time.monotonic() - began
    assert state["type"] == "CRASHED"
    pieces.no_vault(30)  # nobody works for a flow that is gone
    silent_s = time.monotonic() - began
    wait(lambda: not pieces.api.going(), 15)
    retried = _retried(pieces, flow, run)
    say(f"the run crashed after {ended_s:.1f} s, the last vault ended after {silent_s:.1f} s; {retried}")


@pytest.mark.timeout(600)
def test_a_job_whose_coordinators_worker_was_killed_ends_and_goes_on_when_it_is_retried(
    pieces: Pieces, say: Callable[[str], None]
) -> None:
    flow, run = pieces.start_long("killed-coordinator")
    pieces.kill(COORDINATOR)
    began = time.monotonic()
    state = pieces.api.ended(flow, ENDED_S)  # its flow notices, and has all parts stopped
    ended_s = time.monotonic() - began
    pieces.no_vault(30)
    wait(lambda: not pieces.flows() and not pieces.api.going(), 15)
    pieces.start(COORDINATOR)
    retried = _retried(pieces, flow, run)
    say(f"the job was {state['type'].lower()} after {ended_s:.1f} s, by its flow; no orphan; {retried}")
