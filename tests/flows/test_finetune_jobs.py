"""Finetune jobs as YAML and forms: what is refused when they are read, and which model they start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from isthmus.flows.hospitals import FINETUNE_JOB, HOSPITALS_JOB
from isthmus.flows.jobs import job_of, load_job
from isthmus.flows.kinds.finetune.job import FinetuneJob, network_parts
from isthmus.flows.kinds.horizontal.job import HorizontalJob
from isthmus.flows.runs import open_run
from isthmus.horizontal.model_spec import ModelSpec
from isthmus.horizontal.models import build
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.errors import InputError

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGEST = "5" * 64


def _content(**changes: Any) -> dict[str, Any]:
    common = {
        "kind": "finetune",
        "name": "tune",
        "purpose": "testing",
        "party": {"name": "east", "dataset": "stays"},
        "columns": ["age", "sex"],
        "label": {"column": "died"},
        "start": {"digest": DIGEST},
    }
    return {**common, **changes}


def _job(**changes: Any) -> FinetuneJob:
    return FinetuneJob.model_validate(_content(**changes))


REFUSED = [
    ("no start", {"start": {}}, "by its digest, or by the job that made it"),
    ("half a digest", {"start": {"digest": "5" * 63}}, "pattern"),
    ("a path", {"start": {"job": "models/x.safetensors"}}, "pattern"),
    ("all columns", {"columns": ["*"]}, "each by its name"),
    ("a column twice", {"columns": ["age", "age"]}, "two columns have the same name"),
    ("the label as a column", {"label": {"column": "age"}}, "cannot be a column as well"),
    ("the split's column as a column", {"split": {"column": "age"}}, "cannot be a column of the model"),
    ("nothing to choose by", {"split": {"validation_share": 0}}, "the gate goes by validation rows"),
    ("a head that there is not", {"tuning": {"head": ["head.*"]}}, "names no parameter of the model"),
    ("all of it as head", {"tuning": {"head": ["*"]}}, "leaves nothing of the model"),
    ("a model without layers", {"model": {"kind": "network", "hidden": []}}, "leaves nothing of the model"),
    ("a linear model", {"model": {"kind": "logistic"}}, "network"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_tuned_is_refused_when_the_job_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _job(**changes)


@pytest.mark.parametrize("hidden", [(), (4,), (6, 5, 4)])
def test_the_parameters_that_a_head_can_name_are_those_of_the_network(hidden: tuple[int, ...]) -> None:
    module = build(ModelSpec("network", hidden), TabularEncoder([], []), 1, "binary", party="east")
    assert network_parts(len(hidden)) == list(module.state_dict())


def test_the_policy_judges_columns_label_epochs_and_cohort_and_there_is_no_peer() -> None:
    terms = _job(tuning={"epochs": 9}, split={"column": "part"}).terms("east")
    assert (terms.kind, terms.peers, terms.epochs, terms.rounds, terms.cohort) == ("finetune", (), 9, 0, 1)
    assert (terms.columns, terms.labels) == (("age", "sex", "part"), ("died",))
    assert (terms.at_least, terms.membership_learners) == (None, ())


def test_one_party_takes_part_and_speaks_to_nobody() -> None:
    job = _job()
    assert (job.members, job.links, job.essential) == (("east",), (), {"east"})


def test_the_aliases_are_the_names_of_the_job_and_nothing_else() -> None:
    job = _job(start={"job": "hospitals"}, split={"column": "part"})
    assert job.aliases() == {"finetune", "east", "stays", "age", "sex", "died", "hospitals", "part"}


def test_the_example_starts_from_the_hospitals_training_with_its_columns_model_and_split() -> None:
    example, trained = load_job(EXAMPLES / "finetune.yaml"), HorizontalJob.model_validate(yaml.safe_load(HOSPITALS_JOB))
    assert (EXAMPLES / "finetune.yaml").read_text() == FINETUNE_JOB
    assert isinstance(example, FinetuneJob)
    assert example.columns == tuple(column.name for column in trained.columns)
    assert (example.model, example.label, example.start.job) == (trained.model, trained.label, trained.name)
    assert (example.split, example.tuning.seed) == (trained.split, trained.rounds.seed)
    assert job_of(example.canonical()) == example


# --- the start -------------------------------------------------------------------------------------------------------


def _run(
    runs: Path,
    models: dict[str, str] | None,
    status: Any = "finished",
    name: str = "hospitals",
    of: str = HOSPITALS_JOB,
) -> None:
    job = job_of({**yaml.safe_load(of), "name": name})
    with open_run(runs, job, fresh=True) as run:
        if models is not None:
            (run.folder / "summary.json").write_text(json.dumps({"digests": {"models": models}}))
        run.save(status)


def test_the_newest_finished_run_of_the_job_says_which_model_it_is(tmp_path: Path) -> None:
    _run(tmp_path, {"east": "1" * 64})
    _run(tmp_path, {"east": "2" * 64, "west": "9" * 64})
    _run(tmp_path, {"east": "3" * 64}, status="unfinished")
    _run(tmp_path, {"east": "4" * 64}, name="others")
    _run(tmp_path, {"west": "5" * 64})
    _run(tmp_path, None)
    job = _job(start={"job": "hospitals"})
    found = job.completed(tmp_path)
    assert (found.start.digest, found.start.job) == ("2" * 64, "hospitals")
    assert found.digest() != job.digest()  # what the party agrees to names the file


def test_a_digest_that_the_job_names_itself_stands(tmp_path: Path) -> None:
    _run(tmp_path, {"east": "1" * 64})
    job = _job(start={"digest": DIGEST, "job": "hospitals"})
    assert job.completed(tmp_path) is job


def test_a_model_of_another_kind_of_job_with_that_name_is_nothing_to_start_from(tmp_path: Path) -> None:
    of_no_use = ("vertical.yaml", "transfer.yaml", "statistics.yaml")
    job = _job(start={"job": "hospitals"})
    for file in of_no_use:
        _run(tmp_path, {"east": "2" * 64}, of=(EXAMPLES / file).read_text())
    with pytest.raises(InputError, match="no finished run"):
        job.completed(tmp_path)
    _run(tmp_path, {"east": "3" * 64})
    _run(tmp_path, {"east": "4" * 64}, of=(EXAMPLES / of_no_use[0]).read_text())
    assert job.completed(tmp_path).start.digest == "3" * 64
    _run(tmp_path, {"east": "5" * 64}, of=json.dumps(_content()))
    assert job.completed(tmp_path).start.digest == "5" * 64


@pytest.mark.parametrize("models", [None, {"west": "1" * 64}], ids=["no report", "another party's"])
def test_without_a_finished_run_that_has_a_model_of_the_party_the_start_is_unknown(tmp_path: Path, models: Any) -> None:
    _run(tmp_path, models)
    with pytest.raises(InputError, match="no finished run of the job 'hospitals'") as caught:
        _job(start={"job": "hospitals"}).completed(tmp_path)
    assert caught.value.code == "start.unknown"


def test_other_kinds_of_job_start_from_nothing(tmp_path: Path) -> None:
    for path in set(EXAMPLES.glob("*.yaml")) - {EXAMPLES / "finetune.yaml"}:
        job = load_job(path)
        assert job.completed(tmp_path) is job
