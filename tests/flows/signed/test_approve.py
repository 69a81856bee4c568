"""`isthmus approve`: what a person reads of a start that waits, what they agree to by it, and the clock's way back."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError

from isthmus.flows.jobs import Job
from isthmus.flows.signed import read_job_file
from isthmus.parties.approvals import requests
from isthmus.parties.events import Phase, public_failure
from isthmus.parties.home import PartyHome
from isthmus.parties.starts import Start
from isthmus.parties.state import State

from .at_the_lab import PLANTED, refused, start_at_the_lab


@pytest.fixture
def waiting(signed: dict[str, Any], homes: Path, job_file: Path) -> tuple[Job, Start]:
    """A signed job that the lab has refused to begin, since it waits."""
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")
    return job, start


def test_nothing_waits_at_first(isthmus: Callable[..., str]) -> None:
    assert isthmus("approve", "lab") == "no job waits at lab\n"
    assert json.loads(isthmus("approve", "lab", "--json")) == []


def test_a_job_waits_is_read_and_approved_at_the_terminal_and_then_begins_under_the_same_start(
    isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start]
) -> None:
    job, start = waiting
    listed = isthmus("approve", "lab")
    assert start.digest()[:16] in listed
    assert all(word in listed for word in ("vertical", "insurer", "waits"))
    shown = isthmus("approve", "lab", start.digest()[:8], answer="y\n")
    assert yaml.safe_load(shown[: shown.index("\n\n")]) == job.canonical()
    assert f"digest      {start.digest()}" in shown
    assert "started by  insurer" in shown
    assert "lab approves it until" in shown
    start_at_the_lab(homes, job, start)  # the one run of the start, resumed: not counted again
    assert "waits" not in isthmus("approve", "lab")
    refused(lambda: start_at_the_lab(homes, job, start, "hospital-mortality-2"), "policy.start_used")


@pytest.mark.parametrize("answer", ["n\n", "\n", "perhaps\n"])
def test_any_answer_but_yes_leaves_it_waiting(
    isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start], answer: str
) -> None:
    job, start = waiting
    assert isthmus("approve", "lab", start.digest(), answer=answer).endswith("not approved\n")
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")


def test_where_nobody_can_be_asked_the_job_is_shown_and_yes_has_to_be_said(
    isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start], capsys: pytest.CaptureFixture[str]
) -> None:
    job, start = waiting
    refused(lambda: isthmus("approve", "lab", start.digest()), "approval.unasked")
    assert PLANTED in capsys.readouterr().out
    assert "approves it" in isthmus("approve", "lab", start.digest(), "--yes", "--days", "1")
    (request,) = requests(State(PartyHome(homes / "lab")))
    assert request.approved is not None
    assert request.until == request.approved + timedelta(days=1)
    start_at_the_lab(homes, job, start)


def test_an_approval_is_withdrawn(isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start]) -> None:
    job, start = waiting
    isthmus("approve", "lab", start.digest(), "--yes")
    assert isthmus("approve", "lab", start.digest()[:12], "--withdraw").endswith("lab has forgotten it\n")
    assert isthmus("approve", "lab") == "no job waits at lab\n"
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")


def test_json_shows_a_job_without_approving_it(isthmus: Callable[..., str], waiting: tuple[Job, Start]) -> None:
    job, start = waiting
    shown = json.loads(isthmus("approve", "lab", start.digest(), "--json"))
    assert (shown["job"], shown["starter"], shown["approved_until"]) == (job.canonical(), "insurer", None)
    assert json.loads(isthmus("approve", "lab", "--json")) == [shown]
    assert json.loads(isthmus("approve", "lab", start.digest(), "--yes", "--json"))["approved_until"]


def test_a_digest_that_is_too_short_or_unknown_isrefused(
    isthmus: Callable[..., str], waiting: tuple[Job, Start]
) -> None:
    refused(lambda: isthmus("approve", "lab", waiting[1].digest()[:7]), "approval.ambiguous")
    refused(lambda: isthmus("approve", "lab", "0123456789abcdef"), "approval.unknown")
    for flag in ("--yes", "--withdraw"):
        refused(lambda flag=flag: isthmus("approve", "lab", flag), "approval.ambiguous")  # type: ignore[misc]


def test_names_that_would_fool_the_eye_or_the_terminal_are_spelled_out(
    isthmus: Callable[..., str], homes: Path, job_file: Path
) -> None:
    content = yaml.safe_load(job_file.read_text())
    content["purpose"] = "harmless\u202e\x1b[2K [red]bold[/] \u0430"
    job_file.write_text(yaml.safe_dump(content))
    isthmus("sign", str(job_file), "--as", "insurer")
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")
    shown = isthmus("approve", "lab", start.digest(), "--yes")
    assert shown.isascii()
    assert "\x1b" not in shown
    assert "[red]bold[/]" in shown


# --- what is agreed to -----------------------------------------------------------------------------------------------


def test_a_person_reads_who_signed_for_how_many_runs_until_when_and_what_the_policy_lets_them(
    isthmus: Callable[..., str], homes: Path, job_file: Path
) -> None:
    isthmus("sign", str(job_file), "--as", "insurer", "--runs", "9")
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")
    until = start.until.strftime("%Y-%m-%d %H:%M UTC")
    assert until in isthmus("approve", "lab")
    shown = isthmus("approve", "lab", start.digest(), answer="n\n")
    assert f"signed for  9 runs, until {until}\n" in shown
    assert "policy      lets insurer start 4 per day\n" in shown
    facts = json.loads(isthmus("approve", "lab", start.digest(), "--json"))
    assert (facts["runs"], facts["signed_until"]) == (9, start.until.isoformat())
    content = yaml.safe_load((homes / "lab" / "party.yaml").read_text())
    content["policy"]["starts"] = {}
    (homes / "lab" / "party.yaml").write_text(yaml.safe_dump(content))
    assert "policy      does not let insurer start it\n" in isthmus("approve", "lab", start.digest(), answer="n\n")


def test_the_same_job_signed_again_waits_again(
    isthmus: Callable[..., str], homes: Path, job_file: Path, waiting: tuple[Job, Start]
) -> None:
    job, start = waiting
    isthmus("approve", "lab", start.digest(), "--yes")
    isthmus("sign", str(job_file), "--as", "insurer", "--runs", "1000")
    again, wider = read_job_file(job_file.parent / "job.signed.yaml")
    assert wider is not None
    assert (again.digest(), wider.digest() == start.digest()) == (job.digest(), False)
    refused(lambda: start_at_the_lab(homes, again, wider), "policy.approval")
    start_at_the_lab(homes, job, start)


# --- planted ---------------------------------------------------------------------------------------------------------


def test_the_text_of_a_job_that_waits_is_in_the_partys_state_and_nowhere_else(
    homes: Path, waiting: tuple[Job, Start]
) -> None:
    job, start = waiting
    error = refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")
    told = public_failure(Phase.AGREE, error, job.aliases())
    assert PLANTED not in error.text() + repr(error) + error.detail + told.model_dump_json()
    found = [path for path in homes.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]
    assert [path.relative_to(homes) for path in found] == [Path("lab/state.duckdb")]
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600


# --- the clock -------------------------------------------------------------------------------------------------------


@pytest.fixture
def far_ahead(homes: Path) -> State:
    """The lab's state after a day on which its clock showed another year."""
    state = State(PartyHome(homes / "lab"))
    state.seconds_ahead(datetime.now(UTC) + timedelta(days=400))
    return state


