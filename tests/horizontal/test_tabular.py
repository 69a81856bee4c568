from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.horizontal import PrivateDropout, TabularEncoder, TabularInput, linear, multilayer, private_generator
from isthmus.parties.table import Column

NAN = math.nan


def number(name: str, *values: float) -> Column:
    return Column(name, "number", np.array(values, dtype=np.float64))


def category(name: str, *values: str | None) -> Column:
    return Column(name, "category", np.array(values, dtype=object))


def dense(columns: Sequence[Column], train: Sequence[int]) -> list[list[float]]:
    encoder = TabularEncoder.fit(columns, np.array(train, dtype=np.int64))
    encoded = encoder.transform(columns, len(columns[0].values))
    assert encoded.dense.dtype == torch.float32
    assert encoded.dense.shape == (len(encoded), encoder.dense_width)
    return encoded.dense.tolist()


# --- the encoder -----------------------------------------------------------------------------------------------------


def test_a_number_is_standardised_with_the_training_rows_alone():
    # training rows 2, 4, 6: mean 4, scale sqrt(8/3)
    scale = math.sqrt(8 / 3)
    found = dense([number("age", 2, 4, 6, 100)], [0, 1, 2])
    assert [row[0] for row in found] == pytest.approx([-2 / scale, 0, 2 / scale, 96 / scale])


def test_a_missing_number_is_the_mean_and_has_an_indicator():
    assert dense([number("age", 1, NAN, 3)], [0, 1, 2]) == [[-1, 0], [0, 1], [1, 0]]


def test_no_indicator_where_the_training_rows_miss_nothing():
    assert dense([number("age", 1, 3, NAN)], [0, 1]) == [[-1], [1], [0]]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e9 + 0.1, 1e-300])
def test_a_constant_column_is_zero(value: float):
    found = dense([number("age", value, value, value, value)], [0, 1, 2])
    assert [row[0] for row in found] == pytest.approx([0] * 4, abs=1e-6)


def test_a_constant_column_with_other_values_in_other_rows_stays_finite():
    assert dense([number("age", 5, 5, 7)], [0, 1]) == [[0], [0], [2]]


def test_a_column_without_any_value_in_the_training_rows_says_only_that():
    assert dense([number("age", NAN, NAN, 7)], [0, 1]) == [[0, 1], [0, 1], [7, 0]]


def test_a_category_is_one_hot_with_missing_and_unseen_first():
    columns = [category("ward", "b", "a", None, "c")]
    # sorted levels of the training rows: a, b
    assert dense(columns, [0, 1]) == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_a_category_without_any_level_in_the_training_rows_is_one_constant():
    assert dense([category("ward", None, None, "a")], [0, 1]) == [[1], [1], [1]]


def test_numbers_come_before_categories_in_the_order_of_the_columns():
    columns = [category("ward", "x", "y"), number("age", 1, NAN), number("size", 4, 6)]
    assert dense(columns, [0, 1]) == [[0, 0, -1, 0, 1, 0], [0, 1, 1, 0, 0, 1]]


@pytest.mark.parametrize(("levels", "embedded"), [(16, False), (17, True)])
def test_a_category_of_more_than_sixteen_levels_is_embedded(levels: int, embedded: bool):
    columns = [category("code", *(f"{level:02d}" for level in range(levels)), None)]
    encoder = TabularEncoder.fit(columns, np.arange(levels))
    encoded = encoder.transform(columns, levels + 1)
    assert encoder.embeddings == ([(levels + 1, 5)] if embedded else [])  # 1 + round(√17)
    assert encoded.dense.shape[1] == encoder.dense_width == (0 if embedded else levels + 1)
    assert encoded.codes.dtype == torch.int64
    if embedded:
        assert encoded.codes[:, 0].tolist() == [*range(1, levels + 1), 0]


def test_a_very_large_category_has_an_embedding_of_sixteen():
    columns = [category("code", *(f"{level:04d}" for level in range(900)))]
    assert TabularEncoder.fit(columns, np.arange(900)).embeddings == [(901, 16)]


def test_an_embedded_category_goes_through_the_network_with_its_unseen_levels():
    columns = [number("age", *range(21)), category("code", *(f"{level:02d}" for level in range(20)), "new")]
    encoder = TabularEncoder.fit(columns, np.arange(20))
    layer = TabularInput(encoder, private_generator(1, "test"))
    out = layer(encoder.transform(columns, 21))
    assert out.shape == (21, layer.width) == (21, 1 + 5)
    assert torch.equal(out[20, 1:], layer.embeddings[0].weight[0])
    assert torch.equal(out[0, 1:], layer.embeddings[0].weight[1])


def test_no_columns_are_rows_without_width():
    encoder = TabularEncoder.fit([], np.arange(3))
    encoded = encoder.transform([], 5)
    assert (encoded.dense.shape, encoded.codes.shape, encoder.dense_width) == ((5, 0), (5, 0), 0)


def test_columns_are_found_by_name_whatever_their_order():
    age, ward = number("age", 1, 3), category("ward", "x", "y")
    encoder = TabularEncoder.fit([age, ward], np.arange(2))
    assert torch.equal(encoder.transform([ward, age], 2).dense, encoder.transform([age, ward], 2).dense)


