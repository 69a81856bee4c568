"""Models by kind, and a user's own: what it may do, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from isthmus.horizontal.codes import CategoryCode, NumberCode
from isthmus.horizontal.model_spec import ModelSpec, code_digest
from isthmus.horizontal.models import Scorer, build
from isthmus.horizontal.tabular import Encoded, TabularEncoder
from isthmus.parties.errors import InputError

NUMBERS = [NumberCode("age", 60.0, 10.0, indicator=False), NumberCode("crea", 1.0, 0.5, indicator=True)]
MANY = tuple(f"level{number}" for number in range(20))
ENCODER = TabularEncoder(NUMBERS, [CategoryCode("sex", ("f", "m")), CategoryCode("ward", MANY)])
ONE_HOT = TabularEncoder(NUMBERS, [CategoryCode("sex", ("f", "m")), CategoryCode("ward", MANY, embed=False)])

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, width=4, dropout=0.5):
        super().__init__()
        self.hidden, self.norm = nn.Linear(inputs, width), nn.BatchNorm1d(width)
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width, 1)

    def forward(self, x):
        return self.out(self.dropout(torch.relu(self.norm(self.hidden(x)))))

class Flat(Net):
    def forward(self, x):
        return super().forward(x).squeeze(1)

class Wide(Net):
    def forward(self, x):
        return torch.cat([x, x], dim=1)

class Wrong(Net):
    def forward(self, x):
        raise KeyError("plant-9183")

class Double(Net):
    def __init__(self, inputs):
        super().__init__(inputs)
        self.double()
    def forward(self, x):
        return super().forward(x.double())

class Empty(nn.Module):
    def __init__(self, inputs):
        super().__init__()
    def forward(self, x):
        return x.sum(1)

class Other:
    pass

number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `ward_models` that is installed here for the length of a test."""
    folder = tmp_path / "ward_models"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .net import Net\n")
    (folder / "net.py").write_text(OWN)
    (folder / "broken.py").write_text("def (:\n")
    (folder / "leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("ward_models")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def rows(count: int, encoder: TabularEncoder = ENCODER, seed: int = 1) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(count, encoder.dense_width, generator=generator)
    codes = torch.randint(0, 21, (count, len(encoder.embeddings)), generator=generator)
    return Encoded(dense, codes)


def own(name: str, **options: object) -> torch.nn.Module:
    return build(ModelSpec("own", path=f"ward_models.{name}", options=options), ONE_HOT, 1, "binary", party="north")


def refused(code: str, name: str, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        own(name, **options)
    assert (caught.value.code, caught.value.facts) == (code, {"party": "north"})
    return caught.value


def test_a_network_embeds_large_categories_and_gives_one_number_a_row():
    module = build(ModelSpec(hidden=(8, 4), dropout=0.1), ENCODER, 1, "binary", party="north")
    assert module(rows(5)).shape == (5,)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {
        "input.embeddings.0.weight": (21, 5),
        "body.0.weight": (8, 3 + 3 + 5),
        "body.0.bias": (8,),
        "body.3.weight": (4, 8),
        "body.3.bias": (4,),
        "output.weight": (1, 4),
        "output.bias": (1,),
    }


def test_linear_models_have_one_coefficient_a_column_and_level():
    assert not ModelSpec("linear").embeds
    module = build(ModelSpec("linear", hidden=(8,)), ONE_HOT, 1, "regression", party="north")
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {"output.weight": (1, 3 + 3 + 21), "output.bias": (1,)}


@pytest.mark.parametrize("kind", ["network", "linear"])
def test_no_constant_goes_into_a_cox_model(kind: str):
    module = build(ModelSpec(kind), ONE_HOT, 1, "survival", party="north")  # type: ignore[arg-type]
    assert "output.bias" not in module.state_dict()


def test_initial_weights_depend_on_the_private_seed_alone():
    spec = ModelSpec()
    before = torch.get_rng_state()
    one, same, other = (build(spec, ENCODER, seed, "binary", party="north") for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for first, second, third in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)
        assert not torch.equal(first, third)


def test_a_model_of_ones_own_is_built_from_its_path_and_options(package: Path):
    module = own("net.Net", width=6, dropout=0.25)
    assert type(module).__name__ == "Net"
    assert "norm.running_mean" in module.state_dict()  # under the user's own names
    scorer = Scorer(module.eval(), 1, party="north")
    encoded = rows(7, ONE_HOT)
    expected = module(encoded.dense).squeeze(1)
    assert torch.equal(scorer(encoded), expected)
    assert Scorer(own("net.Flat").eval(), 1, party="north")(encoded).shape == (7,)


def test_its_initial_weights_come_from_the_private_seed_and_leave_torchs_own_generator_alone(package: Path):
    before = torch.get_rng_state()
    first, second = own("net.Net"), own("net.Net")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.state_dict()["hidden.weight"], second.state_dict()["hidden.weight"])
    assert first.training
    assert first.state_dict()["norm.num_batches_tracked"] == 0


@pytest.mark.parametrize("kind", ["network", "own"])
def test_a_rounds_dropout_is_drawn_from_the_private_seed_and_the_round(package: Path, kind: str):
    if kind == "own":
        module, encoded = own("net.Net"), rows(9, ONE_HOT)
    else:
        module, encoded = build(ModelSpec(dropout=0.5), ENCODER, 1, "binary", party="north"), rows(9)
    scorer = Scorer(module.train(), 5, party="north")

    def drawn(round: int) -> list[torch.Tensor]:
        scorer.reseed(round)
        return [scorer(encoded).detach() for _ in range(2)]

    before = torch.get_rng_state()
    first, again, next_round = drawn(1), drawn(1), drawn(2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], next_round[0])


