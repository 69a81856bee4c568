"""The job's columns against a party's data, and how far parties drift apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.codes import NumberCode
from isthmus.horizontal.encoders import own_encoder, shared_encoder
from isthmus.horizontal.schema import ColumnSpec, Difference, Drift, differences, drift, readable
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.table import Column, ColumnKind

AGE = ColumnSpec("age", "number", unit="years")
SEX = ColumnSpec("sex", "category", levels=("f", "m"))
CREA = ColumnSpec("crea", "number")
SPECS = (AGE, SEX, CREA)
KINDS: dict[str, ColumnKind | None] = {"age": "number", "sex": "category", "crea": "number", "id": "category"}
UNITS = {"age": "years", "crea": "mg/dl"}


def category(name: str, *values: str | None) -> Column:
    return Column(name, "category", np.array(values, dtype=object))


def number(name: str, *values: float) -> Column:
    return Column(name, "number", np.array(values, dtype=np.float64))


def test_data_that_are_what_the_job_says_do_not_differ():
    columns = [number("age", 50, np.nan), category("sex", "f", None), number("crea", 1, 2)]
    assert differences(SPECS, KINDS, columns, UNITS) == []
    assert readable(SPECS, KINDS) == ["age", "sex", "crea"]


@pytest.mark.parametrize(
    ("kinds", "units", "expected"),
    [
        ({"age": "number", "sex": "category"}, UNITS, Difference("crea", "missing")),
        ({**KINDS, "age": "category"}, UNITS, Difference("age", "type")),
        ({**KINDS, "crea": None}, UNITS, Difference("crea", "type")),
        (KINDS, {}, Difference("age", "unit")),
        (KINDS, {"age": "months"}, Difference("age", "unit")),
    ],
)
def test_what_differs_is_named_by_the_jobs_own_column(kinds: Any, units: Any, expected: Difference):
    assert differences(SPECS, kinds, [], units) == [expected]
    if expected.what != "unit":
        assert expected.column not in readable(SPECS, kinds)


def test_every_column_that_differs_is_named_in_the_jobs_order():
    found = differences(SPECS, {"crea": "category", "sex": "category"}, [category("sex", "1", "2")], {})
    assert found == [Difference("age", "missing"), Difference("sex", "levels"), Difference("crea", "type")]


def test_a_unit_that_the_job_does_not_name_is_the_partys_own_affair():
    assert differences([CREA], KINDS, [], {"crea": "umol/l"}) == []


@pytest.mark.parametrize(
    ("values", "differs"),
    [
        (("1", "2"), True),  # the party codes it otherwise
        (("f", "x", "x"), True),
        (("f", "x"), False),
        (("f", "m", "x"), False),
        (("f", None, None), False),
        ((None, None), False),
        ((), False),
    ],
)
def test_a_category_differs_when_most_of_its_values_are_no_levels_of_the_job(values: Any, differs: bool):
    found = differences([SEX], KINDS, [category("sex", *values)], {})
    assert found == ([Difference("sex", "levels")] if differs else [])


def test_nothing_of_the_partys_own_is_in_what_it_tells():
    found = differences(SPECS, {**KINDS, "plant": "number"}, [category("sex", "planted")], {"age": "planted"})
    assert found
    assert "plant" not in repr(found)


def test_drift_is_the_distance_of_the_means_in_pooled_scales():
    columns = [number("age", 60, 70, np.nan, np.nan), category("sex", "f", "m", None, "f")]
    found = drift(columns, [NumberCode("age", 60.0, 10.0, indicator=True)], floor=1)
    assert found == [Drift("age", 0.5, 0.5), Drift("sex", None, 0.25)]


@pytest.mark.parametrize(
    ("known", "lacking", "smd_told", "missing_told"),
    [(5, 5, True, True), (5, 4, True, False), (5, 0, True, False), (4, 5, False, False), (0, 5, False, False)],
)
def test_drift_is_told_above_the_floor_alone(known: int, lacking: int, smd_told: bool, missing_told: bool):
    column = number("age", *(68.0 + place for place in range(known)), *[np.nan] * lacking)
    (found,) = drift([column], [NumberCode("age", 60.0, 10.0, indicator=True)], floor=5)
    assert (found.smd is not None, found.missing is not None) == (smd_told, missing_told)


@pytest.mark.parametrize("floor", [5, 10])
@pytest.mark.parametrize("ones", range(0, 61, 3))
def test_drift_does_not_count_the_ones_of_a_flag(ones: int, floor: int):
    """Knowing the pooled mean and scale, as all parties do: another count within the floor would tell the same."""
    code = NumberCode("flag", 0.1, 0.3, indicator=False)

    def told(count: int) -> float | None:
        (found,) = drift([number("flag", *[1.0] * count, *[0.0] * (300 - count))], [code], floor)
        return found.smd

    same = [other for other in range(301) if told(other) == told(ones)]
    assert max(same) - min(same) >= floor and ones in same
    assert told(ones) is None or abs(told(ones) - (ones / 300 - 0.1) / 0.3) <= 0.35


def test_a_column_that_is_constant_at_one_party_tells_no_more():
    assert drift([number("flag", *[0.0] * 300)], [NumberCode("flag", 0.1, 0.3, indicator=False)], 5)[0].smd == -0.3
    assert drift([number("flag", *[0.1] * 300)], [NumberCode("flag", 0.1, 0.3, indicator=False)], 5)[0].smd is None


def test_a_column_without_values_or_rows_has_no_drift():
    code = NumberCode("age", 60.0, 10.0, indicator=True)
    assert drift([number("age", np.nan)], [code], floor=0) == [Drift("age", None, 1.0)]
    assert drift([number("age")], [code], floor=0) == [Drift("age", None, None)]


def test_all_parties_hold_the_same_encoder_in_the_jobs_order():
    numbers = [NumberCode("crea", 1.0, 0.5, indicator=True), NumberCode("age", 60.0, 10.0, indicator=False)]
    encoder = shared_encoder(SPECS, numbers, embed=True)
    assert [code.name for code in encoder.numbers] == ["age", "crea"]
    assert encoder.categories[0].levels == ("f", "m")
    assert encoder.dense_width == 2 + 1 + 3


def test_large_categories_are_embedded_only_where_the_model_can():
    ward = ColumnSpec("ward", "category", levels=tuple(map(str, range(20))))
    assert shared_encoder([ward], [], embed=True).embeddings == [(21, 5)]
    assert shared_encoder([ward], [], embed=False).dense_width == 21


def test_a_partys_own_encoder_learns_from_its_training_rows_and_has_the_same_width_everywhere():
    columns = [number("age", 50, 70, 1000), category("sex", "m", "m", "x"), number("crea", 3, 3, np.nan)]
    encoder = own_encoder(SPECS, columns, np.array([0, 1]), embed=False)
    fitted = TabularEncoder.fit([columns[0]], np.array([0, 1])).numbers[0]
    assert encoder.numbers == (fitted, NumberCode("crea", 3.0, 1.0, indicator=False))  # a constant column is 0
    assert encoder.categories[0].levels == ("f", "m")
    with_indicator = own_encoder(SPECS, columns, np.array([0, 1]), embed=False, indicators=["age"])
    assert [code.indicator for code in with_indicator.numbers] == [True, False]
    assert with_indicator.dense_width == encoder.dense_width + 1
