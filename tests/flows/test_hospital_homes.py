"""The five hospitals' homes: who is where, what their policies say, who knows whose key, what is never overwritten."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml

from isthmus.flows.hospitals import (
    COORDINATOR,
    FINETUNE_JOB,
    HOSPITALS,
    HOSPITALS_JOB,
    MEMBERS,
    STATISTICS_JOB,
    make_hospitals,
)
from isthmus.flows.kinds.finetune.job import FinetuneJob
from isthmus.flows.kinds.horizontal.job import HorizontalJob
from isthmus.flows.kinds.star import StarJob
from isthmus.flows.kinds.statistics.job import StatisticsJob
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.store import Store

ROOT = Path(__file__).parents[2]
PARQUET = ROOT / "flows" / "data" / "support2.parquet"
OURS = ("id", "admitted_week", "region")
# By hand from the docstring of flows/hospitals.py, which the README of the data repeats.
SAID = {
    "north": (1_727, 57.8, 31.1),
    "south": (1_326, 62.5, 13.8),
    "east": (821, 62.5, 12.5),
    "west": (599, 58.5, 52.3),
    "central": (527, 81.6, 29.8),
}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    make_hospitals(folder)
    return folder


def rows(homes: Path, query: str) -> list[Any]:
    """Of all hospitals' patients together, beside the name of the hospital."""
    with duckdb.connect() as connection:
        for name in HOSPITALS:
            path = str(homes / name / f"{name}.duckdb").replace("'", "''")
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")
        every = " UNION ALL ".join(f"SELECT '{name}' AS hospital, * FROM {name}.patients" for name in HOSPITALS)
        return connection.execute(f"WITH patients AS ({every}) {query}").fetchall()


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_every_patient_of_support2_is_in_exactly_one_hospital(homes: Path) -> None:
    with duckdb.connect(homes / "north" / "north.duckdb", read_only=True) as connection:
        columns = [row[0] for row in connection.execute("DESCRIBE patients").fetchall() if row[0] not in OURS]
    chosen = ", ".join(columns)
    there = rows(homes, f"SELECT {chosen} FROM patients ORDER BY ALL")
    with duckdb.connect() as connection:
        assert there == connection.execute(f"SELECT {chosen} FROM '{PARQUET}' ORDER BY ALL").fetchall()
        known = {row[0] for row in connection.execute(f"DESCRIBE FROM '{PARQUET}'").fetchall()}
    assert known - set(columns) == {"person"}


def test_the_hospitals_differ_in_size_age_and_outcome_as_their_description_says(homes: Path) -> None:
    found = rows(
        homes, "SELECT hospital, count(*), round(avg(age), 1), round(100 * avg(hospdead), 1) FROM patients GROUP BY 1"
    )
    assert {name: tuple(said) for name, *said in found} == SAID
    for text in ((ROOT / "flows" / "hospitals.py").read_text(), (PARQUET.parent / "README.md").read_text()):
        assert all(f"{count:,}" in text and f"{dead} %" in text for count, _, dead in SAID.values())


def test_every_disease_occurs_in_every_hospital_and_four_in_five_patients_where_it_belongs(homes: Path) -> None:
    found = rows(homes, "SELECT DISTINCT hospital, dzgroup FROM patients")
    assert len(found) == 5 * 8
    rule = """CASE WHEN age >= 80 THEN 'central' WHEN dzgroup = 'ARF/MOSF w/Sepsis' THEN 'north'
              WHEN dzclass = 'COPD/CHF/Cirrhosis' THEN 'south' WHEN dzclass = 'Cancer' THEN 'east' ELSE 'west' END"""
    [(share,)] = rows(homes, f"SELECT avg((hospital = {rule})::INT) FROM patients")
    assert 0.82 < share < 0.87  # 80 %, and those of the other 20 % whom chance left where they belong


def test_weeks_and_regions_are_uneven_and_know_nothing_of_the_patient(homes: Path) -> None:
    weeks = dict(rows(homes, "SELECT admitted_week, count(*) FROM patients GROUP BY 1"))
    assert sorted(weeks) == list(range(1, 53))
    winter = [count for week, count in weeks.items() if week < 10 or week > 43]
    summer = [count for week, count in weeks.items() if 10 <= week <= 43]
    assert 1.35 < np.mean(winter) / np.mean(summer) < 1.65
    regions = dict(rows(homes, "SELECT region, round(avg(hospdead), 2) FROM patients GROUP BY 1"))
    assert set(regions) == {"coast", "valley", "hills", "island"}
    assert all(abs(rate - 0.26) < 0.05 for rate in regions.values())


