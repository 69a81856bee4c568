"""Signed job files, and the commands `sign`, `approve` and `pause`: from the signature to the vault's word."""

from __future__ import annotations

import io
import json
import shutil
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App, CycloptsError

from isthmus.flows.cli_starts import approve, pause, sign
from isthmus.flows.jobs import Job, load_job
from isthmus.flows.signed import parse_job_file, read_job_file, sign_job, write_signed
from isthmus.parties.approvals import requests, require_approval
from isthmus.parties.certificate import make_certificate
from isthmus.parties.consortium import accept, consortium_of
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.events import Phase, public_failure
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.roster import Roster
from isthmus.parties.starts import Start, judge_start
from isthmus.parties.state import State

from ..kept_open import make_state

EXAMPLES = Path(__file__).parents[2] / "examples"
PLANTED = "PLANTEDPURPOSE"
POLICY = {"starts": {"insurer": {"vertical": "4 per day"}}, "approve": ["vertical"]}

app = App(result_action="return_value")
for command in (sign, approve, pause):
    app.command(command)


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An insurer and a lab in one consortium, and a clinic in none."""
    homes = tmp_path_factory.mktemp("founded")
    members, identities = {}, {}
    for name, policy in (("insurer", {}), ("lab", POLICY), ("clinic", {})):
        (homes / name).mkdir()
        (homes / name / "party.yaml").write_text(yaml.safe_dump({"name": name, "policy": policy}))
        if name != "clinic":
            identities[name] = Identity(PartyHome(homes / name))
            members[name] = {
                "role": "party",
                "key": identities[name].public.hex(),
                "certificate": make_certificate().certificate.decode(),
                "until": date.today() + timedelta(days=100),
            }
    roster = Roster.model_validate({"consortium": "heart", "version": 1, "threshold": 2, "members": members})
    signatures = {name: identity.sign(roster.canonical()).hex() for name, identity in identities.items()}
    roster = roster.model_copy(update={"signatures": signatures})
    for name in identities:
        accept(homes / name, roster, roster.digest())
    make_state(homes / "lab")
    return homes


@pytest.fixture
def homes(tmp_path: Path, founded: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(founded, tmp_path / "homes"))


@pytest.fixture
def isthmus(homes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command; returns what it printed. `answer` sits at a terminal and types."""
    monkeypatch.chdir(homes.parent)

    def call(*words: str, answer: str | None = None) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO() if answer is None else _Terminal(answer))
        app([*words, "--homes", str(homes)], exit_on_error=False, print_error=False)
        return capsys.readouterr().out

    return call


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    content = yaml.safe_load((EXAMPLES / "vertical.yaml").read_text())
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**content, "purpose": PLANTED}, sort_keys=False))
    return path


def _start_at_the_lab(homes: Path, job: Job, start: Start | None, run: str = "hospital-mortality-1") -> None:
    """What the lab's vault does, in its order, before anything leaves."""
    lab = PartyHome(homes / "lab")
    consortium = consortium_of(lab)
    assert consortium is not None
    policy, state = lab.config.policy, State(lab)
    judge_start(
        start,
        policy=policy,
        state=state,
        party="lab",
        consortium=consortium.name,
        key_of=consortium.key_of,
        kind=job.kind,
        job_digest=job.digest(),
        run=run,
        begins_anew=False,
        now=datetime.now(UTC),
    )
    assert start is not None
    require_approval(policy, state, start, json.dumps(job.canonical()), "lab", run=run)


def _refused(call: Callable[[], Any], code: str) -> InputError | PolicyRefusal:
    with pytest.raises((InputError, PolicyRefusal)) as caught:
        call()
    assert caught.value.code == code
    return caught.value


