"""The store over real DuckDB files: what a dataset may hold, and what it can never do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml

from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.store import Store

TYPES = """
CREATE TABLE t AS SELECT * FROM (VALUES
    ('b', 1::TINYINT, 10::UBIGINT, 1.50::DECIMAL(5, 2), TRUE, 0.5::FLOAT, 2::HUGEINT, 'x', 'low'::ENUM('low', 'high'), 1),
    ('a', NULL,       20::UBIGINT, NULL,                NULL, NULL,       NULL,       NULL, NULL,                      0),
    ('c', 3::TINYINT, 30::UBIGINT, -2.25::DECIMAL(5, 2), FALSE, 'inf'::FLOAT, 4::HUGEINT, 'ü"''', 'high'::ENUM('low', 'high'), 1)
) AS rows (id, tiny, big, money, flag, real, huge, word, grade, died)
"""  # noqa: E501
NUMBERS = {
    "tiny": [1, np.nan, 3],
    "big": [10, 20, 30],
    "money": [1.5, np.nan, -2.25],
    "flag": [1, np.nan, 0],
    "real": [0.5, np.nan, np.nan],  # an infinity is no measurement
    "huge": [2, np.nan, 4],
}
CATEGORIES = {"word": ["x", None, "ü\"'"], "grade": ["low", None, "high"]}


def _ids(*names: str) -> np.ndarray[Any, Any]:
    return np.array(names, dtype=object)


def _refused(code: str, call: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.code == code, (caught.value.text(), caught.value.detail)
    return caught.value


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_float64_with_nan_where_they_are_missing(make_home: Any, name: str) -> None:
    (column,) = Store(make_home(TYPES), "results").columns([name], _ids("b", "a", "c"))
    assert (column.name, column.kind, column.values.dtype) == (name, "number", np.float64)
    np.testing.assert_array_equal(column.values, NUMBERS[name])


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_are_text_with_none_where_they_are_missing(make_home: Any, name: str) -> None:
    (column,) = Store(make_home(TYPES), "results").columns([name], _ids("b", "a", "c"))
    assert (column.name, column.kind, column.values.dtype) == (name, "category", object)
    assert column.values.tolist() == CATEGORIES[name]


def test_rows_come_in_the_order_that_was_asked_for(make_home: Any) -> None:
    store = Store(make_home(TYPES), "results")
    assert store.row_ids().tolist() == ["a", "b", "c"]
    big, word = store.columns(["big", "word"], _ids("c", "a"))
    assert big.values.tolist() == [30, 20]
    assert word.values.tolist() == ["ü\"'", None]
    assert store.columns(["word", "big"], _ids("b"))[0].name == "word"
    assert store.columns([], _ids("b")) == []


def test_ten_thousand_rows_keep_their_order(make_home: Any) -> None:
    home = make_home("CREATE TABLE t AS SELECT range AS id, range * 2 AS x FROM range(10000)")
    order = np.random.default_rng(1).permutation(10_000)
    (column,) = Store(home, "results").columns(["x"], np.array([str(row) for row in order], dtype=object))
    np.testing.assert_array_equal(column.values, 2.0 * order)


@pytest.mark.parametrize(
    "expression",
    ["DATE '2020-01-01'", "TIMESTAMP '2020-01-01 00:00:00'", "[1, 2]", "{'a': 1}", "MAP {'a': 1}", "'x'::BLOB",
     "INTERVAL 1 DAY", "uuid()", "['a']::VARCHAR[1]", "TIME '12:00:00'", "'1'::BIT"],
)  # fmt: skip
def test_what_is_neither_number_nor_text_is_unsupported(make_home: Any, expression: str) -> None:
    store = Store(make_home(sql=f"SELECT 'a' AS id, {expression} AS x"), "results")
    assert store.kinds()["x"] is None
    assert _refused("data.column_unsupported", lambda: store.columns(["x"], _ids("a"))).facts["column"] == "x"


def test_types_say_what_a_column_is(make_home: Any) -> None:
    home = make_home(TYPES, dataset={"types": {"big": "category", "flag": "category", "word": "number"}})
    store = Store(home, "results")
    assert {name: store.kinds()[name] for name in ("big", "flag", "word")} == {
        "big": "category",
        "flag": "category",
        "word": "number",
    }
    (big,) = store.columns(["big"], _ids("a", "b"))
    assert (big.kind, big.values.tolist()) == ("category", ["20", "10"])
    assert (
        _refused("data.column_type", lambda: store.columns(["big", "word"], _ids("a", "b"))).facts["column"] == "word"
    )


@pytest.mark.parametrize("expression", ["DATE '2020-01-01'", "[1]", "'x'", "'1e'"])
def test_a_column_that_is_not_the_number_that_was_promised_is_named(make_home: Any, expression: str) -> None:
    home = make_home(
        sql=f"SELECT 'a' AS id, 1 AS y, {expression} AS x", dataset={"types": {"x": "number", "y": "number"}}
    )
    assert _refused("data.column_type", lambda: Store(home, "results").columns(["y", "x"], _ids("a"))).facts == {
        "party": "lab",
        "dataset": "results",
        "column": "x",
    }


def test_text_that_holds_numbers_may_be_promised_as_a_number(make_home: Any) -> None:
    home = make_home(sql="SELECT 'a' AS id, ' 1.5 ' AS x", dataset={"types": {"x": "number"}})
    assert Store(home, "results").columns(["x"], _ids("a"))[0].values.tolist() == [1.5]


def test_a_column_without_any_value_is_refused(make_home: Any) -> None:
    for value in ("NULL::DOUBLE", "NULL::VARCHAR", "'nan'::DOUBLE", "'inf'::DOUBLE"):
        store = Store(make_home(sql=f"SELECT 'a' AS id, {value} AS x"), "results")
        assert _refused("data.column_empty", lambda: store.columns(["x"], _ids("a"))).facts["column"] == "x"  # noqa: B023


def test_a_column_that_is_not_there_is_named(make_home: Any) -> None:
    store = Store(make_home(TYPES), "results")
    for name in ("nowhere", "TINY", "*", "tiny, word", 'tiny" --'):
        assert _refused("data.column_unknown", lambda: store.columns([name], _ids("a"))).facts["column"] == name  # noqa: B023
    _refused("data.column_unknown", lambda: store.label("nowhere", _ids("a")))


NAMES = [
    "id", "place", "position", "c0", "theirs", "dataset", "isthmus_wanted", "isthmus_row_id", "isthmus_position",
    "SELECT", "Upper Case", 'quote"d', "o'clock", "ü", "名前", "a.b", "; --", " ", "%s", "?", "$1", "row_id", "found",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_have_any_name(make_home: Any, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    table = f"CREATE TABLE t AS SELECT 'r' || range AS key, 2 - range AS {quoted}, range % 2 AS other FROM range(3)"
    store = Store(make_home(table, row_id="key", dataset={"identifiers": {"a": name}}), "results")
    order = _ids("r2", "r0", "r1")
    one, other = store.columns([name, "other"], order)
    assert (one.name, one.values.tolist(), other.values.tolist()) == (name, [0, 2, 1], [0, 0, 1])
    assert store.identifiers(["a"], order)["a"].columns[0].tolist() == ["0", "2", "1"]
    assert store.label("other", order).tolist() == [0, 0, 1]


def test_a_row_id_may_have_any_name_and_is_found_whatever_its_case(make_home: Any) -> None:
    for name, quoted in (("ID", "id"), ('quote"d', '"quote""d"'), ("place", "place")):
        home = make_home(sql=f"SELECT 'a' AS {quoted}, 1 AS x", row_id=name)
        assert Store(home, "results").row_ids().tolist() == ["a"]


# --- row ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "count"), [("('a'), ('a')", 1), ("('a'), (NULL)", 1), ("(1), (1), (1), (NULL)", 3)])
def test_row_ids_are_unique_and_never_null(make_home: Any, values: str, count: int) -> None:
    home = make_home(f"CREATE TABLE t AS SELECT * FROM (VALUES {values}) AS rows (id)")
    assert _refused("data.row_id", Store(home, "results").row_ids).facts["count"] == count


def test_a_dataset_without_rows_is_empty(make_home: Any) -> None:
    _refused("data.empty", Store(make_home(sql="SELECT 1 AS id WHERE false"), "results").row_ids)


def test_a_row_id_or_identifier_that_is_not_there_is_named(make_home: Any) -> None:
    home = make_home(sql="SELECT 1 AS x", dataset={"identifiers": {"national_id": "ssn"}})
    assert _refused("data.column_unknown", Store(home, "results").row_ids).facts["column"] == "id"
    store = Store(make_home(sql="SELECT 1 AS id", dataset={"identifiers": {"national_id": "ssn"}}), "results")
    assert (
        _refused("data.column_unknown", lambda: store.identifiers(["national_id"], _ids("1"))).facts["column"] == "ssn"
    )
    assert _refused("data.identifier_unknown", lambda: store.identifiers(["x"], _ids("1"))).facts["identifier"] == "x"


def test_rows_that_are_gone_or_repeated_by_now_are_a_change(make_home: Any) -> None:
    store = Store(make_home(TYPES), "results")
    _refused("data.changed", lambda: store.columns(["big"], _ids("a", "z")))
    _refused("data.changed", lambda: store.label("died", _ids("a", "b", "z")))
    twice = Store(make_home(sql="SELECT unnest(['a', 'a', 'c']) AS id, 1 AS x"), "results")
    _refused("data.changed", lambda: twice.columns(["x"], _ids("a", "c")))
    _refused("data.changed", lambda: twice.columns(["x"], _ids("a", "b")))  # as many rows as were asked for


def test_identifiers_are_text_in_the_order_that_was_asked_for(make_home: Any) -> None:
    home = make_home(
        "CREATE TABLE t AS SELECT 1 AS id, 'Ann' AS g, 'Lee' AS s, DATE '1990-02-03' AS born "
        "UNION ALL SELECT 2, NULL, 'Ox', NULL",
        dataset={
            "identifiers": {"names": ["g", "s"], "birth_date": {"column": "born", "format": "%Y-%m-%d"}, "id": "id"}
        },
    )
    found = Store(home, "results").identifiers(["birth_date", "names", "id"], _ids("2", "1"))
    assert list(found) == ["birth_date", "names", "id"]
    assert [values.tolist() for values in found["names"].columns] == [[None, "Ann"], ["Ox", "Lee"]]
    assert (found["birth_date"].columns[0].tolist(), found["birth_date"].date_format) == (
        [None, "1990-02-03"],
        "%Y-%m-%d",
    )
    assert (found["id"].columns[0].tolist(), found["id"].date_format) == (["2", "1"], None)


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["INTEGER", "DOUBLE", "BOOLEAN", "DECIMAL(3, 1)"])
def test_a_label_is_0_and_1(make_home: Any, kind: str) -> None:
    label = Store(make_home(TYPES, sql=f"SELECT id, died::{kind} AS died FROM t"), "results").label(
        "died", _ids("b", "a", "c")
    )
    assert (label.dtype, label.tolist()) == (np.float32, [1, 0, 1])


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("nullif(died, 1)", "data.label_missing"),
        ("if(died = 1, 'inf'::DOUBLE, 0)", "data.label_missing"),
        ("1", "data.label_constant"),
        ("0", "data.label_constant"),
        ("died + 1", "data.label_not_binary"),
        ("died * 0.5", "data.label_not_binary"),
        ("died - 1", "data.label_not_binary"),
        ("if(died = 1, 'yes', 'no')", "data.label_not_binary"),
        ("died::VARCHAR", "data.label_not_binary"),
        ("DATE '2020-01-01'", "data.label_not_binary"),
    ],
)
def test_a_label_that_cannot_be_one_is_refused(make_home: Any, expression: str, code: str) -> None:
    store = Store(make_home(TYPES, sql=f"SELECT id, {expression} AS died FROM t"), "results")
    error = _refused(code, lambda: store.label("died", _ids("a", "b", "c")))
    assert error.facts["column"] == "died"
    assert error.facts.get("count", 2) == 2


def test_a_label_that_was_promised_as_a_number_and_is_text_is_not_binary(make_home: Any) -> None:
    home = make_home(
        sql="SELECT unnest(['a', 'b']) AS id, unnest(['yes', 'no']) AS died", dataset={"types": {"died": "number"}}
    )
    _refused("data.label_not_binary", lambda: Store(home, "results").label("died", _ids("a", "b")))


# --- what the SQL can never do ---------------------------------------------------------------------------------------

GOOD_SQL = [
    "SELECT * FROM t",
    "  SELECT * FROM t ; ",
    "SELECT * FROM t;;",
    "SELECT * FROM t -- end",
    "SELECT * FROM t; -- end",
    "SELECT * FROM t /* ; */ ; /* end */ -- ;\n;",
    "-- first\nSELECT * FROM t",
    "SELECT *, '; -- no end' AS x FROM t",
    'SELECT *, 1 AS "; --" FROM t',
    "SELECT *, $$; --$$ AS x, 'ü' AS y FROM t; -- ü",
    "FROM t",
    "WITH a AS (SELECT * FROM t) FROM a",
    "SELECT * FROM t UNION ALL BY NAME SELECT * FROM t WHERE false",
    "SELECT * FROM t ORDER BY id LIMIT 3",
    "TABLE t",
]


@pytest.mark.parametrize("sql", GOOD_SQL)
def test_a_query_may_end_and_begin_as_people_write_it(make_home: Any, sql: str) -> None:
    assert Store(make_home(TYPES, sql=sql), "results").row_ids().tolist() == ["a", "b", "c"]


BAD_SQL = [
    "",
    "-- nothing",
    ";",
    "SELEC * FROM t",
    "SELECT * FROM nowhere",
    "SELECT * FROM planted",
    "SELECT * FROM t; SELECT * FROM t",
    "SELECT * FROM t; DROP TABLE t",
    "SELECT * FROM t) AS d; COPY t TO 'stolen.csv'; SELECT * FROM (SELECT * FROM t",
    "SELECT * FROM t) AS d; CREATE TABLE u (i INTEGER); SELECT * FROM (SELECT * FROM t",
    "SELECT * FROM t) --",
    "SELECT * FROM t /*",
    "COPY t TO 'stolen.csv'",
    "COPY (SELECT * FROM t) TO 'stolen.csv'",
    "EXPORT DATABASE 'stolen'",
    "ATTACH 'other.duckdb' AS other",
    "CREATE TABLE u AS SELECT 1 AS id",
    "CREATE TEMP TABLE u AS SELECT 1 AS id",
    "INSERT INTO t (id) VALUES ('z')",
    "INSERT INTO t (id) VALUES ('z') RETURNING id",
    "WITH x AS (INSERT INTO t (id) VALUES ('z') RETURNING id) SELECT * FROM x",
    "DELETE FROM t",
    "UPDATE t SET id = 'z'",
    "DROP TABLE t",
    "SET memory_limit = '1GB'",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CHECKPOINT",
    "VACUUM",
    "EXPLAIN SELECT * FROM t",
    "SELECT * FROM query('COPY t TO ''stolen.csv''')",
]


@pytest.mark.parametrize("sql", BAD_SQL)
def test_what_is_not_one_query_is_refused_and_changes_nothing(make_home: Any, sql: str) -> None:
    home = make_home(TYPES, sql=sql)
    before = {path: path.read_bytes() for path in home.folder.iterdir()}
    store = Store(home, "results")
    for call in (store.kinds, store.row_ids):
        error = _refused("data.sql", call)
        assert "planted" not in error.text()
        assert error.facts == {"party": "lab", "dataset": "results"}
    assert {path: path.read_bytes() for path in home.folder.iterdir()} == before
    assert not Path("stolen.csv").exists()


@pytest.mark.parametrize("sql", ["SELECT 'PLANTED'::INTEGER AS id", "SELECT error('PLANTED') AS id"])
def test_duckdbs_own_words_stay_in_the_detail(make_home: Any, sql: str) -> None:
    error = _refused("data.sql", Store(make_home(sql=sql), "results").row_ids)
    assert "PLANTED" in error.detail
    assert "PLANTED" not in error.text()


def test_only_the_columns_that_are_asked_for_are_evaluated(make_home: Any) -> None:
    secret = "CASE WHEN big > 0 THEN error('touched') ELSE 'x' END"
    home = make_home(
        TYPES,
        sql=f"SELECT id, big, died, word, {secret} AS postcode FROM t",
        dataset={"identifiers": {"national_id": "word", "address": "postcode"}},
    )
    store = Store(home, "results")
    store.kinds()
    ids = store.row_ids()
    store.columns(["big"], ids)
    store.label("died", ids)
    store.identifiers(["national_id"], ids)
    for call in (lambda: store.columns(["big", "postcode"], ids), lambda: store.identifiers(["address"], ids)):
        assert "touched" in _refused("data.sql", call).detail


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV and a Parquet file at home, and others of the same names where the process runs."""
    elsewhere = tmp_path / "elsewhere"
    for folder, value in ((tmp_path / "lab", 1), (elsewhere, 2)):
        (folder / "deep").mkdir(parents=True)
        (folder / "rows.csv").write_text(f"id,x\na,{value}\n")
        duckdb.sql(f"SELECT 'a' AS id, {value} AS x").write_parquet(str(folder / "deep" / "rows.parquet"))
    monkeypatch.chdir(elsewhere)
    return elsewhere


