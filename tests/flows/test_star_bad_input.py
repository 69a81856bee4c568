"""What is wrong with a horizontal or a statistics job, its homes or its data is said with a code, before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from isthmus.flows.check import check_job
from isthmus.horizontal import local
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Difference, Drift, Phase, Round

Change = Callable[[dict[str, Any]], Any]


def _refused(star: Any, code: str, exit_code: int, **options: Any) -> IsthmusError:
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(**options)
    assert caught.value.code == code, caught.value.text()
    assert caught.value.exit_code == exit_code
    assert not list(star.homes.glob("*/models/*/*"))
    assert not list(star.homes.rglob("*.partial"))
    return caught.value


def _policy(**changes: Any) -> Change:
    return lambda content: content["policy"].update(changes)


def _release(**changes: Any) -> Change:
    return lambda content: content["policy"]["release"]["stays"].update(changes)


def _dataset(**changes: Any) -> Change:
    return lambda content: content["datasets"]["stays"].update(changes)


POLICY = [
    ("policy.kind", "north", _policy(kinds=["statistics"])),
    ("policy.purpose", "hub", _policy(purposes=[])),
    ("policy.peer", "south", _policy(peers=["hub", "north"])),
    ("policy.rounds", "east", _policy(max_rounds=2)),
    ("policy.rounds", "hub", _policy(max_rounds=0)),
    ("policy.label", "north", _release(labels=[])),
    ("policy.column", "north", _release(columns=["age"])),
    ("policy.cohort", "north", _release(cohort=None)),
    ("home.key_unknown", "north", lambda content: content["keys"].pop("south")),
    ("data.empty", "north", _dataset(sql="SELECT * FROM t WHERE false")),
    ("data.label_missing", "east", _dataset(sql="SELECT * REPLACE (nullif(died, 1) AS died) FROM t")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "party", "change"), POLICY, ids=[f"{case[0]} {case[1]}" for case in POLICY])
def test_what_a_member_does_not_allow_or_cannot_give_is_named(star: Any, code: str, party: str, change: Change) -> None:
    star.edit_party(party, change)
    error = _refused(star, code, 3 if code.startswith("policy") else 2)
    assert party in error.what
    found = check_job(star.load_job(), star.homes).error
    assert found is not None
    assert found.code == code


def test_a_party_that_holds_all_its_rows_out_is_named(star: Any) -> None:
    star.job["split"] = {"column": "part"}
    for name in star.parties:
        part = "test" if name == "south" else "train"
        star.edit_party(name, _dataset(sql=f"SELECT *, '{part}' AS part FROM t"))
        star.edit_party(name, _release(columns=["age", "crea", "sex", "part"]))
    error = _refused(star, "data.few_rows", 2)
    assert error.facts == {"party": "south", "count": 0, "allowed": 2}


def test_plain_updates_need_every_policy(star: Any) -> None:
    star.job["secure_aggregation"] = False
    for name in ("north", "south"):
        star.edit_party(name, _policy(plain_updates="allow"))
    assert "east" in _refused(star, "policy.plain_updates", 3).what
    star.edit_party("east", _policy(plain_updates="allow"))
    assert star.run_inside(phases=[Phase.AGREE]).events


DIFFERENCES = [
    ("missing", _dataset(sql="SELECT * EXCLUDE (crea) FROM t"), "crea"),
    ("type", _dataset(sql="SELECT * REPLACE (age::VARCHAR AS age) FROM t"), "age"),
    ("unit", _dataset(units={"age": "months"}), "age"),
    ("unit", _dataset(units={}), "age"),
    ("levels", _dataset(sql="SELECT * REPLACE (CASE sex WHEN 'male' THEN 'M' ELSE 'F' END AS sex) FROM t"), "sex"),
]


@pytest.mark.parametrize("kind", ["star", "statistics_star"])
@pytest.mark.parametrize(("what", "change", "column"), DIFFERENCES, ids=[f"{c[0]} {c[2]}" for c in DIFFERENCES])
def test_data_that_differ_from_the_jobs_columns_are_named_by_party_before_training(
    request: Any, kind: str, what: str, change: Change, column: str
) -> None:
    star = request.getfixturevalue(kind)
    star.edit_party("south", change)
    star.edit_party("east", _dataset(units={"age": "days"}))
    error = _refused(star, "schema.differs", 2)
    assert error.facts["count"] == 2
    told = {(party, event.column, event.what) for party, event in star.journal.of(Difference)}
    assert told == {("south", column, what), ("east", "age", "unit")}
    assert not [*star.journal.of(Drift), *star.journal.of(Round)]


def test_an_update_that_is_no_number_is_refused_at_its_party(star: Any, monkeypatch: Any) -> None:
    original = local.LocalTraining.run

    def poisoned(self: Any, *arguments: Any, **options: Any) -> Any:
        trained = original(self, *arguments, **options)
        if self._party == "south":
            trained.update[0] = np.nan
        return trained

    monkeypatch.setattr(local.LocalTraining, "run", poisoned)
    star.job["alone"] = False
    assert "south" in _refused(star, "update.not_finite", 2).what


OWN = """
import torch

