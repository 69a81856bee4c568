"""What stops a job in a consortium before anything leaves: who started it, who is in the roster, what others got.

The vaults are threads that speak over sockets; their homes belong to a consortium, so every rule of one holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.check import check_job
from isthmus.flows.signed import read_job_file
from isthmus.parties import consortium as roster_of_home
from isthmus.parties.errors import InputError, IsthmusError, PeerFailure, PolicyRefusal
from isthmus.parties.events import Fingerprint, Phase
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger
from isthmus.parties.starts import Start

from ..consortium import Consortium, isthmus


@pytest.fixture
def founded(world: Any) -> Consortium:
    return Consortium(world.folder, world.job, starter="insurer")


def _start(consortium: Consortium) -> Start:
    _, start = read_job_file(consortium.signed)
    assert start is not None
    return start


def _run(world: Any) -> str:
    return str(world.load_job().run_name(1))


def _left(world: Any, member: str) -> set[str]:
    """The topics of all that a member's ledger says has left."""
    return {entry.topic.value for entry in Ledger(PartyHome(world.homes / member)).entries()}


def _refused(world: Any, code: str, **options: Any) -> IsthmusError:
    with pytest.raises(IsthmusError) as caught:
        world.run_inside(_run(world), timeout_s=5, **options)
    assert caught.value.code == code, caught.value
    return caught.value


def test_a_job_that_a_member_may_start_runs(world: Any, founded: Consortium) -> None:
    journal = world.run_inside(_run(world), start=_start(founded))
    assert {party for party, mark in journal.of(Fingerprint) if mark.name == "model"} == {"insurer", "lab"}


def test_a_signed_job_does_not_take_the_place_of_another_jobs_run(world: Any, founded: Consortium) -> None:
    other = _run(world).replace(world.load_job().digest()[:8], "0" * 8)
    with pytest.raises(InputError) as caught:
        world.run_inside(other, start=_start(founded))
    assert caught.value.code == "run.other_job"
    assert _left(world, "lab") == _left(world, "insurer") == set()


def test_a_job_that_nobody_signed_does_not_begin(world: Any, founded: Consortium) -> None:
    error = _refused(world, "job.unsigned")
    assert isinstance(error, InputError)
    assert _left(world, "lab") == _left(world, "insurer") == set()


def test_a_signature_under_another_job_does_not_start_this_one(world: Any, founded: Consortium) -> None:
    world.job["training"]["epochs"] = 3
    _refused(world, "job.signature", start=_start(founded))
    assert _left(world, "lab") == _left(world, "insurer") == set()


def test_a_member_whom_one_policy_does_not_let_start_stops_all(world: Any, founded: Consortium) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(starts={"lab": {"vertical": "1 per day"}}))
    error = _refused(world, "policy.start", start=_start(founded))
    assert isinstance(error, PolicyRefusal)
    assert "lab does not let insurer start 'vertical' jobs" in str(error)
    assert _left(world, "lab") == set()


def test_a_rate_is_kept_over_runs_and_a_run_that_resumes_is_not_counted(world: Any, founded: Consortium) -> None:
    founded.allow_starts("lab", "1 per day")
    start = _start(founded)
    world.run_inside(_run(world), start=start, phases=(Phase.AGREE, Phase.ALIGN))
    world.run_inside(_run(world), start=start)  # the same run goes on
    world.run_inside(_run(world), start=start)  # finished here, but somebody else may not have finished it
    _refused(world, "policy.start_rate", start=start, fresh=True)


def test_a_kind_that_waits_for_a_person_begins_once_somebody_has_approved(world: Any, founded: Consortium) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(approve=["vertical"]))
    start = _start(founded)
    digest = start.digest()
    error = _refused(world, "policy.approval", start=start)
    assert f"isthmus approve lab {digest}" in error.next  # the digest has come through the pipe
    assert _left(world, "lab") == set()
    assert digest[:12] in isthmus("approve", "lab", "--homes", world.homes)
    isthmus("approve", "lab", digest[:12], "--yes", "--homes", world.homes)
    world.run_inside(_run(world), start=start)


def test_a_revoked_member_is_not_spoken_to(world: Any, founded: Consortium) -> None:
    isthmus("consortium", "revoke", founded.roster, "insurer", "--threshold", 1)
    isthmus("consortium", "sign", founded.roster, "lab", "--homes", world.homes)
    isthmus("consortium", "sign", founded.roster, "insurer", "--homes", world.homes)
    isthmus("consortium", "accept", founded.roster, world.homes / "lab")
    _refused(world, "roster.revoked", start=_start(founded))
    assert _left(world, "lab") == set()


