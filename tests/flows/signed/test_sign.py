"""Signed job files and the command that makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError

from isthmus.flows.jobs import load_job
from isthmus.flows.signed import parse_job_file, read_job_file, sign_job, write_signed
from isthmus.parties.home import PartyHome

from .at_the_lab import EXAMPLES, refused

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
    error = refused(lambda: read_job_file(tmp_path / "edited.yaml"), code)
    assert error.where == ", ".join(filter(None, ("edited.yaml", field)))


def test_parsing_a_signed_file_is_indifferent_to_whose_job_it_is(signed: dict[str, Any], tmp_path: Path) -> None:
    signed["job"]["name"] = "another"
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(signed))
    job, start = parse_job_file(tmp_path / "edited.yaml")
    assert start is not None
    assert start.job != job.digest()


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
        "signature": start.model_dump_json(),
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
    refused(lambda: isthmus("sign", str(job_file), "--as", "clinic"), "roster.not_pinned")
    assert refused(lambda: isthmus("sign", str(job_file), "--as", "nobody"), "job.party_unknown").where
    assert not list(job_file.parent.glob("*.signed.yaml"))


def test_a_home_whose_key_is_not_the_rosters_cannot_sign(
    isthmus: Callable[..., str], job_file: Path, homes: Path
) -> None:
    (homes / "insurer" / "identity.key").write_bytes(b"7" * 32)
    refused(lambda: isthmus("sign", str(job_file), "--as", "insurer"), "roster.key_differs")


@pytest.mark.parametrize("words", [("--days", "0"), ("--runs", "0"), ("--runs", "1001")])
def test_a_signature_has_a_time_and_a_number_of_runs(
    isthmus: Callable[..., str], job_file: Path, words: Sequence[str]
) -> None:
    with pytest.raises(CycloptsError):
        isthmus("sign", str(job_file), "--as", "insurer", *words)


def test_a_finetune_job_is_complete_before_it_is_signed(isthmus: Callable[..., str], tmp_path: Path) -> None:
    words = ("sign", str(EXAMPLES / "finetune.yaml"), "--as", "insurer", "--out", str(tmp_path / "signed.yaml"))
    folder = tmp_path / "done"
    refused(lambda: isthmus(*words, "--runs-folder", str(folder)), "start.unknown")
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


def test_the_key_that_signs_shows_nowhere(isthmus: Callable[..., str], homes: Path, job_file: Path) -> None:
    key = (homes / "insurer" / "identity.key").read_bytes()
    said = isthmus("sign", str(job_file), "--as", "insurer") + (job_file.parent / "job.signed.yaml").read_text()
    assert key.hex() not in said
    assert key not in said.encode()