# --- job files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_plain_job_file_is_read_as_ever(path: Path) -> None:
    assert read_job_file(path) == (load_job(path), None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_signed_job_of_any_kind_comes_back_the_same(path: Path, homes: Path, tmp_path: Path) -> None:
    job = load_job(path)
    if job.kind == "finetune":  # it is signed when it is complete
        job = type(job).model_validate({**job.canonical(), "start": {"digest": "d" * 64}})
    complete, start = sign_job(job, PartyHome(homes / "insurer"), folder=tmp_path, days=7, runs=3)
    write_signed(tmp_path / "signed.yaml", complete, start)
    back, its_start = read_job_file(tmp_path / "signed.yaml")
    assert (back, its_start, back.digest()) == (job, start, start.job)
    assert start.kind == job.kind


def test_words_of_any_language_and_with_any_sign_survive_the_file(homes: Path, job_file: Path, tmp_path: Path) -> None:
    job = load_job(job_file)
    purpose = "Überleben: 生存 \u202e # 'x' \"y\"\n- z\t\x7f {a}"
    job = type(job).model_validate({**job.canonical(), "purpose": purpose})
    write_signed(
        tmp_path / "signed.yaml", *sign_job(job, PartyHome(homes / "insurer"), folder=tmp_path, days=1, runs=1)
    )
    assert read_job_file(tmp_path / "signed.yaml")[0] == job


@pytest.fixture
def signed(isthmus: Callable[..., str], job_file: Path) -> dict[str, Any]:
    isthmus("sign", str(job_file), "--as", "insurer")
    content: dict[str, Any] = yaml.safe_load((job_file.parent / "job.signed.yaml").read_text())
    return content


MALFORMED = [
    (lambda content: content["start"].update(runs=0), "job.invalid", "start.runs"),
    (lambda content: content["start"].pop("by"), "job.invalid", "start.by"),
    (lambda content: content.update(start=None), "job.invalid", "start"),
    (lambda content: content["job"].update(surprise=1), "job.invalid", "surprise"),
    (lambda content: content["job"].pop("kind"), "job.invalid", "kind"),
    (lambda content: content.update(job=[]), "job.invalid", "kind"),
    (lambda content: content.update(more=1), "job.invalid", "kind"),
    (lambda content: content.pop("start"), "job.invalid", "kind"),
    (lambda content: content["job"].update(name="another"), "job.signature", ""),
    (lambda content: content["start"].update(kind="transfer"), "job.signature", ""),
]


@pytest.mark.parametrize(("change", "code", "field"), MALFORMED)
def test_a_signed_file_that_is_malformed_or_was_edited_is_refused_where_it_is_wrong(
    signed: dict[str, Any], tmp_path: Path, change: Callable[[Any], Any], code: str, field: str
) -> None:
    change(signed)
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(signed))
    error = _refused(lambda: read_job_file(tmp_path / "edited.yaml"), code)
    assert error.where == ", ".join(filter(None, ("edited.yaml", field)))


# --- sign ------------------------------------------------------------------------------------------------------------


def test_a_job_is_signed_beside_its_file_and_the_command_says_what_was_signed(
    isthmus: Callable[..., str], job_file: Path
) -> None:
    said = isthmus("sign", str(job_file), "--as", "insurer", "--days", "2", "--runs", "5")
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    assert (start.by, start.consortium, start.runs, start.job) == ("insurer", "heart", 5, job.digest())
    assert timedelta(days=1, hours=23) < start.until - datetime.now(UTC) <= timedelta(days=2)
    for fact in (job.digest(), start.digest(), "runs   5", start.until.strftime("until  %Y-%m-%d"), "job.signed.yaml"):
        assert fact in said


def test_a_signed_file_is_signed_anew_also_after_an_edit(isthmus: Callable[..., str], job_file: Path) -> None:
    out = job_file.parent / "job.signed.yaml"
    isthmus("sign", str(job_file), "--as", "insurer")
    content = yaml.safe_load(out.read_text())
    content["job"]["name"] = "another"
    out.write_text(yaml.safe_dump(content))
    facts = json.loads(isthmus("sign", str(out), "--as", "lab", "--json"))
    job, start = read_job_file(out)
    assert start is not None
    assert (job.name, start.by) == ("another", "lab")
    assert facts == {
        "file": str(out),
        "job": job.digest(),
        "start": start.digest(),
        "by": "lab",
        "runs": 1,
        "until": start.until.isoformat().replace("+00:00", "Z"),
    }


def test_the_file_can_be_named(isthmus: Callable[..., str], job_file: Path, tmp_path: Path) -> None:
    isthmus("sign", str(job_file), "--as", "insurer", "--out", str(tmp_path / "elsewhere" / "it.yaml"))
    assert read_job_file(tmp_path / "elsewhere" / "it.yaml")[1] is not None


def test_who_is_in_no_consortium_cannot_sign(isthmus: Callable[..., str], job_file: Path) -> None:
    _refused(lambda: isthmus("sign", str(job_file), "--as", "clinic"), "roster.not_pinned")
    assert _refused(lambda: isthmus("sign", str(job_file), "--as", "nobody"), "job.party_unknown").where
    assert not list(job_file.parent.glob("*.signed.yaml"))


