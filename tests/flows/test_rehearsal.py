"""A job on synthetic rows: every kind of it, from schemas alone, without a look at a real row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.flows import running
from isthmus.flows.demo import make_homes as make_demo_homes
from isthmus.flows.jobs import load_job
from isthmus.flows.kinds import KINDS
from isthmus.flows.rehearsal import BANNER, Rehearsal, plan, rehearse_and_show
from isthmus.flows.rehearsal_homes import make_homes, shape_of
from isthmus.flows.rehearsal_needs import amended
from isthmus.flows.schema_of import PartySchema, describe, schema_text
from isthmus.parties.errors import InputError, IsthmusError, PolicyRefusal
from isthmus.parties.events import Chosen, Count, Finished, Metric, Phase
from isthmus.parties.home import PartyHome
from isthmus.parties.policy import Policy
from isthmus.parties.store import Store

from ..world import World
from .conftest import Server

ROOT = Path(__file__).parents[2]
FIXTURES = {
    "vertical": "world",
    "transfer": "transfer_world",
    "horizontal": "star",
    "statistics": "statistics_star",
    "finetune": "tuning",
}
FINETUNE = {
    "kind": "finetune",
    "name": "tune",
    "purpose": "testing",
    "party": {"name": "east", "dataset": "stays"},
    "columns": ["age", "crea", "sex"],
    "label": {"column": "died"},
    "model": {"kind": "network", "hidden": [8], "dropout": 0.2},
    "start": {"job": "star-job"},
    "tuning": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 4},
}


@pytest.fixture
def tuning(star: Any) -> Any:
    """A hospital that tunes a model of a training which is nowhere here."""
    star.job = FINETUNE
    star.edit_party("east", lambda content: content["policy"].update(kinds=["finetune"], max_epochs=10))
    return star


def _made(world: Any, *, rows: int = 150, overlap: float = 0.6, seed: int = 1, **options: Any) -> tuple[World, Any]:
    """The homes of a rehearsal, ready to run, and what was planned."""
    found = plan(world.load_job(), world.homes, rows=rows, overlap=overlap, runs=world.runs, **options)
    folder = world.folder / f"rehearsal {seed}"
    job, unlike = make_homes(folder / "homes", found.job, found.shapes, rows=rows, overlap=overlap, seed=seed)
    made = World(folder, job.canonical())
    return made, Rehearsal(job, found.shapes, (*found.notes, *unlike), found.needs, rows)


def _schemas(world: Any, *parties: str) -> Path:
    """Schema files of some parties, whose homes are gone."""
    folder = world.folder / "schemas"
    folder.mkdir(exist_ok=True)
    for party in parties:
        (folder / f"{party}.schema.yaml").write_text(schema_text(describe(PartyHome(world.homes / party))))
        (world.homes / party).rename(world.folder / f"{party} elsewhere")
    return folder


# --- every kind of job -----------------------------------------------------------------------------------------------


def test_every_kind_is_rehearsed_here() -> None:
    assert set(FIXTURES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_every_kind_runs_to_its_end_on_synthetic_rows(kind: str, request: pytest.FixtureRequest) -> None:
    made, found = _made(request.getfixturevalue(FIXTURES[kind]))
    journal = made.run_inside(found.job.run_name(1))
    ended = {party for party, event in journal.of(Finished) if event.phase is Phase.CLOSE}
    assert ended == set(found.job.members)
    assert {event.value for party, event in journal.of(Count) if event.name == "rows"} == {150}
    assert [note for note in found.notes if "made up" in note] == (
        ["the model to start from is made up and untrained: the real one is not looked for"]
        if kind == "finetune"
        else []
    )
    if kind == "finetune":
        assert len(list(journal.of(Chosen))) == 1


def test_a_model_finds_something_to_learn_and_more_with_the_columns_of_others(world: Any) -> None:
    world.job["training"] |= {"epochs": 20, "patience": 20}
    made, found = _made(world, rows=500)
    journal = made.run_inside(found.job.run_name(1))
    aucs = [event.value for _, event in journal.of(Metric) if (event.name, event.part) == ("auc", "test")]
    assert [event.value for _, event in journal.of(Count) if event.name == "shared"][0] == pytest.approx(300, abs=6)
    assert aucs[0] > 0.7


# --- from schemas ----------------------------------------------------------------------------------------------------


def test_schema_files_are_enough(world: Any) -> None:
    schemas = _schemas(world, "insurer", "lab")
    assert not list(world.homes.iterdir())
    made, found = _made(world, schemas=schemas)
    made.run_inside(found.job.run_name(1))
    assert found.notes == ()


def test_a_party_with_neither_a_home_nor_a_schema_is_told_what_to_run_there(world: Any) -> None:
    schemas = _schemas(world, "lab")
    (schemas / "lab.schema.yaml").unlink()
    for given in (None, schemas):
        with pytest.raises(InputError) as caught:
            plan(world.load_job(), world.homes, schemas=given)
        assert (caught.value.code, caught.value.facts["party"]) == ("schema.missing", "lab")
        assert "`isthmus describe lab --out lab.schema.yaml`" in caught.value.next


def test_no_real_row_is_read_and_no_real_home_is_changed(world: Any) -> None:
    for party, dataset in (("insurer", "members"), ("lab", "results")):
        sql = "SELECT * REPLACE (CASE WHEN id <> '' THEN error('a row was read') ELSE id END AS id) FROM t"
        world.edit_party(party, lambda content, sql=sql, of=dataset: content["datasets"][of].update(sql=sql))
        with pytest.raises(InputError, match=r"data\.sql"):
            Store(PartyHome(world.homes / party), dataset).row_ids()
    before = {path: path.stat().st_mtime_ns for path in sorted(world.homes.rglob("*"))}
    made, found = _made(world)
    made.run_inside(found.job.run_name(1))
    assert {path: path.stat().st_mtime_ns for path in sorted(world.homes.rglob("*"))} == before


def test_synthetic_columns_have_the_types_that_the_schema_says(world: Any) -> None:
    columns = {"a": "number", "b": "integer", "c": "boolean", "d": "category", "e": "date", "f": "other"}
    levels = {"type": "category", "levels": ["p", "q"]}
    identifiers = {"national_id": {}, "names": {"columns": 2}, "birth_date": {"format": "%d.%m.%Y"}}
    dataset = {"columns": {**columns, 'g"; DROP': levels}, "identifiers": identifiers}
    schema = PartySchema.model_validate({"party": "lab", "datasets": {"results": dataset}})
    shapes = {"lab": shape_of(world.load_job(), "lab", schema)}
    job, _ = make_homes(world.folder / "made", world.load_job(), {**shapes}, rows=80, overlap=0.5, seed=1)
    store = Store(PartyHome(world.folder / "made" / "lab"), "results")
    types = ["BIGINT", "DOUBLE", "BIGINT", "BOOLEAN", "VARCHAR", "DATE", "TIME", "VARCHAR"]
    assert list(store.types().values())[:8] == types
    row_ids = store.row_ids()
    assert len(row_ids) == 80
    (found,) = store.columns(['g"; DROP'], row_ids)
    assert set(found.values.tolist()) == {"p", "q", None}
    born = store.identifiers(["birth_date"], row_ids)["birth_date"]
    assert all(len(text.rstrip("x").split(".")) == 3 for text in born.columns[0])
    assert store.kinds()["e"] is None  # a job refuses it, as it would the real column


def test_one_seed_draws_the_same_rows_and_another_other_ones(world: Any) -> None:
    def rows(seed: int) -> Any:
        made, _ = _made(world, seed=seed)
        store = Store(PartyHome(made.homes / "lab"), "results")
        return store.columns(["alb"], store.row_ids())[0].values.tolist()

    first = rows(3)
    (world.folder / "rehearsal 3").rename(world.folder / "first")
    assert (repr(rows(3)) == repr(first), repr(rows(4)) == repr(first)) == (True, False)


def test_the_overlap_is_what_was_asked_for(world_of_three: Any) -> None:
    made, found = _made(world_of_three, rows=200, overlap=0.25)
    journal = made.run_inside(found.job.run_name(1), phases=[Phase.AGREE, Phase.ALIGN, Phase.CLOSE])
    assert [event.value for _, event in journal.of(Count) if event.name == "shared"][0] == pytest.approx(50, abs=4)


# --- what would be refused, and what stops as it would in a real run --------------------------------------------------


def test_what_a_real_policy_would_refuse_is_said_and_the_rehearsal_goes_on(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(max_epochs=1))
    made, found = _made(world)
    assert found.notes == ("lab's policy would refuse: lab allows 1 epochs, the job asks 4",)
    made.run_inside(found.job.run_name(1))


def test_what_no_schema_has_is_made_up_and_said(world: Any) -> None:
    world.job["parties"][0]["columns"] = ["age", "sex", "income"]
    world.job["align"]["passes"].append(["shoe_size"])
    made, found = _made(world)
    assert [note for note in found.notes if "made up" in note] == [
        "insurer releases no column 'income': it is made up, as a number",
        "insurer declares no identifier 'shoe_size': it is made up",
        "lab declares no identifier 'shoe_size': it is made up",
    ]
    made.run_inside(found.job.run_name(1))


def test_a_column_whose_unit_is_not_the_jobs_stops_it_as_it_would_stop_the_run(star: Any) -> None:
    star.edit_party("south", lambda content: content["datasets"]["stays"].update(units={"age": "months"}))
    made, found = _made(star)
    with pytest.raises(InputError, match=r"schema\.differs"):
        made.run_inside(found.job.run_name(1))


def test_a_label_that_is_text_stops_it_as_it_would_stop_the_run(world: Any) -> None:
    sql = "SELECT * REPLACE (died::VARCHAR AS died) FROM t"
    world.edit_party("insurer", lambda content: content["datasets"]["members"].update(sql=sql))
    made, found = _made(world)
    with pytest.raises(InputError, match=r"data\.label_not_binary"):
        made.run_inside(found.job.run_name(1))


def test_identifiers_that_cannot_match_are_named(world: Any) -> None:
    identifiers = {"birth_date": "born", "names": "sur"}
    world.edit_party("lab", lambda content: content["datasets"]["results"]["identifiers"].update(identifiers))
    _, found = _made(world)
    assert found.notes == (
        "identifier 'birth_date' has a date format at others and none at lab: no match",
        "identifier 'names' is made of different numbers of columns (2 at insurer, 1 at lab): no match",
    )


def test_as_many_rows_are_made_as_the_jobs_floor_takes(world: Any) -> None:
    world.job["align"]["at_least"] = 900
    assert plan(world.load_job(), world.homes, overlap=0.5).rows == 2700
    with pytest.raises(InputError, match="an overlap of 0.5 the job's floors take 2,700 rows a party, not 600"):
        plan(world.load_job(), world.homes, rows=600, overlap=0.5)
    world.job["align"]["at_least"] = 20
    assert plan(world.load_job(), world.homes).rows == 500


# --- nothing of it is taken for the real thing ------------------------------------------------------------------------


def test_the_job_says_everywhere_that_it_is_a_rehearsal(world: Any) -> None:
    job = plan(world.load_job(), world.homes).job
    assert (job.name, job.purpose) == ("rehearsal-test-job", f"{BANNER}. testing")
    assert job.digest() != world.load_job().digest()
    world.job |= {"name": "a" * 32, "purpose": "p" * 200}
    job = plan(world.load_job(), world.homes).job
    assert (len(job.name), len(job.purpose)) == (32, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_a_synthetic_home_allows_this_job_and_no_other(kind: str, request: pytest.FixtureRequest) -> None:
    world = request.getfixturevalue(FIXTURES[kind])
    made, found = _made(world)
    for member in found.job.members:
        policy = PartyHome(made.homes / member).config.policy
        policy.check(found.job.terms(member))
        with pytest.raises(PolicyRefusal):
            policy.check(world.load_job().terms(member))  # whose purpose is another one


# --- what a real run needs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_with_the_entries_that_are_named_a_policy_allows_the_job_and_lacks_nothing(path: Path) -> None:
    job = load_job(path)
    for member in job.members:
        terms = job.terms(member)
        with pytest.raises(PolicyRefusal):
            Policy().check(terms)
        policy, entries = amended(Policy(), terms)
        policy.check(terms)
        again = [entry for entry in amended(policy, terms)[1] if "[...]" not in entry]
        assert (again, len(entries) > 2) == ([], True)


def test_the_entries_that_a_policy_lacks_are_all_named_at_once(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(max_epochs=1, purposes=["another"], peers=[]))
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"].pop("at_least"))
    (need,) = plan(world.load_job(), world.homes).needs
    assert (need.party, need.entries) == (
        "lab",
        ("purposes: [testing]", "peers: [insurer]", "max_epochs: 4", "release: results: at_least: 20"),
    )


def test_a_party_elsewhere_is_told_all_that_its_policy_has_to_hold(world: Any) -> None:
    schemas = _schemas(world, "lab")
    signature, need = plan(world.load_job(), world.homes, schemas=schemas).needs
    assert "isthmus sign" in signature.what
    assert "its home is elsewhere" in need.what
    assert need.entries == (
        "kinds: [vertical]",
        "purposes: [testing]",
        "peers: [insurer]",
        "max_epochs: 4",
        "release: results: columns: [...]  # what the job may have",
        "release: results: at_least: 20",
        "release: results: may_learn_membership: [insurer]",
        "starts: MEMBER: vertical: 4 per day  # or as often as may be",
    )


def test_the_homes_of_the_demo_lack_nothing(tmp_path: Path) -> None:
    make_demo_homes(tmp_path, patients=400)
    found = plan(load_job(tmp_path / "vertical.yaml"), tmp_path)
    assert (found.needs, found.notes) == ((), ())


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_runs_the_job_marks_its_report_and_removes_the_homes(world: Any, server: Server) -> None:
    schemas = _schemas(world, "lab")
    words = ["rehearse", str(world.job_file()), "--schemas", str(schemas), "--rows", "120"]
    temporary = world.folder / "temporary"
    temporary.mkdir()
    done = world.command(*words, env={**server.env, "TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(BANNER) == 2
    assert "what a real run still needs:" in done.stdout
    assert not list(temporary.glob("isthmus-rehearsal-*"))
    assert not list(world.runs.glob("*"))  # where a job would look for a model to start from
    (report,) = (world.folder / "rehearsals").glob("rehearsal-test-job-*/report.html")
    assert f'<p class="note">{BANNER}</p>' in report.read_text()
    assert json.loads(report.with_name("summary.json").read_text())["rehearsal"] == BANNER


def test_the_command_tells_a_program_the_same_and_keeps_the_homes(tuning: Any, server: Server) -> None:
    keep = tuning.folder / "kept"
    words = ["rehearse", str(tuning.job_file()), "--rows", "120", "--keep", str(keep), "--json"]
    done = tuning.command(*words, env=server.env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rehearsal"], told["summary"]["rehearsal"]) == (True, BANNER)
    assert told["needs"][0]["party"] == "east" and "model to start from" in told["needs"][0]["what"]
    assert yaml.safe_load((keep / "homes" / "east" / "party.yaml").read_text())["name"] == "east"
    again = tuning.command(*words, env=server.env)
    assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (2, "rehearsal.folder")


def test_where_it_fails_the_homes_with_the_logs_are_left(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise InputError("data.split", part="test")

    temporary = world.folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(running, "run_and_show", fails)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(IsthmusError):
        rehearse_and_show(
            plan(world.load_job(), world.homes), runs=world.runs, keep=None, overlap=0.6, seed=1, json=False
        )
    (left,) = temporary.iterdir()
    assert (left / "homes" / "lab" / "lab.duckdb").is_file()
    assert str(left) in capsys.readouterr().out
