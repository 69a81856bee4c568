"""Fine-tuning at one party: the trunk of the start, a fresh head, and a gate that does no harm."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.codes import CategoryCode, NumberCode
from isthmus.horizontal.local import BatchReport
from isthmus.horizontal.metrics import auc
from isthmus.horizontal.model_file import MOST_BYTES, SavedModel, Seen, arrays_of
from isthmus.horizontal.model_spec import ModelSpec
from isthmus.horizontal.models import TabularNetwork, build
from isthmus.horizontal.order import shuffled
from isthmus.horizontal.splits import Parts, SplitRule
from isthmus.horizontal.tabular import Encoded, TabularEncoder
from isthmus.horizontal.targets import Target
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.table import Column
from isthmus.transfer.finetune import (
    CANDIDATES,
    Candidate,
    Finetuned,
    TuningPlan,
    choose,
    find_model,
    finetune,
    graft,
    load_start,
)

SPEC = ModelSpec("network", (6, 4), 0.0)
ENCODER = TabularEncoder([NumberCode("age", 0.0, 1.0, False), NumberCode("crea", 0.0, 1.0, False)], [])
PLAN = TuningPlan(epochs=3, batch_size=16, learning_rate=0.01, patience=None)
ROWS = 150


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the vaults."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _start(seed: int = 1, **changes: Any) -> SavedModel:
    module = build(SPEC, ENCODER, seed, "binary", party="north")
    about = {"party": "north", "seen": {"north": Seen(("died",), SplitRule(0.2, 0.2, 7))}, "round": 4}
    saved = SavedModel(task="binary", spec=SPEC, encoder=ENCODER, arrays=arrays_of(module), **about)  # type: ignore[arg-type]
    return replace(saved, **changes)


def _data(noise: float = 1.0, rows: int = ROWS) -> tuple[Encoded, Target, Parts]:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(rows, 2)).astype(np.float32)
    y = (x[:, 0] - x[:, 1] + noise * generator.normal(size=rows) > 0).astype(np.float32)
    third = rows // 3
    parts = Parts(np.arange(third), np.arange(third, 2 * third), np.arange(2 * third, rows))
    return Encoded(torch.from_numpy(x), torch.zeros(rows, 0, dtype=torch.int64)), Target("binary", y), parts


def _finetuned(plan: TuningPlan = PLAN, seed: int = 5, start: SavedModel | None = None, **more: Any) -> Finetuned:
    return finetune(start or _start(), *_data(), plan, party="east", private_seed=seed, **more)


def _state(found: Finetuned, of: Candidate) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in found.problems[of].module.state_dict().items()}


def _fresh(seed: int) -> dict[str, list[Any]]:
    drawn = int.from_bytes(hashlib.sha256(f"finetune tuned {seed}".encode()).digest(), "big")
    return {k: v.tolist() for k, v in build(SPEC, ENCODER, drawn, "binary", party="east").state_dict().items()}


def test_a_frozen_trunk_is_that_of_the_start_bit_for_bit_and_the_head_is_trained_from_fresh_weights() -> None:
    found, start = _state(_finetuned(replace(PLAN, frozen=True)), "tuned"), _start()
    for name, value in found.items():
        if name.startswith("output"):
            assert value != start.arrays[name].tolist()
            assert value != _fresh(5)[name]
        else:
            assert value == start.arrays[name].tolist()


def test_a_trunk_that_is_tuned_moves_away_from_the_start() -> None:
    found, start = _state(_finetuned(), "tuned"), _start()
    assert all(value != start.arrays[name].tolist() for name, value in found.items())
    near = np.abs(np.array(found["body.0.weight"]) - start.arrays["body.0.weight"]).max()
    assert near < 0.5  # and is still near it


def test_patterns_say_what_begins_afresh() -> None:
    start, fresh = _start(), build(SPEC, ENCODER, 9, "binary", party="east")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    graft(start, fresh, ("output.*", "body.3.*"), frozen=True)
    for name, value in fresh.named_parameters():
        mine = name.startswith(("output", "body.3"))
        assert value.requires_grad == mine
        assert torch.equal(value, before[name] if mine else torch.from_numpy(np.array(start.arrays[name])))


def test_the_start_is_as_it_was() -> None:
    found, start = _finetuned(), _start()
    assert _state(found, "start") == {name: array.tolist() for name, array in start.arrays.items()}
    assert set(found.epochs) == {"alone", "tuned"}


def test_the_steps_of_a_frozen_trunk_are_those_of_plain_torch_on_its_output() -> None:
    rows, target, parts = _data()
    start = _start()
    trunk = build(SPEC, ENCODER, 0, "binary", party="east")
    assert isinstance(trunk, TabularNetwork)
    start.write_into(trunk)
    with torch.no_grad():
        hidden = trunk.body(trunk.input(rows))[torch.from_numpy(parts.train)]
    label = torch.from_numpy(target.values[parts.train])
    weight = torch.tensor(_fresh(5)["output.weight"], requires_grad=True)
    bias = torch.tensor(_fresh(5)["output.bias"], requires_grad=True)
    plan = replace(PLAN, frozen=True, epochs=1)
    optimizer = torch.optim.Adam([weight, bias], lr=plan.learning_rate)
    order = shuffled(np.arange(len(parts.train)), f"round {plan.seed} east 0 0")
    for at in range(0, len(order), plan.batch_size):
        batch = torch.from_numpy(order[at : at + plan.batch_size])
        optimizer.zero_grad()
        logits = (hidden[batch] @ weight.T + bias).squeeze(1)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label[batch]).backward()
        optimizer.step()
    found = _finetuned(plan)
    assert found.epochs["tuned"].best_round == 1
    assert _state(found, "tuned")["output.weight"][0] == pytest.approx(weight.tolist()[0], abs=1e-6)
    assert _state(found, "tuned")["output.bias"] == pytest.approx(bias.tolist(), abs=1e-6)


def test_the_same_private_seed_gives_the_same_models_bit_for_bit_and_another_other_ones() -> None:
    dropping = replace(_start(), spec=replace(SPEC, dropout=0.3))
    first, again, other = (_finetuned(seed=seed, start=dropping) for seed in (5, 5, 6))
    for of in ("alone", "tuned"):
        assert _state(first, of) == _state(again, of) != _state(other, of)
    assert first.validation == again.validation


def test_nothing_draws_from_torchs_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _finetuned(start=replace(_start(), spec=replace(SPEC, dropout=0.3)))
    assert torch.equal(before, torch.get_rng_state())


LOSSES = [
    ({"start": 0.3, "alone": 0.4, "tuned": 0.2}, "tuned"),
    ({"start": 0.3, "alone": 0.25, "tuned": 0.29}, "alone"),
    ({"start": 0.1, "alone": 0.25, "tuned": 0.29}, "start"),
    ({"start": 0.3, "alone": 0.3, "tuned": 0.3}, "start"),
    ({"start": 0.4, "alone": 0.3, "tuned": 0.3}, "alone"),
]


@pytest.mark.parametrize(("losses", "chosen"), LOSSES)
def test_the_gate_keeps_the_best_and_of_equals_what_was_there_before(losses: Any, chosen: str) -> None:
    assert choose(losses) == chosen


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_nothing_has_a_lower_loss_than_what_the_gate_keeps(values: tuple[float, float, float]) -> None:
    losses: dict[Candidate, float] = dict(zip(CANDIDATES, values, strict=True))
    assert losses[choose(losses)] == min(values)


def test_a_good_start_is_kept_where_tuning_could_only_learn_nonsense() -> None:
    rows, target, parts = _data(noise=0.1)
    wrong = target.values.copy()
    wrong[parts.train] = 1 - wrong[parts.train]
    good = finetune(_start(), rows, target, parts, replace(PLAN, epochs=20), party="east", private_seed=1)
    start = _start(arrays=arrays_of(good.problems["alone"].module))
    assert good.validation["alone"] < 0.4
    found = finetune(
        start, rows, Target("binary", wrong), parts, replace(PLAN, epochs=10), party="east", private_seed=1
    )
    assert found.chosen == "start"
    assert all(found.validation[of] > found.validation["start"] for of in ("alone", "tuned"))


def test_a_gain_is_the_difference_of_two_aucs_on_the_same_rows() -> None:
    found = _finetuned(replace(PLAN, epochs=8))
    rows = _data()[2].test
    label = found.problems["start"].target.values[rows]
    tuned, start = (found.problems[of].scores(rows) for of in ("tuned", "start"))
    gain = found.auc_gain("tuned", rows)
    assert gain is not None
    assert gain.value == pytest.approx(auc(label, tuned) - auc(label, start))
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low < gain.value < gain.high
    assert found.auc_gain("start", rows) is None
    assert found.auc_gain("tuned", rows[label == 1]) is None


def test_numbers_and_survival_are_tuned_too() -> None:
    rows, target, parts = _data()
    numbers = rows.dense[:, 0].numpy()
    for task, other in (
        ("regression", Target("regression", numbers)),
        ("survival", Target("survival", np.exp(numbers), target.values)),
    ):
        module = build(SPEC, ENCODER, 1, task, party="north")  # type: ignore[arg-type]
        start = _start(task=task, arrays=arrays_of(module))
        found = finetune(start, rows, other, parts, PLAN, party="east", private_seed=1)
        assert np.isfinite(list(found.validation.values())).all()
        assert found.auc_gain("tuned", parts.test) is None


def test_it_tells_how_far_it_is_of_which_model() -> None:
    told: list[tuple[str, BatchReport]] = []
    _finetuned(replace(PLAN, epochs=2), on_batch=lambda of, report: told.append((of, report)))
    assert told[0] == ("alone", BatchReport(1, 2, 1, 4))
    assert told[-1] == ("tuned", BatchReport(2, 2, 4, 4))


def test_a_model_that_runs_away_is_said_to_have_diverged() -> None:
    with pytest.raises(InputError) as caught:
        _finetuned(replace(PLAN, learning_rate=1e38))
    assert (caught.value.code, caught.value.facts["epoch"]) == ("train.diverged", 1)


def _times(factor: float, pattern: str = "*") -> dict[str, Any]:
    arrays = _start().arrays.items()
    return {name: array * np.float32(factor if fnmatchcase(name, pattern) else 1) for name, array in arrays}


@pytest.mark.parametrize(
    "arrays",
    [
        _times(1e30),
        _times(1e38, "output.bias"),  # a number for each row, and none for their mean loss
        {**_times(1e38, "body.*"), "output.weight": np.zeros((1, 4), np.float32)},  # its trunk alone
    ],
    ids=["all", "loss", "trunk"],
)
def test_a_start_that_gives_no_numbers_is_named_rather_than_a_learning_rate(arrays: dict[str, Any]) -> None:
    told: list[Any] = []
    with pytest.raises(InputError) as caught:
        _finetuned(start=_start(arrays=arrays), on_batch=lambda of, report: told.append(of))
    assert (caught.value.code, caught.value.facts["field"]) == ("model.start_differs", "model")
    assert not told


def test_a_scale_by_which_rows_become_no_numbers_is_named() -> None:
    rows, target, parts = _data()
    encoder = TabularEncoder([NumberCode("age", 0.0, 5e-324, False), *ENCODER.numbers[1:]], [])
    values = [Column(name, "number", rows.dense[:, at].double().numpy()) for at, name in enumerate(("age", "crea"))]
    with pytest.raises(InputError) as caught:
        finetune(
            _start(encoder=encoder), encoder.transform(values, ROWS), target, parts, PLAN, party="east", private_seed=1
        )
    assert (caught.value.code, caught.value.facts["field"]) == ("model.start_differs", "columns")


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> PartyHome:
    folder = tmp_path / "east"
    folder.mkdir()
    (folder / "party.yaml").write_text("name: east\n")
    return PartyHome(folder)


def _put(home: PartyHome, saved: SavedModel, where: str = "run-1/part.safetensors") -> tuple[Path, str]:
    path = home.folder / "models" / where
    saved.save(path, party="east")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_is_found_by_its_digest_wherever_it_lies_below_models(home: PartyHome) -> None:
    _put(home, _start(2))
    path, digest = _put(home, _start(3), "from/afar/other-name.safetensors")
    assert find_model(home, digest) == path.read_bytes()


def test_only_regular_files_that_can_be_read_are_looked_into(home: PartyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digest = _put(home, _start(), "z/part.safetensors")
    models = home.folder / "models"
    os.mkfifo(models / "a.safetensors")  # to open one would wait for ever
    (models / "b.safetensors").mkdir()
    (models / "c.safetensors").symlink_to(models / "c.safetensors")
    with (models / "d.safetensors").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    (models / "e.safetensors").write_bytes(b"not for this party")
    opened = Path.open

    def denied(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "e.safetensors":
            raise PermissionError(13, "Permission denied", self.name)
        assert self.name != "d.safetensors"
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", denied)
    assert find_model(home, digest) == path.read_bytes()
    with pytest.raises(InputError) as caught:
        find_model(home, "0" * 64)
    assert caught.value.code == "model.start_missing"
    assert "e.safetensors" in caught.value.detail


def test_what_is_written_while_it_is_looked_at_is_not_taken(home: PartyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digest = _put(home, _start())
    hashed = hashlib.file_digest

    def and_changed(file: Any, name: str) -> Any:
        found = hashed(file, name)
        path.write_bytes(b"another")
        return found

    monkeypatch.setattr(hashlib, "file_digest", and_changed)
    with pytest.raises(InputError) as caught:
        find_model(home, digest)
    assert caught.value.code == "model.start_missing"


def test_a_digest_that_no_model_has_is_missing(home: PartyHome) -> None:
    path, digest = _put(home, _start())
    path.rename(home.folder / "part.safetensors")  # not below models/
    for wanted in (digest, "0" * 64):
        with pytest.raises(InputError) as caught:
            find_model(home, wanted)
        assert (caught.value.code, caught.value.facts["party"]) == ("model.start_missing", "east")


def _load(path: Path, spec: ModelSpec = SPEC, columns: tuple[str, ...] = ("age", "crea"), task: Any = "binary") -> Any:
    return load_start(path.read_bytes(), spec, columns, task, party="east")


def test_a_model_that_fits_the_job_is_read_whatever_the_order_of_its_columns(home: PartyHome) -> None:
    path, _ = _put(home, _start())
    assert _load(path, columns=("crea", "age")).round == 4


DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("model", {}, {"spec": replace(SPEC, hidden=(6,))}),
    ("model", {}, {"spec": replace(SPEC, dropout=0.5)}),
    ("columns", {}, {"columns": ("age",)}),
    ("columns", {}, {"columns": ("age", "bun")}),
    ("label", {}, {"task": "regression"}),
    ("model", {"arrays": {**_start().arrays, "output.weight": np.zeros((1, 5), np.float32)}}, {}),
    ("model", {"arrays": {"output.bias": np.zeros(1, np.float32)}}, {}),
    ("model", {"task": "telepathy"}, {}),
]


@pytest.mark.parametrize(("field", "changes", "asked"), DIFFERENT)
def test_a_model_that_is_not_the_jobs_is_refused_with_the_field(
    home: PartyHome, field: str, changes: dict[str, Any], asked: dict[str, Any]
) -> None:
    path, _ = _put(home, _start(**changes))
    with pytest.raises(InputError) as caught:
        _load(path, **asked)
    assert (caught.value.code, caught.value.facts["field"]) == ("model.start_differs", field)


def _planted() -> dict[str, dict[str, Any]]:
    """Encoders that would be large once they are built, beside the small tensors of `_start`."""
    numbers, levels = list(ENCODER.numbers), tuple(map(str, range(100_000)))
    return {
        "an indicator that counts": {"encoder": TabularEncoder([replace(numbers[0], indicator=3e7), numbers[1]], [])},  # type: ignore[arg-type]
        "many levels": {"encoder": TabularEncoder(numbers[:1], [CategoryCode("crea", levels)])},
        "many levels that are not embedded": {
            "encoder": TabularEncoder(numbers[:1], [CategoryCode("crea", levels, False)])
        },
        "a round that is none": {"round": 1e400},
    }


@pytest.mark.parametrize("changes", _planted().values(), ids=_planted())
def test_a_planted_model_is_refused_before_it_is_built(home: PartyHome, changes: dict[str, Any]) -> None:
    path, _ = _put(home, _start(**changes))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        _load(path)
    assert (caught.value.code, caught.value.facts["field"]) == ("model.start_differs", "model")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
