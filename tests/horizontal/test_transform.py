from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.transform import (
    SCALE_ITEMS,
    Packing,
    Transform,
    clipped,
    from_bytes,
    largest,
    out_of_order,
    to_bytes,
)
from isthmus.parties.errors import InputError

Vector = np.ndarray[Any, np.dtype[np.float32]]


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


def packing(*transforms: Transform, size: int) -> Packing:
    return Packing(transforms, size)


def test_without_transforms_an_update_arrives_as_it_is() -> None:
    update = np.random.default_rng(1).normal(size=9).astype("f4")
    plain = packing(size=9)
    packed, residual = plain.encode(update, None, "north")
    assert plain.decode(packed).tobytes() == update.tobytes() and residual is None
    assert plain.dtypes == {"values": "<f4"}


def test_clipping_scales_a_long_update_down_and_leaves_a_short_one_alone() -> None:
    assert clipped(vector(3, 4), 2.5).tolist() == [1.5, 2.0]
    assert clipped(vector(3, 4), 5.0).tolist() == [3, 4]
    assert clipped(vector(0, 0), 1.0).tolist() == [0, 0]


def test_top_k_sends_the_places_that_moved_most() -> None:
    assert largest(vector(0.1, -5, 2, 0, 3), 2).tolist() == [1, 4]
    half = packing(Transform("top_k", share=0.4), size=5)
    packed, residual = half.encode(vector(0.1, -5, 2, 0, 3), np.zeros(5, "f4"), "north")
    assert packed.index is not None and packed.index.dtype == np.dtype("<u4")
    assert half.decode(packed).tolist() == [0, -5, 0, 0, 3]
    assert residual is not None and residual.tolist() == vector(0.1, 0, 2, 0, 0).tolist()


def test_sixteen_bits_round_to_the_nearest() -> None:
    half = packing(Transform("fp16"), size=3)
    packed, residual = half.encode(vector(1, 0.1, -2048.5), None, "north")
    assert packed.values.dtype == np.dtype("<f2") and residual is None
    assert half.decode(packed).tolist() == [1.0, float(np.float16(0.1)), -2048.0]


def test_what_sixteen_bits_cannot_hold_is_refused_at_the_party() -> None:
    with pytest.raises(InputError) as refused:
        packing(Transform("fp16"), size=1).encode(vector(70_000), None, "north")
    assert refused.value.code == "update.too_large" and refused.value.facts == {"party": "north"}


def test_eight_bits_by_hand() -> None:
    levels, scale = to_bytes(vector(127, -127, 63.6, 0))
    assert scale.tolist() == [1.0] and levels.tolist() == [255, 1, 192, 128]
    assert from_bytes(levels, scale).tolist() == [127, -127, 64, 0]


def test_every_chunk_has_a_scale_of_its_own() -> None:
    values = np.concatenate([np.full(SCALE_ITEMS, 1e-3), [1000.0, -1000.0]]).astype("f4")
    levels, scale = to_bytes(values)
    assert len(scale) == 2 and len(levels) == SCALE_ITEMS + 2
    np.testing.assert_allclose(from_bytes(levels, scale), values, rtol=1e-5)
    assert to_bytes(np.zeros(3, "f4"))[1].tolist() == [0.0]


def test_fewer_bytes_are_sent() -> None:
    update = np.random.default_rng(1).normal(size=100_000).astype("f4")

    def nbytes(*transforms: Transform) -> int:
        packed, _ = packing(*transforms, size=len(update)).encode(update, None, "north")
        return sum(array.nbytes for array in packed.arrays().values())

    assert nbytes() == 400_000 and nbytes(Transform("fp16")) == 200_000
    assert nbytes(Transform("int8")) == 100_000 + 4 * 25
    assert nbytes(Transform("top_k", share=0.01)) == 1000 * 8
    assert nbytes(Transform("top_k", share=0.01), Transform("int8")) == 1000 * 5 + 4


def test_clipping_is_not_fed_back() -> None:
    both = packing(Transform("clip", norm=1.0), Transform("int8"), size=2)
    packed, residual = both.encode(vector(300, 400), None, "north")
    np.testing.assert_allclose(both.decode(packed), [0.6, 0.8], atol=0.8 / 254)
    assert residual is not None and np.abs(residual).max() <= 0.8 / 254 + 1e-7


@given(
    st.lists(st.lists(st.floats(-100, 100, width=32), min_size=7, max_size=7), min_size=1, max_size=12),
    st.sampled_from(["int8", "top_k", "both"]),
)
def test_what_was_sent_adds_up_to_what_was_meant_less_what_is_kept(updates: list[list[float]], kind: str) -> None:
    thin, bits = Transform("top_k", share=0.3), Transform("int8")
    chosen = packing(*{"int8": (bits,), "top_k": (thin,), "both": (thin, bits)}[kind], size=7)
    residual: Vector | None = np.zeros(7, np.float32)
    sent, meant = np.zeros(7), np.zeros(7)
    for update in updates:
        packed, residual = chosen.encode(vector(*update), residual, "north")
        sent += chosen.decode(packed)
        meant += vector(*update)
    assert residual is not None
    np.testing.assert_allclose(sent + residual, meant, atol=1e-2)


@given(st.integers(1, 9000), st.floats(0.001, 1.0), st.booleans())
def test_both_sides_know_the_sizes_beforehand(size: int, share: float, eight: bool) -> None:
    update = np.random.default_rng(size).normal(size=size).astype("f4")
    chosen = packing(Transform("top_k", share=share), *([Transform("int8")] if eight else []), size=size)
    packed, _ = chosen.encode(update, None, "north")
    arrays = packed.arrays()
    assert {name: array.dtype.str for name, array in arrays.items()} == chosen.dtypes
    assert len(arrays["values"]) == len(arrays["index"]) == chosen.kept
    assert (np.diff(arrays["index"].astype("i8")) > 0).all()


def test_the_order_of_transforms_is_fixed() -> None:
    clip, thin, half, bits = (Transform(kind) for kind in ("clip", "top_k", "fp16", "int8"))  # type: ignore[arg-type]
    assert not out_of_order([]) and not out_of_order([clip, thin, half])
    assert out_of_order([thin, clip]) and out_of_order([clip, clip]) and out_of_order([bits, thin])