@pytest.mark.parametrize(
    "source",
    ["'rows.csv'", "read_csv('rows.csv')", "'./rows.csv'", "'deep/rows.parquet'", "read_parquet('deep/*.parquet')",
     "'../lab/rows.csv'"],
)  # fmt: skip
@pytest.mark.parametrize("data", [True, False])
def test_files_are_named_relative_to_the_home_wherever_the_process_runs(
    make_home: Any, files: Path, source: str, data: bool
) -> None:
    home = make_home(*([TYPES] if data else []), sql=f"SELECT * FROM {source}")
    assert Store(home, "results").columns(["x"], _ids("a"))[0].values.tolist() == [1]
    assert Path.cwd() == files


def test_an_attached_database_is_read_and_never_written(make_home: Any, files: Path) -> None:
    with duckdb.connect(files.parent / "lab" / "old.duckdb") as connection:
        connection.execute("CREATE TABLE archive AS SELECT 'a' AS id, 5 AS x")
    home = make_home(TYPES, sql="SELECT t.id, x FROM t JOIN old.archive USING (id)", attach={"old": "old.duckdb"})
    assert Store(home, "results").columns(["x"], _ids("a"))[0].values.tolist() == [5]
    home = make_home(sql="INSERT INTO old.archive VALUES ('b', 6) RETURNING *", attach={"old": "old.duckdb"})
    _refused("data.sql", Store(home, "results").row_ids)
    home = make_home(sql='FROM "select".archive', attach={"select": "old.duckdb"})
    assert Store(home, "results").row_ids().tolist() == ["a"]