class Net(torch.nn.Module):
    def __init__(self, inputs, width=4):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(inputs, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU(), torch.nn.Dropout(0.2),
            torch.nn.Linear(width, 1))

    def forward(self, rows):
        return self.body(rows)
"""


@pytest.fixture
def own_model(star: Any, monkeypatch: Any) -> Any:
    """A model of one's own that is installed here and that every policy lists."""
    (star.folder / "hospital_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(star.folder)
    star.job["model"] = {"kind": "own", "path": "hospital_models.Net", "options": {"width": 3}}
    star.job["alone"] = False
    for name in star.members:
        star.edit_party(name, _policy(models=["hospital_models.Net"]))
    return star


def test_a_model_of_ones_own_is_trained_where_every_policy_lists_it(own_model: Any) -> None:
    own_model.job["strategy"] = "fedbn"
    own_model.run_inside()
    weights = [read_tensors(path)[0] for path in sorted(own_model.homes.glob("*/models/*/part.safetensors"))]
    assert len(weights) == 3
    assert all(np.array_equal(one["body.0.weight"], weights[0]["body.0.weight"]) for one in weights)
    assert not np.array_equal(weights[0]["body.1.running_mean"], weights[1]["body.1.running_mean"])


def test_a_model_that_a_policy_does_not_list_is_not_imported(own_model: Any) -> None:
    own_model.edit_party("south", _policy(models=["hospital_models.Other"]))
    assert "south" in _refused(own_model, "policy.model", 3).what


def test_a_model_whose_code_differs_between_parties_is_refused(own_model: Any, monkeypatch: Any) -> None:
    from isthmus.flows.kinds.horizontal import phases

    original = phases.code_of
    monkeypatch.setattr(phases, "code_of", lambda job, me: "f" * 64 if me == "east" else original(job, me))
    assert "'code' differs" in _refused(own_model, "job.not_agreed", 2).what


def test_a_model_that_is_not_installed_is_named(own_model: Any) -> None:
    own_model.job["model"]["path"] = "hospital_models_elsewhere.Net"
    for name in own_model.members:
        own_model.edit_party(name, _policy(models=["hospital_models_elsewhere.Net"]))
    _refused(own_model, "model.unknown", 2)


def test_parameters_that_differ_between_parties_are_refused(own_model: Any, monkeypatch: Any) -> None:
    from isthmus.flows.kinds.horizontal import learning

    original = learning.build

    def other(spec: Any, encoder: Any, seed: int, task: Any, *, party: str) -> Any:
        options = {"width": 5 if party == "south" else 3}
        return original(type(spec)("own", path=spec.path, options=options), encoder, seed, task, party=party)

    monkeypatch.setattr(learning, "build", other)
    assert "south" in _refused(own_model, "model.parameters", 2).what


def test_a_job_without_the_coordinators_home_is_refused(star: Any) -> None:
    star.job["coordinator"] = "nobody"
    done = star.command("check", str(star.job_file()))
    assert done.returncode == 2
    assert "error[job.party_unknown]" in done.stderr


def test_the_command_prints_keys_as_homes_pin_them(star: Any) -> None:
    done = star.command("keys")
    assert done.returncode == 0, done.stderr
    for name, key in star.party("hub")["keys"].items():
        assert f"{name}: {key}" in done.stdout
