"""A trained model's file: what is written is read again, and any other file is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.codes import CategoryCode, NumberCode
from isthmus.horizontal.model_file import MOST_HEADER_BYTES, SavedModel, Seen, arrays_of
from isthmus.horizontal.model_spec import ModelSpec
from isthmus.horizontal.models import build, network_shapes
from isthmus.horizontal.splits import SplitRule
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.checkpoint import read_tensors, write_tensors

SPEC = ModelSpec("network", (4, 3), 0.1)
ENCODER = TabularEncoder(
    [NumberCode("age", 60.0, 10.0, False), NumberCode("crea", 1.0, 0.5, True)],
    [CategoryCode("sex", ("female", "male")), CategoryCode("ward", tuple(f"w{n}" for n in range(20)))],
)
MODULE = build(SPEC, ENCODER, 5, "binary", party="north")
SAVED = SavedModel(
    party="north",
    seen={"north": Seen(("died",), SplitRule(0.2, 0.25, 11)), "south": Seen(("dead",), SplitRule(0.0, 0.0, 0, "part"))},
    round=7,
    task="binary",
    spec=SPEC,
    encoder=ENCODER,
    arrays=arrays_of(MODULE),
)


def _content() -> bytes:
    with TemporaryDirectory() as folder:
        return _written(Path(folder)).read_bytes()


def _written(folder: Path) -> Path:
    path = folder / "models" / "part.safetensors"
    SAVED.save(path, party="north")
    return path


WRITTEN = _content()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = SavedModel.parse(_written(tmp_path).read_bytes())
    assert replace(found, arrays={}, encoder=ENCODER) == replace(SAVED, arrays={})
    assert found.encoder.to_dict() == ENCODER.to_dict()
    assert found.columns == ("age", "crea", "sex", "ward")
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        name: array.tolist() for name, array in SAVED.arrays.items()
    }


def test_a_module_that_is_given_the_tensors_is_the_one_that_was_saved(tmp_path: Path) -> None:
    other = build(SPEC, ENCODER, 6, "binary", party="south")
    SavedModel.parse(_written(tmp_path).read_bytes()).write_into(other)
    assert all(torch.equal(mine, other.state_dict()[name]) for name, mine in MODULE.state_dict().items())


@pytest.mark.parametrize("spec", [ModelSpec("network", (4, 4)), ModelSpec("network", (4,)), ModelSpec("linear")])
def test_a_module_of_other_shapes_does_not_take_them(spec: ModelSpec) -> None:
    with pytest.raises(ValueError, match="not those of the module"):
        SAVED.write_into(build(spec, ENCODER, 5, "binary", party="north"))


def test_another_type_of_number_is_not_taken() -> None:
    wide = replace(SAVED, arrays={name: array.astype(np.float64) for name, array in SAVED.arrays.items()})
    with pytest.raises(ValueError, match="not those of the module"):
        wide.write_into(build(SPEC, ENCODER, 5, "binary", party="north"))


def _without(field: str) -> Any:
    return lambda meta: meta.pop(field)


def _with(**values: Any) -> Any:
    return lambda meta: meta.update(values)


def _number(**values: Any) -> Any:
    return lambda meta: meta["encoder"]["numbers"][0].update(values)


def _category(**values: Any) -> Any:
    return lambda meta: meta["encoder"]["categories"][0].update(values)


SPLIT = {"validation_share": 0.2, "test_share": 0.2, "seed": 1}


def _south(**values: Any) -> Any:
    """Of one party, where the others are as they should be."""
    return lambda meta: meta["seen"]["south"].update(values)


def _older(**values: Any) -> Any:
    """A file with one label and one split for all parties."""

    def change(meta: Any) -> None:
        del meta["seen"]
        meta.update({"parties": ["north", "south"], "label": ["died"], "split": SPLIT, **values})

    return change


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []


BROKEN = {
    **{f"no {field}": _without(field) for field in ("party", "seen", "task", "model", "encoder")},
    "a task that there is not": _with(task="telepathy"),
    "a model that there is not": _with(model={"kind": "oracle", "hidden": []}),
    "a width in words": _with(model={"kind": "network", "hidden": ["many"]}),
    "no mean": _number(mean=float("nan")),
    "a mean in words": _number(mean="sixty"),
    "no scale": _number(scale=0.0),
    "a column twice": _number(name="crea"),
    "a column that is a number": _number(name=3),
    "a label that is a number": _south(label=[3]),
    "no label": lambda meta: meta["seen"]["south"].pop("label"),
    "a share in words": _south(split={**SPLIT, "validation_share": "a fifth"}),
    "a share of more than all": _south(split={**SPLIT, "test_share": 2.0}),
    "a split by more": _south(split={**SPLIT, "by": "me"}),
    "a split of no party": _with(seen=[]),
    "an older split in words": _older(split={**SPLIT, "seed": "one"}),
    "older files without a label": _older(label=None),
    "a list": _with(encoder=[]),
    "a mean beyond all numbers": _number(mean=10**400),
    "a mean that is true": _number(mean=True),
    "an indicator that is a number": _number(indicator=3e7),
    "an indicator that is 1": _number(indicator=1),
    "one-hot levels where there are embeddings": _category(embed=False),
    "an embedding that is a word": _category(embed="yes"),
    "a level twice": _category(levels=["female", "male", "male"]),
    "a round that is a number of another kind": _with(round=7.0),
    "a round that is true": _with(round=True),
    "a round before the first": _with(round=-1),
    "shares of more than all": _south(split={**SPLIT, "validation_share": 0.6, "test_share": 0.6}),
    "a depth beyond all": lambda meta: meta.update(party=_nested(900)),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path: Path, change: Any) -> None:
    path = _written(tmp_path)
    arrays, meta = read_tensors(path)
    change(meta)
    write_tensors(path, arrays, meta, party="north")
    with pytest.raises(ValueError, match="this file"):
        SavedModel.parse(path.read_bytes())


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    arrays = {name: np.array(array) for name, array in SAVED.arrays.items()}
    arrays["output.bias"][0] = np.inf
    replace(SAVED, arrays=arrays).save(tmp_path / "x.safetensors", party="north")
    with pytest.raises(ValueError, match="what cannot be"):
        SavedModel.parse((tmp_path / "x.safetensors").read_bytes())


def test_one_split_in_an_older_file_is_that_of_all_its_parties(tmp_path: Path) -> None:
    path = _written(tmp_path)
    arrays, meta = read_tensors(path)
    _older()(meta)
    write_tensors(path, arrays, meta, party="north")
    seen = Seen(("died",), SplitRule(0.2, 0.2, 1))
    assert SavedModel.parse(path.read_bytes()).seen == {"north": seen, "south": seen}


def _file(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "header",
    [
        json.dumps({"__metadata__": {"isthmus": "[" * 100_000}}).encode(),
        json.dumps({"__metadata__": {"isthmus": '{"round": ' + "9" * 5000 + "}"}}).encode(),
        json.dumps({"__metadata__": {"isthmus": "[]"}}).encode(),
        json.dumps({"__metadata__": {"isthmus": "null"}}).encode(),
        json.dumps({"__metadata__": {"other": "{}"}}).encode(),
        b"{}",
        b'{"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}',
        b" " * (MOST_HEADER_BYTES + 1),
    ],
    ids=["deep", "long number", "list", "null", "another's", "no meta", "no bytes", "long header"],
)
def test_a_header_that_was_made_to_fail_is_refused_as_any_other(header: bytes) -> None:
    with pytest.raises(ValueError, match="no model of a training"):
        SavedModel.parse(_file(header))


@given(st.integers(0, len(WRITTEN) - 1), st.integers(0, 255))
def test_a_byte_that_was_changed_gives_a_whole_model_or_a_value_error(place: int, byte: int) -> None:
    content = bytearray(WRITTEN)
    content[place] = byte
    try:
        found = SavedModel.parse(bytes(content))
    except ValueError:
        return
    assert all(type(code.indicator) is bool for code in found.encoder.numbers)


SHAPES = [
    ModelSpec("network", (4, 3)),
    ModelSpec("network", ()),
    ModelSpec("linear"),
]


@pytest.mark.parametrize("spec", SHAPES)
@pytest.mark.parametrize("task", ["binary", "survival"])
def test_the_shapes_that_are_expected_are_those_of_what_is_built(spec: ModelSpec, task: Any) -> None:
    built = build(spec, ENCODER, 1, task, party="north").state_dict()
    assert network_shapes(spec, ENCODER, task) == {name: tuple(value.shape) for name, value in built.items()}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no safetensors", b"\x00" * 64], ids=["empty", "zip", "zeros"])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no model of a training"):
        SavedModel.parse(path.read_bytes())