def test_the_digest_is_that_of_the_defining_file_and_runs_none_of_it(package: Path):
    expected = hashlib.sha256((package / "net.py").read_bytes()).hexdigest()
    assert code_digest("ward_models.net.Net", party="north") == expected
    assert code_digest("ward_models.leaving.Net", party="north")  # a file that would end the process when imported
    assert not [name for name in sys.modules if name.startswith("ward_models")]
    (package / "net.py").write_text(OWN + "# another line\n")
    assert code_digest("ward_models.net.Net", party="north") != expected


@pytest.mark.parametrize("path", ["nowhere.net.Net", "ward_models.nothing.Net", "ward_models.net.deeper.Net", "Net", "",
                                  ".Net", "ward_models..Net", "math.Net", "sys.Net"])  # fmt: skip
def test_a_path_without_a_source_has_no_digest(package: Path, path: str):
    with pytest.raises(InputError) as caught:
        code_digest(path, party="north")
    assert (caught.value.code, caught.value.facts) == ("model.unknown", {"party": "north"})


@pytest.mark.parametrize("name", ["nothing.Net", "net.Missing", "broken.Net", "leaving.Net"])
def test_a_model_that_cannot_be_imported_is_unknown(package: Path, name: str):
    refused("model.unknown", name)


@pytest.mark.parametrize("name", ["net.Other", "net.number", "net.Wide", "net.Wrong", "net.Double", "net.Empty"])
def test_a_model_that_does_not_work_is_invalid(package: Path, name: str):
    refused("model.invalid", name)


def test_options_that_it_does_not_take_are_invalid(package: Path):
    refused("model.invalid", "net.Net", depth=3)


def test_a_model_is_named_where_it_is_defined_since_that_file_is_digested(package: Path):
    with pytest.raises(InputError) as caught:
        build(ModelSpec("own", path="ward_models.Net"), ONE_HOT, 1, "binary", party="north")
    assert caught.value.code == "model.invalid"
    assert "ward_models.net" in caught.value.detail


def test_what_its_code_raises_stays_in_the_detail(package: Path):
    error = refused("model.invalid", "net.Wrong")
    assert "plant-9183" in error.detail
    assert "plant-9183" not in error.text()


def test_a_model_that_fails_in_training_only_is_invalid_as_well(package: Path):
    scorer = Scorer(own("net.Net").train(), 1, party="north")
    with pytest.raises(InputError) as caught:
        scorer(rows(1, ONE_HOT))  # batch norm needs two rows
    assert caught.value.code == "model.invalid"


def test_every_level_has_a_column_where_nothing_is_embedded():
    assert ONE_HOT.embeddings == []
    assert ONE_HOT.dense_width == 3 + 3 + 21
    again = TabularEncoder.from_dict(ONE_HOT.to_dict())
    assert again.categories == ONE_HOT.categories
    assert again.dense_width == ONE_HOT.dense_width
