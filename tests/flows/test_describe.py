"""What a party hands over for a rehearsal: names and types of what its policy releases, and no value of a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from isthmus.flows.cli import main
from isthmus.flows.schema_of import DatasetShape, PartySchema, column_type, describe, read_schema, schema_text
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome

THOUSAND = {1: 1, 2: 10, 10: 10, 11: 100, 999: 1000, 1000: 1000, 1001: 10_000}


def _describe(world: Any, party: str = "lab", **told: bool) -> DatasetShape:
    (dataset,) = describe(PartyHome(world.homes / party), **told).datasets.values()
    return dataset


def _write(folder: Path, text: str) -> Path:
    path = folder / "lab.schema.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- what it holds ---------------------------------------------------------------------------------------------------


def test_it_holds_the_types_of_what_the_policy_releases_and_how_identifiers_are_written(world: Any) -> None:
    assert describe(PartyHome(world.homes / "insurer")).model_dump(mode="json", exclude_defaults=True) == {
        "party": "insurer",
        "datasets": {
            "members": {
                "columns": {"age": "number", "sex": "category"},
                "labels": {"died": "integer"},
                "identifiers": {"national_id": {}, "names": {"columns": 2}, "birth_date": {"format": "%Y%m%d"}},
            }
        },
    }


def test_it_holds_no_sql_no_path_no_value_and_no_column_that_is_not_released(world: Any) -> None:
    world.sql("lab", "CREATE TABLE planted AS SELECT *, 'SECRETLEVEL' AS hidden FROM t")
    world.sql("lab", "ALTER TABLE planted ALTER ward TYPE ENUM('SECRETENUM', 'high', 'low')")
    sql = "SELECT * FROM planted WHERE 'SECRETSQL' <> '' AND hidden <> 'SECRETFILTER'"
    world.edit_party("lab", lambda content: content["datasets"]["results"].update(sql=sql))
    text = schema_text(describe(PartyHome(world.homes / "lab")))
    assert "ward: category" in text
    for planted in ("SECRET", "planted", "hidden", "high", "duckdb", str(world.homes), "ssn", "born", "given", "died"):
        assert planted not in text


def test_it_reads_no_row(world: Any) -> None:
    # This SQL has types, and no row of it can be read.
    sql = "SELECT * REPLACE (CASE WHEN id <> '' THEN error('a row was read') ELSE ward END AS ward) FROM t"
    world.edit_party("lab", lambda content: content["datasets"]["results"].update(sql=sql))
    assert set(_describe(world).columns) == {"alb", "ward"}
    with pytest.raises(InputError, match=r"data\.sql"):
        _describe(world, levels=True)


def test_units_and_declared_types_are_those_of_the_partys_own_words(star: Any) -> None:
    star.edit_party("north", lambda content: content["datasets"]["stays"].update(types={"crea": "category"}))
    columns = _describe(star, "north").columns
    assert (columns["age"].unit, columns["crea"].type, columns["sex"].unit) == ("years", "category", None)


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("1::TINYINT", "integer"), ("1::UBIGINT", "integer"), ("1::HUGEINT", "integer"), ("1::INTEGER", "integer"),
        ("1::FLOAT", "number"), ("1::DOUBLE", "number"), ("1.5::DECIMAL(9, 2)", "number"), ("true", "boolean"),
        ("'x'", "category"), ("'x'::ENUM('x', 'y')", "category"), ("DATE '2020-01-01'", "date"),
        ("TIMESTAMP '2020-01-01 10:00:00'", "date"), ("now()", "date"), ("[1]", "other"), ("['x']", "other"),
        ("{'a': 1}", "other"), ("INTERVAL 1 DAY", "other"), ("'x'::BLOB", "other"), ("TIME '10:00:00'", "other"),
    ],
)  # fmt: skip
def test_a_type_of_duckdb_is_one_of_few_words(sql: str, word: str) -> None:
    ((_, name, *_),) = duckdb.sql(f"DESCRIBE SELECT {sql} AS x").fetchall()
    assert column_type(name) == word


# --- what only its engineer's word adds ------------------------------------------------------------------------------


def test_rows_are_told_as_the_next_power_of_ten_and_only_if_the_engineer_says_so(world: Any) -> None:
    told = {}
    for count in THOUSAND:
        sql = f"SELECT * REPLACE (i AS id) FROM t, range({count}) r(i) WHERE t.id = 'l0010'"
        world.edit_party("lab", lambda content, sql=sql: content["datasets"]["results"].update(sql=sql))
        told[count] = _describe(world, rows=True).rows
    assert told == THOUSAND
    assert _describe(world).rows is None


def test_levels_are_those_that_as_many_rows_have_as_the_higher_floor_says(world: Any) -> None:
    world.sql("lab", "UPDATE t SET ward = 'rare' WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 29)")
    release = {"at_least": 20, "cohort": 30}
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(release))
    assert _describe(world, levels=True).columns["ward"].levels == ("high", "low")
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(cohort=29))
    assert _describe(world, levels=True).columns["ward"].levels == ("high", "low", "rare")
    assert _describe(world).columns["ward"].levels == ()


def test_without_a_floor_no_level_is_told(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"].pop("at_least"))
    assert _describe(world, levels=True).columns["ward"].levels == ()


def test_a_category_without_any_value_has_no_levels(world: Any) -> None:
    world.sql("lab", "UPDATE t SET ward = NULL")
    assert _describe(world, levels=True).columns["ward"].levels == ()


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [{}, {"rows": True, "levels": True}])
@pytest.mark.parametrize("party", ["insurer", "lab"])
def test_what_is_written_is_what_is_read(world: Any, party: str, told: dict[str, bool], tmp_path: Path) -> None:
    schema = describe(PartyHome(world.homes / party), **told)
    path = tmp_path / "any.yaml"
    path.write_text(schema_text(schema))
    assert read_schema(path, party) == schema


def test_names_of_any_language_survive_the_file(tmp_path: Path) -> None:
    odd = {
        "no": "number",
        "Größe: 'x'\n\x1b[31m": {"type": "number", "unit": "1e3"},
        "2020-01-01": "date",
        "1": "date",
    }
    schema = PartySchema.model_validate({"party": "lab", "datasets": {"results": {"columns": odd}}})
    assert schema_text(schema).isascii() and "\x1b" not in schema_text(schema)
    assert read_schema(_write(tmp_path, schema_text(schema)), "lab") == schema


BAD = [
    ("party: clinic\ndatasets: {}", "another party"),
    ("party: lab", "missing"),
    ("party: lab\ndatasets: {results: {columns: {age: text}}}", "results.columns.age"),
    ("party: lab\ndatasets: {results: {columns: {age: number, AGE: number}}}", "same name"),
    ("party: lab\ndatasets: {results: {sql: SELECT 1}}", "no such field"),
    ("party: lab\ndatasets: [", "not YAML"),
    ("party: &a lab\ndatasets: {}", "anchors"),
    ("", "schema.invalid"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_file_that_is_no_schema_is_refused_where_it_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_schema(_write(tmp_path, text), "lab")
    assert caught.value.code == "schema.invalid"
    assert words in caught.value.text()
    assert "isthmus describe lab" in caught.value.next


def test_a_file_that_is_not_there_is_asked_for_by_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"schema\.missing") as caught:
        read_schema(tmp_path / "lab.schema.yaml", "lab")
    assert "isthmus describe lab --out lab.schema.yaml" in caught.value.next


def test_what_a_policy_releases_and_a_dataset_does_not_have_is_named(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"]["columns"].append("gone"))
    with pytest.raises(InputError, match="no column 'gone'"):
        _describe(world)
    world.edit_party("lab", lambda content: content["policy"].update(release={}))
    with pytest.raises(InputError, match=r"schema\.empty"):
        _describe(world)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_all_that_the_file_holds(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--json", "--with-rows", "--with-categories"]):
        with pytest.raises(SystemExit) as ended:
            main(["describe", "lab", "--homes", str(world.homes), *words])
        assert ended.value.code in (0, None)
        out, text = capsys.readouterr().out, (tmp_path / "lab.schema.yaml").read_text()
        if words:
            told = json.loads(out)["datasets"]["results"]
            assert (told["rows"], told["columns"]["ward"]["levels"]) == (1000, ["high", "low"])
            assert "by its engineer's leave about how many rows and levels of categories" in text
        else:
            assert text in out and "hand it over" in out
