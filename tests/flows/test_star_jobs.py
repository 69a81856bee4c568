"""Horizontal and statistics jobs as YAML and forms: what is refused when they are read, what parties agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from isthmus.flows.jobs import job_of, load_job
from isthmus.flows.kinds.horizontal.job import HorizontalJob
from isthmus.flows.kinds.horizontal.plan import model_of, plan_of
from isthmus.flows.kinds.statistics.job import StatisticsJob
from isthmus.horizontal.plan import STRATEGIES
from isthmus.parties.errors import InputError

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("north", "south", "east", "west", "central")


def _content(kind: str, parties: int = 5, **changes: Any) -> dict[str, Any]:
    common = {
        "kind": kind,
        "name": "star-job",
        "purpose": "testing",
        "parties": [{"name": name, "dataset": "stays"} for name in NAMES[:parties]],
        "columns": ["age", {"name": "sex", "kind": "category", "levels": ["female", "male"]}],
    }
    own = {"label": {"column": "died"}} if kind == "horizontal" else {"tables": [["sex"]]}
    return {**common, **own, **changes}


def _horizontal(parties: int = 5, **changes: Any) -> HorizontalJob:
    return HorizontalJob.model_validate(_content("horizontal", parties, **changes))


IMPOSSIBLE = [
    ("two parties", {"parties": 2}, "secure aggregation needs three parties"),
    ("krum under masks", {"strategy": "krum"}, "krum has to see each update"),
    ("top_k under masks", {"strategy": {"transforms": [{"kind": "top_k", "share": 0.1}]}}, "masks fill every place"),
    ("int8 under masks", {"strategy": {"transforms": [{"kind": "int8"}]}}, "masks fill every place"),
    ("a quorum below the threshold", {"rounds": {"quorum": 3}}, "a secure sum needs 4"),
    ("a quorum above all", {"rounds": {"quorum": 6}}, "more than the 5 parties"),
    ("too few for Krum", {"strategy": "krum", "secure_aggregation": False, "parties": 4}, "Krum needs 5"),
    ("too few to trim", {"strategy": {"aggregate": {"kind": "trimmed_mean", "byzantine": 3}},
                         "secure_aggregation": False}, "needs 7 parties"),
    ("SCAFFOLD with Adam at the server", {"strategy": {"name": "scaffold", "optimizer": {"kind": "adam"}}},
     "plain SGD"),
    ("SCAFFOLD with local Adam", {"strategy": "scaffold", "rounds": {"local_optimizer": "adam"}}, "plain local SGD"),
    ("Ditto with a private head", {"strategy": {"name": "ditto", "scope": {"head": True}}}, "nothing of that can be"),
    ("epochs and steps", {"rounds": {"local_epochs": 1, "local_steps": 5}}, "name one of the two"),
    ("a logistic model for survival", {"model": {"kind": "logistic"}, "label": {"duration": "days", "event": "dead"}},
     "does not fit a survival label"),
    ("Cox for an outcome", {"model": {"kind": "cox"}}, "does not fit a binary label"),
    ("a label that is a column", {"label": {"column": "age"}}, "cannot be a column as well"),
    ("half a survival label", {"label": {"duration": "days"}}, "a duration with its event"),
    ("subgroups of a number", {"subgroups": ["age"]}, "subgroups are categories"),
    ("a category without levels", {"columns": [{"name": "sex", "kind": "category"}]}, "a category has levels"),
    ("a coordinator with rows", {"coordinator": "north"}, "cannot be a party and the coordinator"),
    ("patience without validation", {"split": {"validation_share": 0}, "rounds": {"patience": 3}}, "nothing is held"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in IMPOSSIBLE], ids=[case[0] for case in IMPOSSIBLE])
def test_what_cannot_be_combined_is_refused_when_the_job_is_read(changes: dict[str, Any], words: str) -> None:
    parties = changes.pop("parties", 5)
    with pytest.raises(ValidationError, match=words):
        _horizontal(parties, **changes)


def test_a_refusal_names_the_file_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(_content("horizontal", strategy="krum")))
    with pytest.raises(InputError, match="krum has to see each update") as caught:
        load_job(path)
    assert (caught.value.code, caught.value.where) == ("job.invalid", "job.yaml")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_a_name_that_is_enough(name: str) -> None:
    robust = not STRATEGIES[name].aggregator.linear
    job = _horizontal(strategy=name, secure_aggregation=not robust)
    plan = plan_of(job)
    assert (plan.objective, plan.aggregator) == (STRATEGIES[name].objective, STRATEGIES[name].aggregator)
    assert (plan.optimizer, plan.scope) == (STRATEGIES[name].optimizer, STRATEGIES[name].scope)
    assert job_of(job.canonical()) == job


def test_a_piece_that_is_named_takes_the_place_of_the_names_own() -> None:
    plan = plan_of(_horizontal(strategy={"name": "fedprox", "optimizer": {"kind": "yogi", "learning_rate": 0.1}}))
    assert (plan.objective.kind, plan.optimizer.kind, plan.optimizer.learning_rate) == ("proximal", "yogi", 0.1)


def test_policies_judge_rounds_models_labels_cohort_and_plain_updates() -> None:
    own = {"kind": "own", "path": "ours.Net"}
    terms = _horizontal(model=own, secure_aggregation=False, split={"column": "part"}).terms("north")
    assert (terms.rounds, terms.model, terms.plain_updates, terms.cohort) == (30, "ours.Net", True, 1)
    assert (terms.columns, terms.labels) == (("age", "sex", "part"), ("died",))
    assert terms.peers == (*NAMES[1:], "coordinator")
    assert not _horizontal().terms("north").plain_updates
    coordinator = _horizontal(model=own).terms("coordinator")
    assert (coordinator.dataset, coordinator.columns, coordinator.model) == (None, (), "ours.Net")


def test_the_aliases_are_names_and_never_levels() -> None:
    aliases = _horizontal().aliases()
    assert aliases == {"horizontal", *NAMES, "coordinator", "stays", "age", "sex", "died"}


def test_parties_can_be_missing_only_where_the_job_has_a_quorum() -> None:
    assert _horizontal().essential == {*NAMES, "coordinator"}
    assert _horizontal(rounds={"quorum": 4}).essential == {"coordinator"}


def test_parties_hold_to_the_quorum_in_every_sum() -> None:
    assert _horizontal().fewest == 5
    assert _horizontal(rounds={"quorum": 4}).fewest == 4
    assert _horizontal(rounds={"sample": 3}, secure_aggregation=False).fewest == 3
    assert StatisticsJob.model_validate(_content("statistics")).fewest == 5


def test_a_linear_model_is_named_by_what_it_learns() -> None:
    assert model_of(_horizontal(model={"kind": "logistic"})).kind == "linear"
    survival = _horizontal(model={"kind": "cox"}, label={"duration": "days", "event": "dead"})
    assert (survival.task, model_of(survival).kind) == ("survival", "linear")


STATISTICS = [
    ("a table by a column that is not there", {"tables": [["ward"]]}, "not among the columns"),
    ("a number without edges", {"tables": [["age"]]}, "a number needs edges"),
    ("a curve whose event is a column", {"curves": [{"name": "s", "duration": "days", "event": "sex", "until": 9}]},
     "stands among the columns"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in STATISTICS], ids=[case[0] for case in STATISTICS])
def test_statistics_that_cannot_be_asked_are_refused_when_the_job_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        StatisticsJob.model_validate(_content("statistics", **changes))


def test_a_statistics_job_releases_what_its_curves_read_as_labels() -> None:
    curve = {"name": "s", "duration": "days", "event": "dead", "until": 9, "by": "sex"}
    job = StatisticsJob.model_validate(_content("statistics", curves=[curve], at_least=7))
    terms = job.terms("north")
    assert (terms.labels, terms.cohort) == (("days", "dead"), 7)
    assert job.request().curves[0].by == ("sex",)
    assert job_of(job.canonical()) == job


@pytest.mark.parametrize("file", ["hospitals.yaml", "statistics.yaml"])
def test_the_examples_are_read(file: str) -> None:
    assert load_job(EXAMPLES / file).members[-1] == "coordinator"