def test_rows_are_chosen_from_both_tensors_alike():
    columns = [number("age", *range(20)), category("code", *(f"{level:02d}" for level in range(20)))]
    encoded = TabularEncoder.fit(columns, np.arange(20)).transform(columns, 20)
    chosen = encoded[torch.tensor([7, 3])]
    assert torch.equal(chosen.dense, encoded.dense[[7, 3]])
    assert chosen.codes.tolist() == [[8], [4]]


def test_an_encoder_comes_back_from_json_as_it_was():
    columns = [
        number("age", 0.1, 0.2, NAN),
        category("ward", "ä", None, "b"),
        category("code", *(str(level) for level in range(3))),
    ]
    encoder = TabularEncoder.fit(columns, np.arange(3))
    back = TabularEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert (back.numbers, back.categories) == (encoder.numbers, encoder.categories)
    assert torch.equal(back.transform(columns, 3).dense, encoder.transform(columns, 3).dense)


values = st.just(NAN) | st.floats(-1e12, 1e12)


@settings(max_examples=80, deadline=None)
@given(st.lists(values, min_size=2, max_size=30), st.data())
def test_encoded_numbers_are_finite_and_do_not_depend_on_other_rows(numbers: list[float], data: st.DataObject):
    column = number("age", *numbers)
    train = np.array(data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=1, unique=True)), dtype=np.int64)
    encoder = TabularEncoder.fit([column], train)
    assert torch.isfinite(encoder.transform([column], len(numbers)).dense).all()
    others = np.setdiff1d(np.arange(len(numbers)), train)
    changed = column.values.copy()
    changed[others] = -7.0
    assert TabularEncoder.fit([Column("age", "number", changed)], train).to_dict() == encoder.to_dict()


# --- private randomness ----------------------------------------------------------------------------------------------


def test_weights_and_dropout_leave_the_global_generator_alone():
    columns = [number("age", *range(40)), category("code", *(f"{level:02d}" for level in range(40)))]
    encoder = TabularEncoder.fit(columns, np.arange(40))
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights, noise = private_generator(1, "weights"), private_generator(1, "noise")
    layer = TabularInput(encoder, weights)
    network = multilayer(layer.width, (8, 4), 0.5, weights, noise)
    network(layer(encoder.transform(columns, 40))).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


def test_the_global_generator_changes_nothing_of_ours():
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights, noise = private_generator(5, "weights"), private_generator(5, "noise")
        made.append(multilayer(3, (8,), 0.5, weights, noise)(torch.ones(4, 3)))
    assert torch.equal(*made)


def test_every_purpose_and_every_seed_has_a_generator_of_its_own():
    pairs = [(1, "a"), (1, "b"), (2, "a"), (2**63 - 1, "a"), (11, "a"), (1, "1 a")]
    drawn = {tuple(torch.rand(4, generator=private_generator(*pair)).tolist()) for pair in pairs}
    assert len(drawn) == len(pairs)
    again = [torch.rand(4, generator=private_generator(1, "a")) for _ in range(2)]
    assert torch.equal(*again)


def test_all_of_a_private_seed_counts_and_fills_the_whole_twister() -> None:
    one, other = (torch.rand(4, generator=private_generator(seed, "a")) for seed in (3, 3 + 2**64))
    assert not torch.equal(one, other)
    key = np.frombuffer(hashlib.shake_256(b"isthmus a 3").digest(4 * 624), dtype="<u4").astype(np.uint32)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    assert one.tolist() == [(word & 0xFFFFFF) / 2**24 for word in twister.random_raw(4).tolist()]


def test_dropout_keeps_the_expectation():
    layer = PrivateDropout(0.3, private_generator(1, "dropout"))
    out = layer(torch.ones(500, 400))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert out.mean().item() == pytest.approx(1.0, abs=0.006)  # four standard errors
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)


def test_dropout_passes_gradients_only_through_what_it_kept():
    values = torch.ones(50, 4, requires_grad=True)
    out = PrivateDropout(0.5, private_generator(1, "dropout"))(values)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_dropout_draws_nothing_when_scoring_or_at_rate_zero():
    generator = private_generator(1, "dropout")
    before, values = generator.get_state(), torch.ones(3, 3)
    scoring = PrivateDropout(0.5, generator).eval()
    assert scoring(values) is values
    assert PrivateDropout(0.0, generator)(values) is values
    assert torch.equal(generator.get_state(), before)


def test_initial_weights_fill_the_bounds_of_torchs_own():
    layer = linear(25, 400, private_generator(1, "weights"))
    for values in (layer.weight, layer.bias):
        assert values.abs().max().item() <= 1 / 5
        assert values.std().item() == pytest.approx(0.2 / math.sqrt(3), rel=0.1)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(25, 400)
    assert layer.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.05)


def test_a_layer_without_inputs_is_its_bias():
    layer = linear(0, 2, private_generator(1, "weights"))
    assert layer(torch.zeros(3, 0)).tolist() == [[0, 0]] * 3


def test_a_layer_can_have_no_bias():
    assert linear(3, 2, private_generator(1, "weights"), bias=False).bias is None


def test_a_network_has_the_widths_asked_for_and_none_is_the_identity():
    weights, noise = private_generator(1, "weights"), private_generator(1, "noise")
    network = multilayer(5, (4, 3), 0.1, weights, noise)
    assert [layer.weight.shape for layer in network if isinstance(layer, torch.nn.Linear)] == [(4, 5), (3, 4)]
    values = torch.rand(2, 5, generator=private_generator(1, "values"))
    assert multilayer(5, (), 0.1, weights, noise)(values) is values
