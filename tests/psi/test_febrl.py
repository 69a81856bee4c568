"""The claim on FEBRL4: people whose records were written twice, with mistakes, and of whom it is known who is whom."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np

from isthmus.parties.table import Identifier
from isthmus.psi import align_as_initiator, align_as_responder

PEOPLE = Path(__file__).parents[2] / "flows" / "data" / "identities.parquet"
PASSES = [
    ["id"],
    ["names", "born"],
    ["born", "postcode"],
    ["given_name", "surname", "postcode"],
    ["surname", "address", "postcode"],
]


def party(copy, first, last):
    rows = duckdb.sql(
        f"SELECT * FROM '{PEOPLE}' WHERE copy = '{copy}' AND person BETWEEN {first} AND {last} ORDER BY hash(person)"
    ).fetchnumpy()

    def column(name):
        return np.array([value if isinstance(value, str) else None for value in rows[name].tolist()], dtype=object)

    return np.asarray(rows["person"]), {
        "id": Identifier([column("soc_sec_id")]),
        "names": Identifier([column("given_name"), column("surname")]),
        "born": Identifier([column("date_of_birth")], "%Y%m%d"),
        "postcode": Identifier([column("postcode")]),
        "given_name": Identifier([column("given_name")]),
        "surname": Identifier([column("surname")]),
        "address": Identifier([column("address_1")]),
    }


def test_five_passes_find_nearly_all_and_nobody_wrongly(link, together, executor):
    lab, lab_identifiers = party("original", 0, 4249)
    insurer, insurer_identifiers = party("corrupted", 750, 4999)
    between = link()
    options = {"floor": 100, "job_digest": "5" * 64, "executor": executor}
    ours, theirs = together(
        lambda: align_as_initiator(between.left, lab_identifiers, PASSES, **options),
        lambda: align_as_responder(between.right, insurer_identifiers, PASSES, **options),
    )
    same = lab[ours.rows] == insurer[theirs.rows]
    assert same.all()  # precision 1.0
    assert same.sum() / 3500 >= 0.98  # recall
    assert ours.digest == theirs.digest
