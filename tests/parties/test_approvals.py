"""Approvals: a job that waits for a person waits until one has approved this very job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

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
from isthmus.parties.state import State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(approve=("transfer",))
JOB, TWIN, OTHER = "a" * 64, "a" * 8 + "b" * 56, "c" * 64
TEXT = '{"kind":"transfer","name":"first"}'


def _ask(home: PartyHome, digest: str = JOB, *, days: float = 0, starter: str = "insurer", text: str = TEXT) -> None:
    now = NOW + timedelta(days=days)
    require_approval(POLICY, State(home), "transfer", digest, starter, text, "lab", now=now)


def _waits(home: PartyHome, digest: str = JOB, *, days: float = 0, starter: str = "insurer") -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as caught:
        _ask(home, digest, days=days, starter=starter)
    return caught.value


def test_kinds_that_the_policy_does_not_name_pass_and_leave_no_trace(home: PartyHome) -> None:
    for policy in (Policy(), Policy(approve=("vertical",))):
        require_approval(policy, State(home), "transfer", JOB, "insurer", TEXT, "lab", now=NOW)
    assert requests(State(home)) == []


def test_the_first_attempt_is_refused_noted_and_says_what_to_do(home: PartyHome) -> None:
    error = _waits(home)
    assert (error.code, error.exit_code) == ("policy.approval", 3)
    assert error.facts == {"party": "lab", "kind": "transfer", "digest": JOB}
    assert f"`isthmus approve lab {JOB}`; then start the job again" in error.next
    (request,) = requests(State(home))
    assert (request.job_digest, request.kind, request.starter, request.job) == (JOB, "transfer", "insurer", TEXT)
    assert (request.asked, request.approved, request.until) == (NOW, None, None)
    assert not request.holds(NOW)


def test_asking_again_does_not_help_and_the_newest_starter_is_named(home: PartyHome) -> None:
    _waits(home)
    _waits(home, days=1, starter="clinic")
    (request,) = requests(State(home))
    assert (request.starter, request.asked) == ("clinic", NOW + timedelta(days=1))


def test_an_approved_job_passes_until_the_approval_ends_and_then_waits_again(home: PartyHome) -> None:
    _waits(home)
    assert approve_request(State(home), JOB, 30, party="lab", now=NOW) == NOW + timedelta(days=30)
    _ask(home)
    _ask(home, days=29.9)
    _waits(home, days=30)
    (request,) = requests(State(home))
    assert (request.approved, request.until) == (None, None)


def test_a_clock_set_back_revives_no_approval(home: PartyHome) -> None:
    _waits(home)
    approve_request(State(home), JOB, 1, party="lab", now=NOW)
    _waits(home, OTHER, days=2)
    _waits(home)


def test_an_approval_is_for_one_digest(home: PartyHome) -> None:
    _waits(home)
    approve_request(State(home), JOB, 30, party="lab", now=NOW)
    _waits(home, TWIN)
    _ask(home)


def test_a_withdrawn_approval_no_longer_holds(home: PartyHome) -> None:
    _waits(home)
    approve_request(State(home), JOB, 30, party="lab", now=NOW)
    withdraw_approval(State(home), JOB)
    assert requests(State(home)) == []
    _waits(home)


def test_what_never_asked_cannot_be_approved(home: PartyHome) -> None:
    with pytest.raises(InputError) as caught:
        approve_request(State(home), JOB, 30, party="lab", now=NOW)
    assert caught.value.code == "approval.unknown"


def test_a_request_is_found_by_eight_digits_or_more_if_they_mean_one_job(home: PartyHome) -> None:
    for digest in (JOB, TWIN, OTHER):
        _waits(home, digest)
    state = State(home)
    assert find_request(state, "c" * 8, party="lab").job_digest == OTHER
    assert find_request(state, "C" * 64, party="lab").job_digest == OTHER
    assert find_request(state, "a" * 9, party="lab").job_digest == JOB
    for digest, code in (
        ("c" * 7, "approval.ambiguous"),
        ("a" * 8, "approval.ambiguous"),
        ("", "approval.ambiguous"),
        ("c" * 65, "approval.ambiguous"),
        ("%" * 8, "approval.ambiguous"),
        ("d" * 8, "approval.unknown"),
    ):
        with pytest.raises(InputError) as caught:
            find_request(state, digest, party="lab")
        assert caught.value.code == code