def test_a_home_whose_key_is_not_the_rosters_cannot_sign(
    isthmus: Callable[..., str], job_file: Path, homes: Path
) -> None:
    (homes / "insurer" / "identity.key").write_bytes(b"7" * 32)
    _refused(lambda: isthmus("sign", str(job_file), "--as", "insurer"), "roster.key_differs")


@pytest.mark.parametrize("words", [("--days", "0"), ("--runs", "0"), ("--runs", "1001")])
def test_a_signature_has_a_time_and_a_number_of_runs(
    isthmus: Callable[..., str], job_file: Path, words: Sequence[str]
) -> None:
    with pytest.raises(CycloptsError):
        isthmus("sign", str(job_file), "--as", "insurer", *words)


def test_a_finetune_job_is_complete_before_it_is_signed(isthmus: Callable[..., str], tmp_path: Path) -> None:
    words = ("sign", str(EXAMPLES / "finetune.yaml"), "--as", "insurer", "--out", str(tmp_path / "signed.yaml"))
    folder = tmp_path / "done"
    _refused(lambda: isthmus(*words, "--runs-folder", str(folder)), "start.unknown")
    run = folder / "five-hospitals-1"
    run.mkdir(parents=True)
    record = {"run": run.name, "job": {"name": "five-hospitals", "kind": "horizontal"}, "job_digest": "e" * 64,
              "status": "finished", "attempts": 1, "started": "2026-03-01T12:00:00Z"}  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    (run / "summary.json").write_text(json.dumps({"job": record["job"], "digests": {"models": {"east": "d" * 64}}}))
    isthmus(*words, "--runs-folder", str(folder))
    job, start = read_job_file(tmp_path / "signed.yaml")
    assert job.canonical()["start"]["digest"] == "d" * 64
    assert job.completed(tmp_path / "nowhere") == job
    assert start is not None
    assert start.job == job.digest()


# --- approve ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(signed: dict[str, Any], homes: Path, job_file: Path) -> tuple[Job, Start]:
    """A signed job that the lab has refused to begin, since it waits."""
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    _refused(lambda: _start_at_the_lab(homes, job, start), "policy.approval")
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
    _start_at_the_lab(homes, job, start)  # the one run of the start, resumed: not counted again
    assert "waits" not in isthmus("approve", "lab")
    _refused(lambda: _start_at_the_lab(homes, job, start, "hospital-mortality-2"), "policy.start_used")


@pytest.mark.parametrize("answer", ["n\n", "\n", "perhaps\n"])
def test_any_answer_but_yes_leaves_it_waiting(
    isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start], answer: str
) -> None:
    job, start = waiting
    assert isthmus("approve", "lab", start.digest(), answer=answer).endswith("not approved\n")
    _refused(lambda: _start_at_the_lab(homes, job, start), "policy.approval")


def test_where_nobody_can_be_asked_the_job_is_shown_and_yes_has_to_be_said(
    isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start], capsys: pytest.CaptureFixture[str]
) -> None:
    job, start = waiting
    _refused(lambda: isthmus("approve", "lab", start.digest()), "approval.unasked")
    assert PLANTED in capsys.readouterr().out
    assert "approves it" in isthmus("approve", "lab", start.digest(), "--yes", "--days", "1")
    (request,) = requests(State(PartyHome(homes / "lab")))
    assert request.approved is not None
    assert request.until == request.approved + timedelta(days=1)
    _start_at_the_lab(homes, job, start)


def test_an_approval_is_withdrawn(isthmus: Callable[..., str], homes: Path, waiting: tuple[Job, Start]) -> None:
    job, start = waiting
    isthmus("approve", "lab", start.digest(), "--yes")
    assert isthmus("approve", "lab", start.digest()[:12], "--withdraw").endswith("lab has forgotten it\n")
    assert isthmus("approve", "lab") == "no job waits at lab\n"
    _refused(lambda: _start_at_the_lab(homes, job, start), "policy.approval")


def test_json_shows_a_job_without_approving_it(isthmus: Callable[..., str], waiting: tuple[Job, Start]) -> None:
    job, start = waiting
    shown = json.loads(isthmus("approve", "lab", start.digest(), "--json"))
    assert (shown["job"], shown["starter"], shown["approved_until"]) == (job.canonical(), "insurer", None)
    assert json.loads(isthmus("approve", "lab", "--json")) == [shown]
    assert json.loads(isthmus("approve", "lab", start.digest(), "--yes", "--json"))["approved_until"]


