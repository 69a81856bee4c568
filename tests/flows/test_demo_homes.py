"""The demo's homes: who holds whom, what their policies say, and what is never overwritten."""

import os
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
import yaml

from isthmus.flows.demo import demo_job, job_text, make_homes, transfer_text, true_persons
from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_homes(folder)
    return folder


def persons(homes: Path, party: str) -> dict[str, int]:
    found = true_persons(PartyHome(homes / party))
    assert found is not None
    return found


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_each_party_holds_4250_persons_and_they_share_3500(homes: Path) -> None:
    lab, insurer = (set(persons(homes, party).values()) for party in ("lab", "insurer"))
    assert (len(lab), len(insurer), len(lab & insurer)) == (4_250, 4_250, 3_500)


@pytest.mark.parametrize("party", ["lab", "insurer"])
def test_the_truth_knows_every_row_and_no_dataset_selects_it(homes: Path, party: str) -> None:
    home = PartyHome(homes / party)
    store = Store(home, demo_job().party(party).dataset)
    assert set(store.row_ids().tolist()) == set(persons(homes, party))
    assert "person" not in store.kinds()


def test_the_numbering_of_a_party_says_nothing_about_the_person(homes: Path) -> None:
    lab = persons(homes, "lab")
    in_order = [lab[row] for row in sorted(lab, key=int)]
    rising = sum(later > earlier for earlier, later in pairwise(in_order))
    assert 0.45 < rising / len(in_order) < 0.55


@pytest.mark.parametrize(("party", "columns"), [("lab", 15), ("insurer", 11)])
def test_a_demo_party_allows_the_demo_job(homes: Path, party: str, columns: int) -> None:
    grant = PartyHome(homes / party).config.policy.check(demo_job().terms(party))
    assert len(grant.columns) == columns
    assert grant.at_least == 100


def test_the_store_reads_every_column_and_linkage_field_of_the_demo_job(homes: Path) -> None:
    job = demo_job()
    for party in ("lab", "insurer"):
        home = PartyHome(homes / party)
        store = Store(home, job.party(party).dataset)
        some = store.row_ids()[:200]
        columns = store.columns(home.config.policy.check(job.terms(party)).columns, some)
        fields = store.identifiers(sorted({name for key in job.align.passes for name in key}), some)
        assert all(len(column.values) == 200 for column in columns)
        assert fields["birth_date"].date_format == "%Y%m%d"
        assert len(fields["names"].columns) == 2


def test_the_insurers_records_are_mistyped_copies_of_the_labs(homes: Path) -> None:
    ids = {}
    for party, table in (("lab", "patients"), ("insurer", "members")):
        with duckdb.connect(homes / party / f"{party}.duckdb", read_only=True) as connection:
            rows = connection.table(table).join(connection.table("truth"), "id").select("person", "soc_sec_id")
            ids[party] = dict(rows.fetchall())
    shared = ids["lab"].keys() & ids["insurer"].keys()
    assert 0.85 < sum(ids["lab"][person] == ids["insurer"][person] for person in shared) / len(shared) < 0.97


def test_the_example_the_demos_copy_and_the_demo_job_are_the_same(homes: Path) -> None:
    example = (ROOT / "examples" / "vertical.yaml").read_text()
    assert example == job_text() == (homes / "vertical.yaml").read_text()
    assert VerticalJob.from_file(homes / "vertical.yaml") == demo_job()


def test_epochs_and_seed_can_be_chosen_without_touching_the_file() -> None:
    job = demo_job(epochs=2, seed=99)
    assert (job.training.epochs, job.training.seed) == (2, 99)
    assert job.training.batch_size == demo_job().training.batch_size


def test_a_smaller_demo_keeps_the_shares_and_lowers_the_floor(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=400)
    lab, insurer = (set(persons(tmp_path, party).values()) for party in ("lab", "insurer"))
    assert (len(lab), len(insurer), len(lab & insurer)) == (340, 340, 280)
    policy = PartyHome(tmp_path / "lab").config.policy
    assert policy.check(demo_job(400).terms("lab")).at_least == 8


@pytest.mark.parametrize("patients", [0, 99, 5_001])
def test_an_impossible_number_of_patients_is_refused_in_words(tmp_path: Path, patients: int) -> None:
    with pytest.raises(InputError, match="100 to 5000 patients"):
        make_homes(tmp_path, patients=patients)
    assert not any(tmp_path.iterdir())


def test_a_home_and_its_rules_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_homes(tmp_path, patients=200)
    finally:
        os.umask(before)
    for party in ("lab", "insurer", "clinic"):
        assert stat.S_IMODE((tmp_path / party).stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / party / "party.yaml").stat().st_mode) == 0o600


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=100)
    (tmp_path / "lab" / "state.duckdb").write_text("an earlier run")
    before = files(tmp_path)
    make_homes(tmp_path, patients=100)
    assert files(tmp_path) == before


def test_another_size_makes_new_rows_and_keeps_the_partys_state(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=100)
    (tmp_path / "lab" / "state.duckdb").write_text("an earlier run")
    make_homes(tmp_path, patients=200)
    assert len(persons(tmp_path, "lab")) == 170
    assert (tmp_path / "lab" / "state.duckdb").read_text() == "an earlier run"


def test_what_somebody_edited_is_kept(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=100)
    for file in (tmp_path / "lab" / "party.yaml", tmp_path / "vertical.yaml"):
        file.write_text(file.read_text() + "# my own words\n")
    make_homes(tmp_path, patients=200)
    assert (tmp_path / "lab" / "party.yaml").read_text().endswith("# my own words\n")
    assert (tmp_path / "vertical.yaml").read_text().endswith("# my own words\n")


def test_a_home_that_the_demo_did_not_make_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "lab" / "party.yaml"
    own.parent.mkdir()
    own.write_text("name: lab\n")
    with pytest.raises(InputError, match="was not made by the demo"):
        make_homes(tmp_path, patients=100)
    assert own.read_text() == "name: lab\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["lab", "party.yaml"]


def test_a_home_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=100)
    (tmp_path / "lab" / "lab.duckdb").unlink()
    (tmp_path / "lab" / "lab.tmp").write_text("half a file")
    make_homes(tmp_path, patients=100)
    assert len(persons(tmp_path, "lab")) == 85


def test_the_folders_path_may_hold_a_quote(tmp_path: Path) -> None:
    make_homes(tmp_path / "Anna's $demo", patients=100)
    assert len(persons(tmp_path / "Anna's $demo", "insurer")) == 85


def test_a_real_home_has_no_truth(homes: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((homes / "lab" / "party.yaml").read_text())
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "party.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "lab" / "lab.duckdb").write_bytes((homes / "lab" / "lab.duckdb").read_bytes())
    assert true_persons(PartyHome(tmp_path / "lab")) is None


def test_making_the_homes_imports_neither_prefect_nor_torch() -> None:
    code = "import sys, isthmus.flows.demo; print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_example_of_a_transfer_is_the_demos_job(homes: Path) -> None:
    assert (ROOT / "examples" / "transfer.yaml").read_text() == transfer_text() == (homes / "transfer.yaml").read_text()