def test_a_clock_that_was_far_ahead_is_reset_at_the_terminal_and_jobs_start_again(
    isthmus: Callable[..., str], homes: Path, signed: dict[str, Any], job_file: Path, far_ahead: State
) -> None:
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    refused(lambda: start_at_the_lab(homes, job, start), "policy.clock")
    asked = isthmus("approve", "lab", "--reset-clock", answer="n\n")
    assert "lab has seen a time 345" in asked  # 34,560,000 s, less what has passed since
    assert "a clock that was set back would revive what has run out" in asked
    assert asked.endswith("not reset\n")
    refused(lambda: start_at_the_lab(homes, job, start), "policy.clock")
    assert isthmus("approve", "lab", "--reset-clock", answer="y\n").endswith(
        "lab goes by its clock again: start the job again\n"
    )
    refused(lambda: start_at_the_lab(homes, job, start), "policy.approval")


def test_a_clock_that_is_not_ahead_is_left_alone_and_nobody_is_asked(isthmus: Callable[..., str]) -> None:
    assert isthmus("approve", "lab", "--reset-clock") == "lab goes by its clock\n"
    assert json.loads(isthmus("approve", "lab", "--reset-clock", "--yes", "--json")) == {
        "party": "lab",
        "seconds_ahead": 0,
        "reset": False,
    }


def test_where_nobody_can_be_asked_a_clock_is_reset_by_yes_alone(
    isthmus: Callable[..., str], far_ahead: State, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(lambda: isthmus("approve", "lab", "--reset-clock"), "approval.unasked")
    assert "a clock that was set back" in capsys.readouterr().out
    assert json.loads(isthmus("approve", "lab", "--reset-clock", "--json"))["reset"] is False
    assert far_ahead.seconds_ahead(datetime.now(UTC)) > 0
    assert json.loads(isthmus("approve", "lab", "--reset-clock", "--yes", "--json"))["reset"] is True
    assert far_ahead.seconds_ahead(datetime.now(UTC)) == 0


@pytest.mark.parametrize("words", [("0123456789abcdef",), ("--withdraw",)])
def test_a_clock_is_reset_for_no_job_in_particular(isthmus: Callable[..., str], words: tuple[str, ...]) -> None:
    with pytest.raises(CycloptsError):
        isthmus("approve", "lab", *words, "--reset-clock")