def test_a_digest_that_is_too_short_or_unknown_is_refused(
    isthmus: Callable[..., str], waiting: tuple[Job, Start]
) -> None:
    _refused(lambda: isthmus("approve", "lab", waiting[1].digest()[:7]), "approval.ambiguous")
    _refused(lambda: isthmus("approve", "lab", "0123456789abcdef"), "approval.unknown")
    for flag in ("--yes", "--withdraw"):
        _refused(lambda flag=flag: isthmus("approve", "lab", flag), "approval.ambiguous")  # type: ignore[misc]


def test_names_that_would_fool_the_eye_or_the_terminal_are_spelled_out(
    isthmus: Callable[..., str], homes: Path, job_file: Path
) -> None:
    content = yaml.safe_load(job_file.read_text())
    content["purpose"] = "harmless\u202e\x1b[2K [red]bold[/] \u0430"
    job_file.write_text(yaml.safe_dump(content))
    isthmus("sign", str(job_file), "--as", "insurer")
    job, start = read_job_file(job_file.parent / "job.signed.yaml")
    assert start is not None
    _refused(lambda: _start_at_the_lab(homes, job, start), "policy.approval")
    shown = isthmus("approve", "lab", start.digest(), "--yes")
    assert shown.isascii()
    assert "\x1b" not in shown
    assert "[red]bold[/]" in shown


# --- planted ---------------------------------------------------------------------------------------------------------


def test_the_text_of_a_job_that_waits_is_in_the_partys_state_and_nowhere_else(
    homes: Path, waiting: tuple[Job, Start]
) -> None:
    job, start = waiting
    error = _refused(lambda: _start_at_the_lab(homes, job, start), "policy.approval")
    told = public_failure(Phase.AGREE, error, job.aliases())
    assert PLANTED not in error.text() + repr(error) + error.detail + told.model_dump_json()
    found = [path for path in homes.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]
    assert [path.relative_to(homes) for path in found] == [Path("lab/state.duckdb")]
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600


def test_the_key_that_signs_shows_nowhere(isthmus: Callable[..., str], homes: Path, job_file: Path) -> None:
    key = (homes / "insurer" / "identity.key").read_bytes()
    said = isthmus("sign", str(job_file), "--as", "insurer") + (job_file.parent / "job.signed.yaml").read_text()
    assert key.hex() not in said
    assert key not in said.encode()


# --- pause -----------------------------------------------------------------------------------------------------------


def test_parties_are_paused_and_go_on(isthmus: Callable[..., str], homes: Path) -> None:
    assert isthmus("pause", "lab", "insurer") == "lab is paused\ninsurer is paused\n"
    assert isthmus("pause", "lab").startswith("lab was paused already: 20")
    assert (homes / "lab" / "paused").is_file()
    assert isthmus("pause", "lab", "insurer", "clinic", "--off") == (
        "lab goes on\ninsurer goes on\nclinic was not paused\n"
    )
    assert not (homes / "lab" / "paused").exists()


def test_a_name_that_is_wrong_does_not_keep_the_others_from_being_paused(
    isthmus: Callable[..., str], homes: Path
) -> None:
    error = _refused(lambda: isthmus("pause", "lap", "lab"), "job.party_unknown")
    assert "lap" in error.what
    assert (homes / "lab" / "paused").exists()


def test_a_party_whose_yaml_is_broken_can_be_paused(isthmus: Callable[..., str], homes: Path) -> None:
    (homes / "lab" / "party.yaml").write_text("name: [")
    assert isthmus("pause", "lab") == "lab is paused\n"


def test_nobody_named_is_nobody_paused(isthmus: Callable[..., str], homes: Path) -> None:
    with pytest.raises(CycloptsError):
        isthmus("pause")
    assert not list(homes.rglob("paused"))


@pytest.mark.parametrize("command", [sign, approve, pause])
def test_every_command_has_an_example(command: Callable[..., Any]) -> None:
    assert f"Example: isthmus {command.__name__} " in (command.__doc__ or "")


def test_parsing_a_signed_file_is_indifferent_to_whose_job_it_is(signed: dict[str, Any], tmp_path: Path) -> None:
    signed["job"]["name"] = "another"
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(signed))
    job, start = parse_job_file(tmp_path / "edited.yaml")
    assert start is not None
    assert start.job != job.digest()