def test_members_with_different_versions_of_the_roster_tell_each_other_so(
    world: Any, founded: Consortium, tmp_path: Path
) -> None:
    isthmus("init", "party", "clinic", "--homes", tmp_path / "elsewhere")
    isthmus("consortium", "add", founded.roster, tmp_path / "elsewhere" / "clinic" / "clinic.member.yaml")
    for member in ("lab", "insurer"):
        isthmus("consortium", "sign", founded.roster, member, "--homes", world.homes)
    isthmus("consortium", "accept", founded.roster, world.homes / "lab")
    error = _refused(world, "roster.differs", start=_start(founded))
    assert "different versions of the roster" in str(error)
    assert _left(world, "lab") == _left(world, "insurer") == {"agree"}


def test_a_home_without_a_roster_gets_no_session_with_one_that_has(world: Any, founded: Consortium) -> None:
    for file in ("roster.pin", "roster.yaml"):
        (world.homes / "lab" / file).unlink()
    with pytest.raises(PeerFailure):  # a session is of one consortium: they never come to speak to each other
        world.run_inside(_run(world), timeout_s=3, start=_start(founded))
    assert "align" not in _left(world, "lab") | _left(world, "insurer")


def test_two_signatures_under_one_job_are_told_apart(world: Any, founded: Consortium, monkeypatch: Any) -> None:
    first = _start(founded)
    founded.sign_job()
    starts = {"lab": first, "insurer": _start(founded)}
    assert starts["lab"] != starts["insurer"]
    from isthmus.flows import phases

    monkeypatch.setattr(phases.Phases, "_judge_start", _with_start(phases.Phases._judge_start, starts))
    _refused(world, "job.start_differs", start=first)


def _with_start(judge: Callable[..., None], starts: dict[str, Start]) -> Callable[..., None]:
    def judged(self: Any, consortium: Any) -> None:
        self.opening = self.opening._replace(start=starts[self.me])
        judge(self, consortium)

    return judged


def test_a_home_whose_own_key_is_not_the_rosters_does_not_begin(world: Any, founded: Consortium) -> None:
    (world.homes / "insurer" / "identity.key").write_bytes(bytes(range(32)))
    _refused(world, "roster.key_differs", start=_start(founded))
    assert _left(world, "insurer") == set()


def test_keys_that_are_not_in_the_roster_are_not_believed(
    world: Any, founded: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.homes / "insurer" / "identity.key").write_bytes(bytes(range(32)))
    monkeypatch.setattr(roster_of_home.Consortium, "check_self", lambda *_: None)  # as somebody who means harm
    error = _refused(world, "peer.identity", start=_start(founded))
    assert isinstance(error, PeerFailure)
    assert "align" not in _left(world, "lab")


def test_a_member_that_is_given_another_job_for_a_run_refuses_it(world: Any, founded: Consortium) -> None:
    other = world.copy_to(world.folder / "other")
    other.job["training"]["epochs"] = 3
    jobs = {"lab": other.load_job()}
    _refused(world, "run.other_job", start=_start(founded), jobs=jobs)


def test_what_a_start_says_comes_with_the_vaults_first_line(founded: Consortium) -> None:
    from isthmus.flows.orders import Open

    start = _start(founded)
    job, _ = read_job_file(founded.signed)
    line = json.dumps({"job": job.canonical(), "run": "r-1", "start": start.model_dump(mode="json")})
    assert Open.model_validate_json(line).start == start


def test_a_check_at_one_member_asks_nobody_elsewhere_and_needs_no_signature(
    world: Any, founded: Consortium, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(world.homes / "lab", alone / "lab")
    job, start = read_job_file(founded.signed)
    for said in (None, start):
        asked = {one.party: one for one in check_job(job, alone, said).asked}
        assert asked["insurer"].elsewhere and asked["insurer"].error is None
        assert asked["lab"].error is None and asked["lab"].rows


def test_a_check_says_what_a_join_would_stop_at(world: Any, founded: Consortium) -> None:
    job, start = read_job_file(founded.signed)
    assert start is not None
    isthmus("pause", "lab", "--homes", world.homes)
    error = check_job(job, world.homes, start).error
    assert error is not None and error.code == "policy.paused"
    isthmus("pause", "lab", "--off", "--homes", world.homes)
    world.edit_party("lab", lambda content: content["policy"].update(starts={}))
    error = check_job(job, world.homes, start).error
    assert error is not None and error.code == "policy.start"