def test_some_week_and_region_has_fewer_patients_than_the_statistics_job_may_tell(homes: Path) -> None:
    cells = rows(homes, "SELECT count(*) FROM patients GROUP BY admitted_week, region")
    small = [count for (count,) in cells if count < yaml.safe_load(STATISTICS_JOB)["at_least"]]
    assert 0 < len(small) < len(cells) / 2


def test_the_numbering_of_a_hospital_says_nothing_about_the_patient(homes: Path) -> None:
    ages = [age for (age,) in rows(homes, "SELECT age FROM patients WHERE hospital = 'north' ORDER BY id")]
    rising = sum(later > earlier for earlier, later in pairwise(ages))
    assert 0.45 < rising / len(ages) < 0.55


@pytest.mark.parametrize("name", HOSPITALS)
def test_the_store_reads_every_column_of_the_jobs_in_the_kind_and_levels_they_name(homes: Path, name: str) -> None:
    home = PartyHome(homes / name)
    store = Store(home, "admissions")
    ids = store.row_ids()
    released = home.config.policy.release["admissions"]
    for text in (HOSPITALS_JOB, STATISTICS_JOB):
        specs = {spec["name"]: spec for spec in yaml.safe_load(text)["columns"]}
        assert set(specs) <= set(released.columns)
        for column in store.columns(list(specs), ids):
            spec = specs[column.name]
            assert column.kind == spec["kind"]
            if column.kind == "category":
                assert {value for value in column.values if value is not None} <= set(spec["levels"])
    assert set(np.unique(store.label("hospdead", ids)).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("kind", "text"), [(HorizontalJob, HOSPITALS_JOB), (StatisticsJob, STATISTICS_JOB)])
def test_every_member_allows_the_jobs_above_groups_of_ten(homes: Path, kind: type[StarJob], text: str) -> None:
    job = kind.model_validate(yaml.safe_load(text))
    assert job.members == MEMBERS
    for name in MEMBERS:
        grant = PartyHome(homes / name).config.policy.check(job.terms(name))
        assert grant.columns == (() if name == COORDINATOR else tuple(column.name for column in job.columns))
        assert grant.cohort == (1 if name == COORDINATOR else 10)


@pytest.mark.parametrize("name", HOSPITALS)
def test_every_hospital_may_tune_the_common_model_and_the_coordinator_may_not(homes: Path, name: str) -> None:
    content = yaml.safe_load(FINETUNE_JOB)
    job = FinetuneJob.model_validate({**content, "party": {**content["party"], "name": name}})
    grant = PartyHome(homes / name).config.policy.check(job.terms(name))
    assert (grant.columns, grant.cohort) == (job.columns, 10)
    assert "finetune" not in PartyHome(homes / COORDINATOR).config.policy.kinds


def test_what_tells_the_outcome_is_released_as_a_label_only(homes: Path) -> None:
    for name in HOSPITALS:
        release = PartyHome(homes / name).config.policy.release["admissions"]
        assert set(release.labels) == {"hospdead", "d_time", "death"}
        assert not set(release.columns) & {"hospdead", "d_time", "death", "race", "income", "edu", "id"}


def test_every_hospital_declares_the_units_that_the_jobs_name(homes: Path) -> None:
    named = {
        spec["name"]: spec["unit"]
        for text in (HOSPITALS_JOB, STATISTICS_JOB)
        for spec in yaml.safe_load(text)["columns"]
        if "unit" in spec
    }
    for name in HOSPITALS:
        assert PartyHome(homes / name).config.datasets["admissions"].units == named


def test_the_coordinator_has_a_home_without_data_or_release(homes: Path) -> None:
    home = PartyHome(homes / COORDINATOR)
    assert home.data_file is None
    assert not home.config.datasets
    assert not home.config.policy.release


def test_every_member_knows_every_members_key(homes: Path) -> None:
    public = {name: Identity(PartyHome(homes / name)).public.hex() for name in MEMBERS}
    assert len(set(public.values())) == 6
    for name in MEMBERS:
        config = PartyHome(homes / name).config
        assert config.keys == public
        assert set(config.policy.peers) == set(MEMBERS) - {name}