def test_an_attached_database_that_is_not_there_is_said_and_not_made(make_home: Any) -> None:
    home = make_home(sql="SELECT 1 AS id", attach={"old": "old.duckdb"})
    assert "old.duckdb" in _refused("data.sql", Store(home, "results").row_ids).detail
    assert not (home.folder / "old.duckdb").exists()


def test_a_data_file_that_is_not_there_is_said_and_not_made(make_home: Any) -> None:
    home = make_home(data="nowhere.duckdb")
    _refused("data.file_missing", Store(home, "results").row_ids)
    assert not (home.folder / "nowhere.duckdb").exists()


@pytest.mark.parametrize("content", [b"", b"locked? no: nonsense", bytes(5000)])
def test_a_file_that_is_no_database_is_said_even_where_its_path_speaks_of_locks(make_home: Any, content: bytes) -> None:
    home = make_home(data="blocked.duckdb")
    (home.folder / "blocked.duckdb").write_bytes(content)
    _refused("data.file_invalid", Store(home, "results").row_ids)
    assert (home.folder / "blocked.duckdb").read_bytes() == content


def test_a_file_that_another_process_writes_is_locked_and_can_be_read_when_that_has_ended(make_home: Any) -> None:
    home = make_home(TYPES)
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home.data_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        _refused("data.locked", Store(home, "results").row_ids)
        attached = make_home(sql="FROM data.t", attach={"data": "lab.duckdb"}, data=None)
        _refused("data.locked", Store(attached, "results").row_ids)
        writer.communicate()
    assert Store(home, "results").row_ids().tolist() == ["a", "b", "c"]


