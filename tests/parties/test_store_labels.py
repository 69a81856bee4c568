"""What can be learnt of a dataset: numbers, survival times, and a split of its own. Binary labels: test_store.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.parties.errors import InputError
from isthmus.parties.store import Store

PATIENTS = """
CREATE TABLE t AS SELECT * FROM (VALUES
    ('a', 12.5, 3, 1, 'train'),
    ('b', -4.0, 10, 0, 'test'),
    ('c', 0.0, 7, 1, 'validation')
) AS rows (id, stay, days, died, part)
"""
IDS = np.array(["c", "a", "b"], dtype=object)


def store_of(make_home: Any, sql: str = "SELECT * FROM t") -> Store:
    return Store(make_home(PATIENTS, sql=sql), "results")


def refused(code: str, call: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.code == code, (caught.value.text(), caught.value.detail)
    assert caught.value.facts["party"] == "lab"
    return caught.value


def replaced(make_home: Any, column: str, expression: str) -> Store:
    return store_of(make_home, f"SELECT * REPLACE ({expression} AS {column}) FROM t")


def test_a_number_to_be_learnt_comes_in_the_order_that_was_asked_for(make_home: Any) -> None:
    found = store_of(make_home).target_number("stay", IDS)
    assert (found.dtype, found.tolist()) == (np.float32, [0.0, 12.5, -4.0])


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("if(id = 'a', NULL, stay)", "data.label_missing"),
        ("if(id = 'a', 'inf'::DOUBLE, stay)", "data.label_missing"),
        ("5", "data.label_constant"),
        ("if(id = 'a', 1e8, 1e8 + 1)", "data.label_constant"),  # in float32, which is what is learnt
        ("if(id = 'a', 1e39::DOUBLE, stay)", "data.label_not_number"),
        ("'long'", "data.label_not_number"),
        ("DATE '2020-01-01'", "data.label_not_number"),
    ],
)
def test_a_number_that_cannot_be_learnt_is_refused(make_home: Any, expression: str, code: str) -> None:
    store = replaced(make_home, "stay", expression)
    assert refused(code, lambda: store.target_number("stay", IDS)).facts["column"] == "stay"


def test_text_that_was_promised_as_a_number_is_no_label(make_home: Any) -> None:
    home = make_home(sql="SELECT unnest(['a', 'b', 'c']) AS id, 'long' AS x", dataset={"types": {"x": "number"}})
    refused("data.label_not_number", lambda: Store(home, "results").target_number("x", IDS))


def test_survival_is_a_time_above_zero_and_an_event(make_home: Any) -> None:
    days, died = store_of(make_home).durations("days", "died", IDS)
    assert (days.dtype, days.tolist()) == (np.float32, [7, 3, 10])
    assert (died.dtype, died.tolist()) == (np.float32, [1, 1, 0])


@pytest.mark.parametrize("outcome", [0, 1])
def test_all_may_have_had_the_event_or_none(make_home: Any, outcome: int) -> None:
    assert replaced(make_home, "died", str(outcome)).durations("days", "died", IDS)[1].tolist() == [outcome] * 3


@pytest.mark.parametrize(
    ("expression", "count"),
    [("if(id = 'a', NULL, days)", 1), ("days - 3", 1), ("days - 10", 3), ("if(id = 'a', 1e-60::DOUBLE, days)", 1)],
)
def test_a_time_that_is_missing_or_not_above_zero_is_counted(make_home: Any, expression: str, count: int) -> None:
    store = replaced(make_home, "days", expression)
    error = refused("data.duration", lambda: store.durations("days", "died", IDS))
    assert (error.facts["column"], error.facts["count"]) == ("days", count)


@pytest.mark.parametrize(
    ("column", "expression", "code"),
    [
        ("days", "'long'", "data.label_not_number"),
        ("died", "if(id = 'a', NULL, died)", "data.label_missing"),
        ("died", "died + 1", "data.label_not_binary"),
        ("died", "'yes'", "data.label_not_binary"),
    ],
)
def test_survival_that_is_none_is_refused(make_home: Any, column: str, expression: str, code: str) -> None:
    store = replaced(make_home, column, expression)
    assert refused(code, lambda: store.durations("days", "died", IDS)).facts["column"] == column


def test_a_column_may_say_the_part_of_every_row(make_home: Any) -> None:
    assert store_of(make_home).part("part", IDS).tolist() == ["validation", "train", "test"]
    grade = "part::ENUM('train', 'validation', 'test')"
    assert replaced(make_home, "part", grade).part("part", IDS).tolist() == ["validation", "train", "test"]


@pytest.mark.parametrize("expression", ["if(id = 'a', NULL, part)", "if(id = 'a', 'Train', part)", "1"])
def test_a_column_that_says_anything_else_is_refused(make_home: Any, expression: str) -> None:
    store = replaced(make_home, "part", expression)
    assert refused("data.part", lambda: store.part("part", IDS)).facts["column"] == "part"


@pytest.mark.parametrize("call", ["target_number", "part"])
def test_a_column_that_is_not_there_is_named(make_home: Any, call: str) -> None:
    store = store_of(make_home)
    assert refused("data.column_unknown", lambda: getattr(store, call)("nowhere", IDS)).facts["column"] == "nowhere"


def test_units_are_declared_by_column(make_home: Any) -> None:
    home = make_home(PATIENTS, dataset={"units": {"days": "days", "stay": "hours"}})
    assert home.config.datasets["results"].units == {"days": "days", "stay": "hours"}