@pytest.mark.parametrize(
    ("file", "text"),
    [("hospitals.yaml", HOSPITALS_JOB), ("statistics.yaml", STATISTICS_JOB), ("finetune.yaml", FINETUNE_JOB)],
    ids=lambda value: value[:9],
)
def test_the_example_and_the_folders_copy_are_the_same(homes: Path, file: str, text: str) -> None:
    assert (ROOT / "examples" / file).read_text() == text == (homes / file).read_text()


def test_fewer_patients_keep_the_arrangement(tmp_path: Path) -> None:
    make_hospitals(tmp_path, patients=500)
    sizes = dict(rows(tmp_path, "SELECT hospital, count(*) FROM patients GROUP BY 1"))
    assert sum(sizes.values()) == 500
    assert all(abs(sizes[name] / 500 - said / 5_000) < 0.05 for name, (said, *_) in SAID.items())


@pytest.mark.parametrize("patients", [0, 249, 5_001])
def test_an_impossible_number_of_patients_is_refused_in_words(tmp_path: Path, patients: int) -> None:
    with pytest.raises(InputError, match="250 to 5000 patients"):
        make_hospitals(tmp_path, patients=patients)
    assert not any(tmp_path.iterdir())


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    make_hospitals(tmp_path, patients=250)
    (tmp_path / "north" / "state.duckdb").write_text("an earlier run")
    before = files(tmp_path)
    make_hospitals(tmp_path, patients=250)
    assert files(tmp_path) == before


def test_another_size_makes_new_rows_and_keeps_keys_and_state(tmp_path: Path) -> None:
    make_hospitals(tmp_path, patients=250)
    (tmp_path / "north" / "state.duckdb").write_text("an earlier run")
    key = Identity(PartyHome(tmp_path / "north")).public
    make_hospitals(tmp_path, patients=300)
    assert rows(tmp_path, "SELECT count(*) FROM patients") == [(300,)]
    assert (tmp_path / "north" / "state.duckdb").read_text() == "an earlier run"
    assert Identity(PartyHome(tmp_path / "north")).public == key


def test_what_somebody_edited_is_kept(tmp_path: Path) -> None:
    make_hospitals(tmp_path, patients=250)
    edited = [tmp_path / "north" / "party.yaml", tmp_path / COORDINATOR / "party.yaml", tmp_path / "hospitals.yaml"]
    for file in edited:
        file.write_text(file.read_text() + "# my own words\n")
    make_hospitals(tmp_path, patients=250, seed=2)
    assert all(file.read_text().endswith("# my own words\n") for file in edited)


def test_a_hospital_made_anew_is_known_to_the_others_by_its_new_key(tmp_path: Path) -> None:
    make_hospitals(tmp_path, patients=250)
    old = PartyHome(tmp_path / "south").config.keys["north"]
    (tmp_path / "north").rename(tmp_path / "gone")
    make_hospitals(tmp_path, patients=250)
    assert PartyHome(tmp_path / "south").config.keys["north"] not in ("", old)


@pytest.mark.parametrize("name", ["west", COORDINATOR])
def test_a_home_that_was_not_made_here_is_left_alone_and_no_other_is_made(tmp_path: Path, name: str) -> None:
    own = tmp_path / name / "party.yaml"
    own.parent.mkdir()
    own.write_text(f"name: {name}\n")
    with pytest.raises(InputError, match=f"the home of '{name}' was not made by"):
        make_hospitals(tmp_path, patients=250)
    assert own.read_text() == f"name: {name}\n"
    assert [path.name for path in tmp_path.rglob("*")] == [name, "party.yaml"]


@pytest.mark.parametrize("left", [(), (".isthmus-demo.json",), (".isthmus-demo.json", "north.tmp")])
def test_a_home_whose_making_was_cut_short_is_made_again(tmp_path: Path, left: tuple[str, ...]) -> None:
    make_hospitals(tmp_path / "whole", patients=250)
    (tmp_path / "cut" / "north").mkdir(parents=True)
    for file in left:
        (tmp_path / "cut" / "north" / file).write_text("{}")
    make_hospitals(tmp_path / "cut", patients=250)
    everybody = "SELECT * FROM patients ORDER BY ALL"
    assert rows(tmp_path / "cut", everybody) == rows(tmp_path / "whole", everybody)


def test_the_folders_path_may_hold_a_quote(tmp_path: Path) -> None:
    make_hospitals(tmp_path / "Anna's $homes", patients=250)
    assert rows(tmp_path / "Anna's $homes", "SELECT count(*) FROM patients") == [(250,)]


def test_making_the_homes_imports_neither_prefect_nor_torch() -> None:
    code = "import sys, isthmus.flows.hospitals; print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
