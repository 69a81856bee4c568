from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.table import Identifier
from isthmus.psi.linkage import Linkage, normal_text, normalised, unreadable_dates


def column(*values):
    return np.array(values, dtype=object)


def text(*values):
    return Identifier([column(*values)])


def all_rows(linkage):
    return np.arange(linkage.rows, dtype=np.int64)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("O'Brien", "obrien"),
        ("  de la Cruz-Núñez ", "delacruznunez"),
        ("Müller", "muller"),
        ("Straße 5b", "strasse5b"),
        ("Łódź", "lodz"),
        ("ﬁne", "fine"),
        ("Ω", "o"),
        ("\uff11\uff12\uff13", "123"),
        ("İnci", "inci"),
        ("--", None),
        ("", None),
        ("́", None),
    ],
)
def test_text_is_folded_to_lower_case_letters_and_digits(written, normal):
    assert normal_text(written) == normal


def test_the_key_of_a_row_is_the_hash_of_the_pass_and_its_values_with_their_lengths():
    linkage = Linkage({"id": text("A-17"), "town": text("Oslo")}, [["id"], ["town", "id"]])
    first = b"17:isthmus linkage 11:12:id" + b"5:3:a17"
    second = b"17:isthmus linkage 11:24:town2:id" + b"6:4:oslo5:3:a17"
    assert linkage.keys(1, all_rows(linkage)).keys == [hashlib.sha256(first).hexdigest()]
    assert linkage.keys(2, all_rows(linkage)).keys == [hashlib.sha256(second).hexdigest()]


def test_values_that_run_together_make_different_keys():
    linkage = Linkage({"a": text("ab", "a"), "b": text("c", "bc")}, [["a", "b"]])
    keys = linkage.keys(1, all_rows(linkage))
    assert len(keys.keys) == 2
    assert keys.repeated == 0


def test_the_same_value_makes_another_key_in_another_pass():
    linkage = Linkage({"id": text("17")}, [["id"], ["id"]])
    assert linkage.keys(1, all_rows(linkage)).keys != linkage.keys(2, all_rows(linkage)).keys


def test_names_may_be_swapped():
    names = Identifier([column("Anna", "Karl", None, "x"), column("Karl", "Anna", "Karl", "")])
    first, second, third, fourth = normalised(names)
    assert first == second == "12:4:anna4:karl"
    assert third is None
    assert fourth is None


def test_a_date_is_read_by_its_format_and_one_that_does_not_fit_is_null():
    written = Identifier([column("19280722", "1928-07-22", None, "19281340", " 19280722 ")], "%Y%m%d")
    assert normalised(written) == ["13:10:1928-07-22", None, None, None, "13:10:1928-07-22"]
    otherwise = Identifier([column("22.07.1928")], "%d.%m.%Y")
    assert normalised(otherwise) == ["13:10:1928-07-22"]


def test_null_and_repeated_keys_are_counted_and_take_no_part():
    linkage = Linkage({"id": text("1", None, "2", "2", "3", "-", "2 ")}, [["id"]])
    keys = linkage.keys(1, all_rows(linkage))
    assert keys.rows.tolist() == [0, 4]
    assert keys.rows.dtype == np.int64
    assert (keys.null, keys.repeated, len(keys.keys)) == (2, 3, 2)


def test_only_the_rows_that_are_left_are_looked_at():
    linkage = Linkage({"id": text("1", "2", "2", "3")}, [["id"]])
    keys = linkage.keys(1, np.array([1, 3], dtype=np.int64))
    assert keys.rows.tolist() == [1, 3]
    assert (keys.null, keys.repeated) == (0, 0)


def test_a_party_without_any_complete_key_knows_it():
    assert not Linkage({"a": text("1", None), "b": text(None, "2")}, [["a", "b"]]).has_keys()
    assert Linkage({"a": text("1", None), "b": text(None, "2")}, [["a", "b"], ["b"]]).has_keys()
    assert not Linkage({"a": text()}, [["a"]]).has_keys()


def test_a_format_that_fits_no_date_at_all_is_named():
    dates = {
        "wrong": Identifier([column("1928-07-22", None)], "%Y%m%d"),
        "partly": Identifier([column("1928-07-22", "19280722")], "%Y%m%d"),
        "empty": Identifier([column(None, None)], "%Y%m%d"),
        "text": text("x"),
    }
    assert unreadable_dates(dates) == ["wrong"]


@given(st.text())
def test_normalising_twice_changes_nothing(written):
    normal = normal_text(written)
    assert normal is None or (normal_text(normal) == normal and normal.isascii() and normal.isalnum())


@given(
    st.lists(st.tuples(st.sampled_from([None, "", "a", "b", "ab"]), st.sampled_from([None, "b", "ab"])), max_size=12)
)
def test_every_row_is_used_null_or_repeated_and_used_keys_are_distinct(rows):
    linkage = Linkage({"a": text(*(a for a, _ in rows)), "b": text(*(b for _, b in rows))}, [["a", "b"]])
    keys = linkage.keys(1, np.arange(len(rows), dtype=np.int64))
    assert len(keys.keys) + keys.null + keys.repeated == len(rows)
    assert len(set(keys.keys)) == len(keys.keys) == len(keys.rows)
    complete = [row for row in rows if row[0] and row[1]]
    assert keys.null == len(rows) - len(complete)
    assert keys.repeated == sum(complete.count(row) > 1 for row in complete)
