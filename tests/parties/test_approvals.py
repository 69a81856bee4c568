"""Approvals: a job that waits for a person waits until one has approved this very start of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from isthmus.parties import approvals
from isthmus.parties.approvals import (
    approve_request,
    find_request,
    requests,
    require_approval,
    withdraw_approval,
)
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.home import PartyHome
from isthmus.parties.policy import Policy
from isthmus.parties.starts import Start
from isthmus.parties.state import State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(approve=("transfer",))
RUN = "first-1"
TEXT = '{"kind":"transfer","name":"first"}'


def _start(**changes: Any) -> Start:
    says: dict[str, Any] = {"job": "a" * 64, "by": "insurer", "until": NOW + timedelta(days=90), "runs": 1}
    says |= {"consortium": "heart", "kind": "transfer", "nonce": "0" * 32, "signature": "0" * 128}
    return Start(**(says | changes))


START = _start()
OTHERS = {
    "job": _start(job="b" * 64),
    "by": _start(by="clinic"),
    "until": _start(until=NOW + timedelta(days=91)),
    "runs": _start(runs=1000),
    "nonce": _start(nonce="1" * 32),
}


def _ask(home: PartyHome, start: Start = START, *, days: float = 0) -> None:
    require_approval(POLICY, State(home), start, TEXT, "lab", run=RUN, now=NOW + timedelta(days=days))


def _waits(home: PartyHome, start: Start = START, *, days: float = 0) -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as caught:
        _ask(home, start, days=days)
    return caught.value


def _approve(home: PartyHome, start: Start = START, days: int = 30) -> datetime:
    return approve_request(State(home), start.digest(), days, party="lab", now=NOW)


def test_kinds_that_the_policy_does_not_name_pass_and_leave_no_trace(home: PartyHome) -> None:
    for policy in (Policy(), Policy(approve=("vertical",))):
        require_approval(policy, State(home), START, TEXT, "lab", run=RUN, now=NOW)
    assert requests(State(home)) == []


def test_the_first_attempt_is_refused_noted_and_says_what_to_do(home: PartyHome) -> None:
    error = _waits(home)
    assert (error.code, error.exit_code) == ("policy.approval", 3)
    assert error.facts == {"party": "lab", "kind": "transfer", "digest": START.digest()}
    assert f"`isthmus approve lab {START.digest()}`; then start the job again" in error.next
    (request,) = requests(State(home))
    assert (request.digest, request.start, request.job) == (START.digest(), START, TEXT)
    assert (request.asked, request.approved, request.until) == (NOW, None, None)
    assert not request.holds(NOW)


def test_asking_again_does_not_help(home: PartyHome) -> None:
    _waits(home)
    _waits(home, days=1)
    (request,) = requests(State(home))
    assert request.asked == NOW + timedelta(days=1)


def test_an_approved_job_passes_until_the_approval_ends_and_then_waits_again(home: PartyHome) -> None:
    _waits(home)
    assert _approve(home) == NOW + timedelta(days=30)
    _ask(home)
    _ask(home, days=29.9)
    _waits(home, days=30)
    (request,) = requests(State(home))
    assert (request.approved, request.until) == (None, None)


def test_a_clock_set_back_revives_no_approval(home: PartyHome) -> None:
    _waits(home)
    _approve(home, days=1)
    _waits(home, OTHERS["job"], days=2)
    _waits(home)


@pytest.mark.parametrize("field", OTHERS)
def test_an_approval_is_for_one_start_and_whatever_differs_in_another_waits(home: PartyHome, field: str) -> None:
    _waits(home)
    _approve(home)
    _waits(home, OTHERS[field])
    _ask(home)
    assert {request.start for request in requests(State(home))} == {START, OTHERS[field]}


def test_the_same_start_under_another_signature_is_the_same_start(home: PartyHome) -> None:
    _waits(home)
    _approve(home)
    _ask(home, _start(signature="f" * 128))  # what that signature is worth, `judge_start` has judged before


def test_a_withdrawn_approval_no_longer_holds(home: PartyHome) -> None:
    _waits(home)
    _approve(home)
    withdraw_approval(State(home), START.digest())
    assert requests(State(home)) == []
    _waits(home)


def test_what_never_asked_cannot_be_approved(home: PartyHome) -> None:
    with pytest.raises(InputError) as caught:
        _approve(home)
    assert caught.value.code == "approval.unknown"


def test_a_request_is_found_by_eight_digits_or_more_if_they_mean_one_start(
    home: PartyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (START, OTHERS["job"]):
        _waits(home, start)
    digest, state = START.digest(), State(home)
    for beginning in (digest, digest[:8], digest[:9].upper()):
        assert find_request(state, beginning, party="lab").start == START
    for wrong, code in (
        (digest[:7], "approval.ambiguous"),
        ("", "approval.ambiguous"),
        (digest + "0", "approval.ambiguous"),
        ("%" * 8, "approval.ambiguous"),
        ("a" * 64, "approval.unknown"),  # the job's digest is no start's
    ):
        with pytest.raises(InputError) as caught:
            find_request(state, wrong, party="lab")
        assert caught.value.code == code
    twins = {START: "ab" * 32, OTHERS["job"]: "ab" * 31 + "cd"}
    monkeypatch.setattr(approvals.Request, "digest", property(lambda request: twins[request.start]))
    assert find_request(state, "ab" * 32, party="lab").start == START
    with pytest.raises(InputError) as caught:
        find_request(state, "ab" * 31, party="lab")
    assert caught.value.code == "approval.ambiguous"