def test_what_a_killed_writer_left_behind_is_read_and_left_alone(make_home: Any) -> None:
    home = make_home(TYPES)
    program = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('SET wal_autocheckpoint = \"1GB\"')\n"
        "c.execute('DELETE FROM t WHERE id = ?', ['b']); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(home.data_file)])
    before = {path.name: path.read_bytes() for path in home.folder.iterdir()}
    assert "lab.duckdb.wal" in before
    assert Store(home, "results").row_ids().tolist() == ["a", "c"]
    assert {path.name: path.read_bytes() for path in home.folder.iterdir()} == before


def test_many_threads_may_read_at_once(make_home: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    home, found = make_home(TYPES), []
    threads = [
        threading.Thread(target=lambda: found.append(Store(home, "results").row_ids().tolist())) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["a", "b", "c"]] * 6
    assert Path.cwd() == tmp_path


def test_an_error_leaves_no_connection_open(make_home: Any) -> None:
    home = make_home(TYPES, sql="SELECT * FROM nowhere")
    _refused("data.sql", Store(home, "results").row_ids)
    with duckdb.connect(home.data_file) as connection:  # read-write: nobody may hold it
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)
    assert not list(home.folder.glob("*.tmp"))
    assert os.access(home.folder, os.W_OK)


def test_an_unknown_dataset_is_named(home: PartyHome) -> None:
    assert _refused("data.dataset_unknown", lambda: Store(home, "rows")).facts["dataset"] == "rows"


def test_the_digest_of_the_sql_changes_with_the_sql(make_home: Any) -> None:
    digests = {Store(make_home(sql=sql), "results").sql_digest for sql in ("SELECT 1 AS id", "SELECT 2 AS id")}
    assert len(digests) == 2


def test_the_homes_in_this_file_are_plain_yaml(make_home: Any) -> None:
    home = make_home(sql="SELECT 'ü' AS id")
    assert yaml.safe_load((home.folder / "party.yaml").read_text(encoding="utf-8"))["name"] == "lab"
    assert Store(home, "results").row_ids().tolist() == ["ü"]
