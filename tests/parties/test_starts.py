"""Signed jobs: who may start what, how often, and what a hostile carrier of a signature can do with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isthmus.parties.approvals import approve_request, require_approval
from isthmus.parties.errors import InputError, IsthmusError, PolicyRefusal
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.policy import Policy
from isthmus.parties.signature import verify
from isthmus.parties.starts import MAX_ATTEMPTS, Start, judge_start, sign_start
from isthmus.parties.state import State

from ..kept_open import kept_open, make_state

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOB, OTHER_JOB = "a" * 64, "b" * 64
RUN = "mortality-1"
POLICY = Policy.model_validate({"starts": {"insurer": {"vertical": "4 per day", "statistics": "20 per week"}}})


@pytest.fixture(scope="module")
def insurer(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return _identity(tmp_path_factory.mktemp("members"), "insurer")


def _identity(folder: Path, name: str) -> Identity:
    (folder / name).mkdir()
    (folder / name / "party.yaml").write_text(f"name: {name}\n")
    return Identity(PartyHome(folder / name))


def _start(insurer: Identity, **changes: Any) -> Start:
    says = {"consortium": "heart", "job": JOB, "kind": "vertical", "until": NOW + timedelta(days=7), "runs": 1}
    says |= changes
    return sign_start(
        insurer, says["consortium"], says["job"], says["kind"], until=says["until"], runs=says["runs"]
    )  # fmt: skip


class Judge:
    """The lab, which judges starts by the insurer."""

    def __init__(self, home: PartyHome, insurer: Identity) -> None:
        self.state, self.keys = State(home), {"insurer": insurer.public}

    def __call__(self, start: Start | None, run: str = RUN, **changes: Any) -> None:
        says: dict[str, Any] = {
            "policy": POLICY,
            "state": self.state,
            "party": "lab",
            "consortium": "heart",
            "key_of": self._key_of,
            "kind": "vertical",
            "job_digest": JOB,
            "begins_anew": False,
            "now": NOW,
        }
        judge_start(start, run=run, **{**says, **changes})

    def refuses(self, start: Start | None, run: str = RUN, **changes: Any) -> IsthmusError:
        before = self.noted()
        with pytest.raises(IsthmusError) as caught:
            self(start, run, **changes)
        assert self.noted() == before
        return caught.value

    def noted(self) -> list[Any]:
        with self.state.transaction() as connection:
            return connection.execute("SELECT * FROM starts").fetchall()

    def _key_of(self, name: str) -> bytes:
        if name not in self.keys:
            raise InputError("home.key_unknown", party="lab", peer=name)
        return self.keys[name]


@pytest.fixture(scope="module")
def fresh_state(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("fresh")
    _identity(folder, "lab")
    make_state(folder / "lab")
    return (folder / "lab" / "state.duckdb").read_bytes()


@pytest.fixture
def judge(home: PartyHome, insurer: Identity, fresh_state: bytes) -> Iterator[Judge]:
    home.state_file.write_bytes(fresh_state)
    with kept_open([home.folder]):
        yield Judge(home, insurer)


# --- the statement ---------------------------------------------------------------------------------------------------


def test_what_is_signed_is_canonical_json_behind_the_protocols_name() -> None:
    start = Start(
        consortium="heart",
        job=JOB,
        kind="vertical",
        by="insurer",
        until=NOW,
        runs=3,
        nonce="0" * 32,
        signature="f" * 128,
    )
    text = (
        f'{{"by":"insurer","consortium":"heart","job":"{JOB}","kind":"vertical",'
        f'"nonce":"{"0" * 32}","runs":3,"until":"2026-03-01T12:00:00Z"}}'
    )
    assert start.signed_bytes() == b"isthmus start v1\n" + text.encode()


def test_a_start_is_signed_by_its_owners_key_and_another_time_it_is_another_start(insurer: Identity) -> None:
    one, two = _start(insurer), _start(insurer)
    assert verify(insurer.public, bytes.fromhex(one.signature), one.signed_bytes())
    assert (one.by, one.runs, one.until) == ("insurer", 1, NOW + timedelta(days=7))
    assert one.nonce != two.nonce
    assert one.digest() != two.digest()


def test_a_start_survives_json_and_the_same_time_of_another_zone(insurer: Identity) -> None:
    start = _start(insurer)
    assert Start.model_validate(json.loads(start.model_dump_json())) == start
    there = start.until.astimezone(timezone(timedelta(hours=9)))
    moved = Start.model_validate({**start.model_dump(), "until": there})
    assert moved.signed_bytes() == start.signed_bytes()


WRONG = {
    "until": [datetime(2026, 3, 1), NOW.replace(microsecond=1), "tomorrow"],
    "runs": [0, 1001, True, 1.0, "1"],
    "job": ["a" * 63, "A" * 64, f"{JOB}\n"],
    "kind": ["", "Vertical", "x" * 41],
    "by": ["", "In surer", "../lab"],
    "consortium": ["", "a b"],
    "nonce": ["0" * 31, "g" * 32],
    "signature": ["", "0" * 127],
    "surprise": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_a_start_cannot_say_what_is_malformed(insurer: Identity, field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Start.model_validate({**_start(insurer).model_dump(), field: value})


names = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
hexes = {n: st.text("0123456789abcdef", min_size=n, max_size=n) for n in (32, 64, 128)}
CHANGES = {
    "consortium": names,
    "job": hexes[64],
    "kind": st.from_regex(r"[a-z]{1,40}", fullmatch=True),
    "by": names,
    "until": st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(
        lambda time: time.replace(microsecond=0, tzinfo=UTC)
    ),
    "runs": st.integers(1, 1000),
    "nonce": hexes[32],
    "signature": hexes[128],
}
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"7" * 32)
UNSIGNED = Start(
    consortium="heart", job=JOB, kind="vertical", by="insurer", until=NOW, runs=1, nonce="0" * 32, signature="0" * 128
)
SIGNED = UNSIGNED.model_copy(update={"signature": PRIVATE.sign(UNSIGNED.signed_bytes()).hex()})


@given(st.sampled_from(sorted(CHANGES)).flatmap(lambda name: st.tuples(st.just(name), CHANGES[name])))
def test_whatever_field_is_changed_the_signature_no_longer_holds(change: tuple[str, Any]) -> None:
    altered = Start.model_validate({**SIGNED.model_dump(), change[0]: change[1]})
    key = PRIVATE.public_key().public_bytes_raw()
    assert verify(key, bytes.fromhex(altered.signature), altered.signed_bytes()) == (altered == SIGNED)


def test_every_field_is_changed_there() -> None:
    assert CHANGES.keys() == Start.model_fields.keys()


# --- whose word, for what --------------------------------------------------------------------------------------------


def test_a_signed_job_that_the_policy_lets_start_is_noted_once(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer)
    judge(start)
    assert judge.noted() == [(start.digest(), RUN, "insurer", "vertical", NOW.replace(tzinfo=None), 1)]


def test_a_job_without_a_start_is_refused(judge: Judge) -> None:
    error = judge.refuses(None)
    assert (error.code, error.exit_code, error.facts) == ("job.unsigned", 2, {"party": "lab"})


@pytest.mark.parametrize(
    ("says", "change"),
    [
        ({}, {"job_digest": OTHER_JOB}),
        ({"job": OTHER_JOB}, {}),
        ({}, {"kind": "statistics"}),
        ({"kind": "statistics"}, {}),
        ({}, {"consortium": "lung"}),
        ({"consortium": "lung"}, {}),
    ],
)
def test_a_start_is_for_one_job_of_one_kind_in_one_consortium(
    judge: Judge, insurer: Identity, says: dict[str, Any], change: dict[str, Any]
) -> None:
    error = judge.refuses(_start(insurer, **says), **change)
    assert (error.code, error.exit_code, error.facts) == ("job.signature", 2, {"party": "lab", "peer": "insurer"})


def test_a_start_that_somebody_altered_or_another_member_signed_is_refused(
    judge: Judge, insurer: Identity, tmp_path: Path
) -> None:
    start = _start(insurer)
    assert judge.refuses(start.model_copy(update={"runs": 2})).code == "job.signature"
    assert judge.refuses(start.model_copy(update={"signature": "0" * 128})).code == "job.signature"
    clinic = _identity(tmp_path, "clinic")
    assert judge.refuses(_start(clinic).model_copy(update={"by": "insurer"})).code == "job.signature"
    judge.keys["clinic"] = clinic.public
    assert judge.refuses(start.model_copy(update={"by": "clinic"})).code == "job.signature"


def test_what_the_roster_says_of_a_stranger_or_a_revoked_member_is_said(judge: Judge, insurer: Identity) -> None:
    judge.keys.clear()
    assert judge.refuses(_start(insurer)).code == "home.key_unknown"


def test_the_policy_says_who_may_start_which_kind(judge: Judge, insurer: Identity) -> None:
    horizontal = judge.refuses(_start(insurer, kind="horizontal"), kind="horizontal")
    assert (horizontal.code, horizontal.exit_code) == ("policy.start", 3)
    assert horizontal.facts == {"party": "lab", "peer": "insurer", "kind": "horizontal"}
    assert judge.refuses(_start(insurer), policy=Policy()).code == "policy.start"
    clinic = Policy.model_validate({"starts": {"clinic": {"vertical": "4 per day"}}})
    assert judge.refuses(_start(insurer), policy=clinic).code == "policy.start"


def test_a_start_ends_an_hour_after_its_time_since_clocks_differ(judge: Judge, insurer: Identity) -> None:
    judge(_start(insurer, until=NOW - timedelta(minutes=60)))
    error = judge.refuses(_start(insurer, until=NOW - timedelta(minutes=61)))
    assert (error.code, error.exit_code) == ("policy.start_expired", 3)
    assert error.facts == {"party": "lab", "seconds": 3660}


# --- how often -------------------------------------------------------------------------------------------------------


def _at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def test_no_more_runs_begin_than_the_rate_lets_within_its_window(judge: Judge, insurer: Identity) -> None:
    for hours in (0, 1, 2, 23):
        judge(_start(insurer), now=_at(hours))
    error = judge.refuses(_start(insurer), now=_at(23.9))
    assert (error.code, error.exit_code) == ("policy.start_rate", 3)
    assert error.facts == {"party": "lab", "peer": "insurer", "kind": "vertical", "allowed": 4}
    judge(_start(insurer), now=_at(24))  # the first has left the window
    assert judge.refuses(_start(insurer), now=_at(24.9)).code == "policy.start_rate"
    judge(_start(insurer), now=_at(25))


def test_each_kind_and_each_starter_is_counted_alone(judge: Judge, insurer: Identity, tmp_path: Path) -> None:
    for _ in range(4):
        judge(_start(insurer))
    assert judge.refuses(_start(insurer)).code == "policy.start_rate"
    judge(_start(insurer, kind="statistics"), kind="statistics")
    clinic = _identity(tmp_path, "clinic")
    judge.keys["clinic"] = clinic.public
    both = Policy.model_validate({"starts": {name: {"vertical": "4 per day"} for name in ("insurer", "clinic")}})
    judge(_start(clinic), policy=both)
    assert judge.refuses(_start(insurer), policy=both).code == "policy.start_rate"


def test_a_signature_is_good_for_its_runs_and_no_more(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer, runs=2)
    judge(start, "mortality-1")
    judge(start, "mortality-2")
    error = judge.refuses(start, "mortality-3")
    assert (error.code, error.exit_code, error.facts) == ("policy.start_used", 3, {"party": "lab", "allowed": 2})
    assert judge.refuses(start, "mortality-3", now=_at(24 * 6)).code == "policy.start_used"
    judge(_start(insurer), "mortality-3")


def test_resuming_a_run_under_its_start_is_not_counted_again(judge: Judge, insurer: Identity) -> None:
    start, once = _start(insurer), Policy.model_validate({"starts": {"insurer": {"vertical": "1 per month"}}})
    for attempt in range(1, MAX_ATTEMPTS + 1):
        judge(start, policy=once)
        assert [row[-1] for row in judge.noted()] == [attempt]


def test_a_run_has_few_attempts_under_one_start(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer, runs=2)
    for _ in range(MAX_ATTEMPTS):
        judge(start, "mortality-1")
    error = judge.refuses(start, "mortality-1")
    assert (error.code, error.exit_code, error.facts) == ("policy.start_attempts", 3, {"party": "lab", "allowed": 5})
    assert judge.refuses(start, "mortality-1", now=_at(24)).code == "policy.start_attempts"
    judge(start, "mortality-2")  # each run has its own
    judge(_start(insurer), "mortality-1")  # and so has each signature


def test_a_run_that_begins_anew_has_attempts_of_its_own_and_no_more_than_its_runs_have(
    judge: Judge, insurer: Identity
) -> None:
    start = _start(insurer, runs=2)
    for _ in range(3):
        judge(start)
    judge(start, begins_anew=True)
    for _ in range(MAX_ATTEMPTS - 1):
        judge(start)
    assert judge.refuses(start).code == "policy.start_attempts"  # what the first one left is not used up
    assert judge.refuses(start, begins_anew=True).code == "policy.start_used"
    assert sorted(row[-1] for row in judge.noted()) == [3, 5]


def test_an_attempt_that_waits_for_a_person_is_none_of_those_that_the_signature_allows(
    judge: Judge, insurer: Identity
) -> None:
    start = _start(insurer)
    waits = POLICY.model_copy(update={"approve": ("vertical",)})
    for _ in range(MAX_ATTEMPTS + 2):
        judge(start)
        with pytest.raises(PolicyRefusal) as caught:
            require_approval(waits, judge.state, start, "{}", "lab", run=RUN, now=NOW)
        assert caught.value.code == "policy.approval"
    assert [row[-1] for row in judge.noted()] == [0]
    approve_request(judge.state, start.digest(), 30, party="lab", now=NOW)
    for _ in range(MAX_ATTEMPTS):
        judge(start)
        require_approval(waits, judge.state, start, "{}", "lab", run=RUN, now=NOW)
    assert judge.refuses(start).code == "policy.start_attempts"


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30))
def test_whatever_is_asked_under_one_start_no_more_is_begun_or_attempted_than_it_allows(
    tmp_path_factory: pytest.TempPathFactory, fresh_state: bytes, runs: int, asked: list[tuple[str, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("attempts")
    insurer, lab = _identity(folder, "insurer"), _identity(folder, "lab").name
    (folder / lab / "state.duckdb").write_bytes(fresh_state)
    judge, start = Judge(PartyHome(folder / lab), insurer), _start(insurer, runs=runs)
    left = dict[str, int]()  # attempts of the runs that have begun, of the last time
    begun, policy = 0, Policy.model_validate({"starts": {"insurer": {"vertical": "100 per day"}}})
    with kept_open([folder / lab]):
        for run, anew in asked:
            resumes = run in left and not anew
            code = None
            try:
                judge(start, run, begins_anew=anew, policy=policy)
            except PolicyRefusal as refusal:
                code = refusal.code
            if resumes:
                assert code == (None if left[run] else "policy.start_attempts")
                left[run] = max(0, left[run] - 1)
            else:
                assert code == (None if begun < runs else "policy.start_used")
                if code is None:
                    begun, left[run] = begun + 1, MAX_ATTEMPTS - 1


def test_beginning_anew_is_counted_also_under_the_same_name(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer, runs=2)
    judge(start)
    judge(start, begins_anew=True)
    assert judge.refuses(start, begins_anew=True).code == "policy.start_used"
    judge(start)  # but what was begun can still be resumed
    once = _start(insurer)
    judge(once, "another-1")
    assert judge.refuses(once, "another-1", begins_anew=True).code == "policy.start_used"


def test_a_run_resumed_under_another_start_is_counted_as_that_starts(judge: Judge, insurer: Identity) -> None:
    judge(_start(insurer))
    judge(_start(insurer))
    assert len(judge.noted()) == 2


def test_resuming_still_needs_a_start_that_holds_and_a_policy_that_lets(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer)
    judge(start)
    assert judge.refuses(start, policy=Policy()).code == "policy.start"
    assert judge.refuses(start, now=_at(24 * 7 + 2)).code == "policy.start_expired"


def test_a_refused_start_is_not_counted(judge: Judge, insurer: Identity) -> None:
    for _ in range(5):
        judge.refuses(_start(insurer, until=NOW - timedelta(days=1)))
    for _ in range(4):
        judge(_start(insurer))


# --- a clock that is set back ----------------------------------------------------------------------------------------


def test_a_clock_set_back_gives_nobody_more_starts(judge: Judge, insurer: Identity) -> None:
    for hours in (0, 1, 2, 3):
        judge(_start(insurer), now=_at(hours))
    for hours in (2, -20, 3):
        assert judge.refuses(_start(insurer, until=_at(48)), now=_at(hours)).code == "policy.start_rate"
    for hours in (-22, -1000):  # more than a day behind what was seen
        assert judge.refuses(_start(insurer, until=_at(48)), now=_at(hours)).code == "policy.clock"
    judge(_start(insurer), now=_at(24))


def test_a_clock_set_back_revives_no_signature_that_has_run_out(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer, until=_at(1))
    assert judge.refuses(start, now=_at(3)).code == "policy.start_expired"
    error = judge.refuses(start, now=_at(0))
    assert error.code == "policy.start_expired"
    assert "2026-03-01 15:00:00" in error.detail  # which the party's engineer finds in the log
    assert "2026" not in error.text()


def test_a_clock_that_was_once_far_ahead_is_named_and_a_person_finds_the_way_back(
    judge: Judge, insurer: Identity
) -> None:
    start, year = _start(insurer), 24 * 365
    assert judge.refuses(start, now=_at(year)).code == "policy.start_expired"  # which nobody can tell from the truth
    error = judge.refuses(start, now=_at(1))
    assert (error.code, error.exit_code) == ("policy.clock", 3)
    assert error.facts == {"party": "lab", "seconds": (year - 1) * 3600}
    assert f"clock was once {(year - 1) * 3600} s ahead of now" in error.what
    assert "`isthmus approve lab --reset-clock`" in error.next
    judge.state.reset_clock(_at(1))
    judge(start, now=_at(1))


def test_a_clock_up_to_a_day_ahead_is_not_spoken_of_and_a_signature_that_is_over_by_both_times_neither(
    judge: Judge, insurer: Identity
) -> None:
    start = _start(insurer, until=_at(0))
    judge.refuses(start, now=_at(24))
    assert judge.refuses(start, now=_at(0)).code == "policy.start_expired"
    judge.refuses(start, now=_at(26))
    assert judge.refuses(start, now=_at(1.5)).code == "policy.start_expired"
    assert judge.refuses(start, now=_at(1)).code == "policy.clock"


def test_runs_that_began_by_a_clock_far_ahead_count_as_begun_now_once_it_is_reset(
    judge: Judge, insurer: Identity
) -> None:
    year = 24 * 365
    for _ in range(4):
        judge(_start(insurer, until=_at(2 * year)), now=_at(year))
    assert judge.refuses(_start(insurer), now=_at(0)).code == "policy.clock"
    judge.state.reset_clock(_at(0))
    assert judge.refuses(_start(insurer), now=_at(23)).code == "policy.start_rate"
    judge(_start(insurer), now=_at(24))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(-30, 60), min_size=1, max_size=12))
def test_whatever_the_clock_shows_the_rate_holds_over_every_window_of_the_time_that_was_seen(
    tmp_path_factory: pytest.TempPathFactory, fresh_state: bytes, hours: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("property")
    insurer, lab = _identity(folder, "insurer"), _identity(folder, "lab").name
    (folder / lab / "state.duckdb").write_bytes(fresh_state)
    judge = Judge(PartyHome(folder / lab), insurer)
    seen, begun = -1000, list[int]()
    with kept_open([folder / lab]):
        for hour in hours:
            seen = max(seen, hour)
            try:
                judge(_start(insurer), now=_at(hour))
            except PolicyRefusal as refusal:
                assert refusal.code == ("policy.clock" if seen - hour > 24 else "policy.start_rate")
                assert sum(seen - 24 < at for at in begun) >= 4
            else:
                begun.append(seen)
                assert sum(seen - 24 < at for at in begun) <= 4


# --- two processes ---------------------------------------------------------------------------------------------------

RACE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from isthmus.parties.errors import IsthmusError
from isthmus.parties.home import PartyHome
from isthmus.parties.policy import Policy
from isthmus.parties.starts import Start, judge_start
from isthmus.parties.state import State

home, policy = PartyHome(Path(sys.argv[1])), Policy.model_validate({"starts": {"insurer": {"vertical": sys.argv[2]}}})
start, key = Start.model_validate_json(sys.argv[3]), bytes.fromhex(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    try:
        judge_start(
            start, policy=policy, state=State(home), party="lab", consortium="heart", key_of=lambda name: key,
            kind="vertical", job_digest=start.job, run=f"{sys.argv[5]}-{number}", begins_anew=True,
            now=datetime(2026, 3, 1, 12, tzinfo=UTC),
        )
        print("begins")
    except IsthmusError as error:
        print(error.code)
"""


@pytest.mark.parametrize(
    ("rate", "runs", "begun", "code"),
    [("5 per day", 1000, 5, "policy.start_rate"), ("1000 per day", 3, 3, "policy.start_used")],
)
def test_two_processes_at_once_do_not_both_take_the_last_one(
    home: PartyHome, insurer: Identity, rate: str, runs: int, begun: int, code: str
) -> None:
    start = _start(insurer, runs=runs).model_dump_json()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(home.folder), rate, start, insurer.public.hex(), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert sorted(said) == sorted(["begins"] * begun + [code] * (8 - begun))


# --- words -----------------------------------------------------------------------------------------------------------


def test_no_refusal_repeats_what_a_stranger_wrote_or_a_key(judge: Judge, insurer: Identity) -> None:
    start = _start(insurer)
    for error in (
        judge.refuses(start, job_digest=OTHER_JOB),
        judge.refuses(start, policy=Policy()),
        judge.refuses(start, now=_at(24 * 30)),
    ):
        said = error.text() + repr(error)
        assert all(secret not in said for secret in (start.nonce, start.signature, insurer.public.hex()))
