from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.horizontal.vector import Layout, vector_digest


def test_tensors_become_one_vector_in_their_order_and_back() -> None:
    tensors = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "a": torch.tensor(5.0), "none": torch.zeros(0, 3)}
    layout = Layout.of(tensors)
    assert (layout.names, layout.shapes, layout.size) == (("b", "a", "none"), ((2, 2), (), (0, 3)), 5)
    vector = layout.flatten(tensors)
    assert vector.dtype == np.float32 and vector.tolist() == [1, 2, 3, 4, 5]
    back = layout.unflatten(vector)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_a_vector_can_be_loaded_into_a_module() -> None:
    module = nn.Linear(2, 1)
    tensors = dict(module.named_parameters())
    Layout.of(tensors).load(np.array([1, 2, 3], np.float32), tensors)
    assert module(torch.tensor([[1.0, 1.0]])).item() == 6


def test_flattening_copies() -> None:
    tensors = {"a": torch.zeros(3)}
    vector = Layout.of(tensors).flatten(tensors)
    vector[0] = 1
    assert tensors["a"][0] == 0


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 numbers"):
        Layout.of({"a": torch.zeros(3)}).unflatten(np.zeros(4, np.float32))


def test_the_digest_tells_names_shapes_and_kinds_apart() -> None:
    value = torch.zeros(2)
    kinds = [{"a": value}, {"b": value}, {"a": value[:1]}, {"a": nn.Parameter(value)}, {"a": value, "b": value}]
    assert len({Layout.of(kind).digest() for kind in kinds}) == len(kinds)


def test_buffers_are_found_where_they_lie() -> None:
    layout = Layout.of(nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)).state_dict(keep_vars=True))
    assert [layout.names[place] for place, one in enumerate(layout.parameters) if not one] == [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    assert layout.buffers == [slice(8, 10), slice(10, 12), slice(12, 13)]


def test_the_digest_of_a_model_is_that_of_its_bytes() -> None:
    vector = np.array([1.5, -2.0], np.float32)
    assert vector_digest(vector) == hashlib.sha256(struct.pack("<2f", 1.5, -2.0)).hexdigest()
    assert vector_digest(vector) != vector_digest(-vector)
