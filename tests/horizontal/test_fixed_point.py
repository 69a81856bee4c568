"""Numbers as words whose sum wraps around: what is rounded, what is exact, what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.fixed_point import ENCODINGS, EXACT, FLOAT32, FLOAT64, Encoding
from isthmus.parties.errors import InputError

ONE_WORD = [FLOAT32, FLOAT64]


def _array(*values: float) -> Any:
    return np.array(values, dtype=np.float64)


def _name(encoding: Encoding) -> str:
    return encoding.name


def test_words_are_the_numbers_times_a_power_of_two() -> None:
    assert FLOAT32.encode(_array(0, 1, -1, 0.5, -0.25), "lab").tolist() == [
        0, 2**24, 2**32 - 2**24, 2**23, 2**32 - 2**22,
    ]  # fmt: skip
    assert FLOAT64.encode(_array(1, -1), "lab").tolist() == [2**40, 2**64 - 2**40]
    assert EXACT.encode(_array(1, -1, 2.0**-64), "lab").reshape(3, 5).tolist() == [
        [0, 0, 1, 0, 0],
        [0, 0, 2**64 - 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("encoding", ONE_WORD, ids=_name)
def test_halves_are_rounded_to_even(encoding: Encoding) -> None:
    unit = 2.0**-encoding.fraction
    words = encoding.encode(_array(0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, -1.5 * unit), "lab")
    assert encoding.decode(words, 5).tolist() == [0.0, 2 * unit, 2 * unit, 0.0, -2 * unit]


def test_halves_beyond_the_exact_encoding_are_rounded_to_even() -> None:
    unit = 2.0**-64
    words = EXACT.encode(_array(0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, -1.5 * unit, 0.75 * unit), "lab")
    assert EXACT.decode(words, 6).tolist() == [0.0, 2 * unit, 2 * unit, 0.0, -2 * unit, unit]


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=_name)
def test_a_sum_may_wrap_around_on_its_way(encoding: Encoding) -> None:
    near = encoding.limit * 0.75
    words = sum(encoding.encode(_array(value), "lab") for value in (near, near, near, -near, -near))
    assert encoding.decode(words, 1).tolist() == [near]


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=_name)
def test_an_empty_vector_stays_empty(encoding: Encoding) -> None:
    assert encoding.decode(encoding.encode(_array(), "lab"), 0).shape == (0,)


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=_name)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(encoding: Encoding, value: float) -> None:
    with pytest.raises(InputError) as caught:
        encoding.encode(_array(1, value, 1), "lab")
    assert (caught.value.code, caught.value.facts) == ("update.not_finite", {"party": "lab"})


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=_name)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_is_refused_and_what_is_just_below_it_is_not(encoding: Encoding, sign: int) -> None:
    below = sign * (encoding.limit - (1 if encoding is not EXACT else 2.0**41))
    assert encoding.decode(encoding.encode(_array(below), "lab"), 1).tolist() == [below]
    with pytest.raises(InputError) as caught:
        encoding.encode(_array(1, sign * encoding.limit, 1), "lab")
    assert (caught.value.code, caught.value.facts) == ("update.too_large", {"party": "lab"})


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=_name)
def test_the_largest_number_of_all_is_too_large_and_still_a_number(encoding: Encoding) -> None:
    with pytest.raises(InputError) as caught:
        encoding.encode(_array(1.7e308), "lab")
    assert caught.value.code == "update.too_large"


@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_be_rounded_up_to_the_limit_is_refused(sign: int) -> None:
    with pytest.raises(InputError) as caught:
        FLOAT32.encode(_array(sign * math.nextafter(128, 0)), "lab")  # as a word it is the one of -128
    assert caught.value.code == "update.too_large"


@pytest.mark.parametrize("place", [0, 262_143, 262_144, 600_000 - 1])
def test_each_part_of_a_long_vector_is_looked_at(place: int) -> None:
    values = np.zeros(600_000)
    values[place] = 3.0
    assert np.flatnonzero(FLOAT32.encode(values, "lab")).tolist() == [place]
    values[place] = math.nan
    with pytest.raises(InputError):
        FLOAT32.encode(values, "lab")
    values[place] = 128
    with pytest.raises(InputError):
        FLOAT32.encode(values, "lab")


@given(st.lists(st.floats(-7, 7), min_size=1, max_size=9), st.sampled_from(ONE_WORD))
def test_a_sum_is_off_by_no_more_than_half_a_unit_a_number(values: list[float], encoding: Encoding) -> None:
    words = sum(encoding.encode(_array(value), "lab") for value in values)
    exact = sum(map(Fraction, values))
    assert abs(Fraction(float(encoding.decode(words, 1)[0])) - exact) <= Fraction(len(values), 2**encoding.fraction) / 2


@given(st.lists(st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=1, max_size=50))
def test_an_exact_sum_is_that_of_fsum(values: list[float]) -> None:
    words = sum(EXACT.encode(_array(value), "lab") for value in values)
    assert EXACT.decode(words, 1)[0] == math.fsum(values)


@given(st.lists(st.floats(-(2.0**90), 2.0**90), min_size=1, max_size=20))
def test_an_exact_sum_is_off_by_no_more_than_half_of_its_last_bit_a_number(values: list[float]) -> None:
    words = sum(EXACT.encode(_array(value), "lab") for value in values)
    exact = sum(map(Fraction, values))
    found = float(EXACT.decode(words, 1)[0])
    assert abs(Fraction(found) - exact) <= Fraction(len(values), 2**65) + Fraction(math.ulp(found)) / 2


@given(st.floats(-(2.0**93), 2.0**93).filter(lambda x: x == 0 or abs(x) > 1e-3))
def test_a_number_of_the_exact_encoding_comes_back_as_it_was(value: float) -> None:
    assert EXACT.decode(EXACT.encode(_array(value), "lab"), 1).tolist() == [value]


@given(st.floats(-127, 127, width=32), st.sampled_from(ONE_WORD))
def test_a_number_comes_back_to_half_a_unit(value: float, encoding: Encoding) -> None:
    found = encoding.decode(encoding.encode(np.array([value], dtype=np.float32), "lab"), 1)[0]
    assert abs(found - value) <= 2.0 ** -(encoding.fraction + 1)
