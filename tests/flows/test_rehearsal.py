"""A job on synthetic rows: every kind of it, from schemas alone, without a look at a real row."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows import running
from isthmus.flows.cli import main
from isthmus.flows.demo import make_homes as make_demo_homes
from isthmus.flows.jobs import Job, load_job
from isthmus.flows.journal import Journal
from isthmus.flows.kinds import KINDS
from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.flows.rehearsal import BANNER, Rehearsal, plan
from isthmus.flows.rehearsal_homes import make_homes, shape_of
from isthmus.flows.rehearsal_needs import TO_BE_NAMED, amended
from isthmus.flows.report import summarise, write_report
from isthmus.flows.runs import open_run
from isthmus.flows.schema_of import PartySchema, describe, schema_text
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.events import Chosen, Count, Finished, Metric, Phase
from isthmus.parties.home import PartyHome
from isthmus.parties.policy import Policy
from isthmus.parties.store import Store
from isthmus.transfer import gate

from ..world import World

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


SHORT: dict[str, dict[str, Any]] = {
    "vertical": {"training": {"epochs": 2, "batch_size": 32}},
    "transfer": {"pretraining": {"hidden": [8, 4], "epochs": 2, "folds": 2}, "distill": False},
    "horizontal": {"rounds": {"count": 2}, "alone": False},
}


@pytest.fixture(autouse=True)
def few_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gate of a transfer takes its time for is tested elsewhere."""
    monkeypatch.setattr(gate, "_REPEATS", 1)
    monkeypatch.setattr(gate, "FOLDS", 3)


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


def _shared(journal: Journal) -> int:
    return next(event.value for _, event in journal.of(Count) if event.name == "shared")


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
    world = request.getfixturevalue(FIXTURES[kind])
    world.job |= SHORT.get(kind, {})
    made, found = _made(world)
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


def test_survival_and_a_partys_own_split_are_rehearsed_too(star: Any) -> None:
    star.job |= {"label": {"duration": "days", "event": "dead"}, "split": {"column": "part"}, "alone": False}
    made, found = _made(star)
    journal = made.run_inside(found.job.run_name(1))
    assert found.notes[-3:] == tuple(
        f"{party} releases no column 'part': it is made up" for party in ("north", "south", "east")
    )
    assert any(event.name == "c_index" for _, event in journal.of(Metric))


def test_a_model_finds_something_to_learn(world: Any) -> None:
    world.job["training"] |= {"epochs": 12, "patience": 12}
    made, found = _made(world, rows=500)
    journal = made.run_inside(found.job.run_name(1))
    aucs = [event.value for _, event in journal.of(Metric) if (event.name, event.part) == ("auc", "test")]
    assert _shared(journal) == pytest.approx(300, abs=15)  # some are mistyped in both passes
    assert aucs[0] > 0.7


# --- from schemas ----------------------------------------------------------------------------------------------------


def test_schema_files_are_enough(world: Any) -> None:
    schemas = _schemas(world, "insurer", "lab")
    assert not list(world.homes.iterdir())
    made, found = _made(world, schemas=schemas)
    made.run_inside(found.job.run_name(1), phases=ALIGN_PHASES)
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
    made.run_inside(found.job.run_name(1), phases=ALIGN_PHASES)
    assert {path: path.stat().st_mtime_ns for path in sorted(world.homes.rglob("*"))} == before


def test_synthetic_columns_have_the_types_that_the_schema_says(world: Any) -> None:
    columns = {"a": "number", "b": "integer", "c": "boolean", "d": "category", "e": "date", "f": "other"}
    levels = {"type": "category", "levels": ["p", "q"]}
    identifiers = {"national_id": {}, "names": {"columns": 2}, "birth_date": {"format": "%d.%m.%Y"}}
    dataset = {"columns": {**columns, 'g"; DROP': levels}, "identifiers": identifiers}
    schema = PartySchema.model_validate({"party": "lab", "datasets": {"results": dataset}})
    job = world.load_job()
    insurer = describe(PartyHome(world.homes / "insurer"))
    shapes = {"insurer": shape_of(job, "insurer", insurer), "lab": shape_of(job, "lab", schema)}
    make_homes(world.folder / "made", job, shapes, rows=80, overlap=0.5, seed=1)
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
    journal = made.run_inside(found.job.run_name(1), phases=ALIGN_PHASES)
    assert _shared(journal) == pytest.approx(50, abs=4)


# --- what would be refused, and what stops as it would in a real run --------------------------------------------------


def test_what_a_real_policy_would_refuse_is_said_and_the_rehearsal_goes_on(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(max_epochs=1))
    made, found = _made(world)
    assert found.notes == ("lab's policy would refuse: lab allows 1 epochs, the job asks 4",)
    made.run_inside(found.job.run_name(1), phases=ALIGN_PHASES)


def test_what_no_schema_has_is_made_up_and_said(world: Any) -> None:
    world.job["parties"][0]["columns"] = ["age", "sex", "income"]
    world.job["align"]["passes"].append(["shoe_size"])
    made, found = _made(world)
    assert [note for note in found.notes if "made up" in note] == [
        "insurer releases no column 'income': it is made up, as a number",
        "insurer declares no identifier 'shoe_size': it is made up",
        "lab declares no identifier 'shoe_size': it is made up",
    ]
    made.run_inside(found.job.run_name(1), phases=ALIGN_PHASES)


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
    with pytest.raises(InputError, match=r"an overlap of 0\.5 the job's floors take 2,700 rows a party, not 600"):
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
        _, again = amended(policy, terms)
        to_be_named = {"release": {terms.dataset: {"columns": [TO_BE_NAMED]}}}
        assert again == (to_be_named if "*" in terms.columns else {})
        assert (entries["kinds"], entries["purposes"]) == ([job.kind], [job.purpose])


def test_the_entries_that_a_policy_lacks_are_all_named_at_once(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(max_epochs=1, purposes=["another"], peers=[]))
    world.edit_party("lab", lambda content: content["policy"]["release"]["results"].pop("at_least"))
    (need,) = plan(world.load_job(), world.homes).needs
    assert (need.party, need.entries) == (
        "lab",
        {"purposes": ["testing"], "peers": ["insurer"], "max_epochs": 4, "release": {"results": {"at_least": 20}}},
    )


def test_a_party_elsewhere_is_told_all_that_its_policy_has_to_hold(world: Any) -> None:
    schemas = _schemas(world, "lab")
    signature, need = plan(world.load_job(), world.homes, schemas=schemas).needs
    assert "isthmus sign" in signature.what
    assert "its home is elsewhere" in need.what
    release = {"columns": [TO_BE_NAMED], "at_least": 20, "may_learn_membership": ["insurer"]}
    assert need.entries == {
        "kinds": ["vertical"],
        "purposes": ["testing"],
        "peers": ["insurer"],
        "max_epochs": 4,
        "release": {"results": release},
        "starts": {"MEMBER": {"vertical": "4 per day"}},
    }
    assert Policy.model_validate(need.entries).rate("MEMBER", "vertical") is not None


def test_the_homes_of_the_demo_lack_nothing(tmp_path: Path) -> None:
    make_demo_homes(tmp_path, patients=400)
    found = plan(load_job(tmp_path / "vertical.yaml"), tmp_path)
    assert (found.needs, found.notes) == ((), ())


# --- the command: `test_rehearsal_prefect` runs it whole ------------------------------------------------------------


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vaults are threads of this process, without Prefect: all else is as in `isthmus run`."""

    def run_and_show(job: Job, *, homes: Path, runs: Path, fresh: bool, json: bool) -> None:
        world = World(homes.parent, job.canonical())
        with open_run(runs, job, fresh=fresh) as run:
            summary = summarise(job, world.run_inside(run.name), run.record)
            write_report(run.folder, summary)
            run.save("finished")
        print(dumps(summary) if json else "what isthmus run prints")

    monkeypatch.setattr(running, "run_and_show", run_and_show)


def _command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["rehearse", *map(str, words)])
    return int(ended.value.code or 0)


def test_the_report_is_marked_and_lies_where_no_job_looks_for_a_model(
    tuning: Any, inside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuning.folder)
    monkeypatch.setattr("tempfile.tempdir", str(tuning.folder / "temporary"))
    (tuning.folder / "temporary").mkdir()
    assert _command(tuning.job_file(), "--homes", tuning.homes, "--rows", 120) == 0
    out = capsys.readouterr().out
    assert (out.count(BANNER), "what isthmus run prints" in out) == (2, True)
    assert "what a real run still needs:" in out and "the model to start from" in out
    assert not list((tuning.folder / "temporary").iterdir())
    assert not (tuning.folder / "runs").exists()
    (report,) = (tuning.folder / "rehearsals").glob("rehearsal-tune-*/report.html")
    assert f'<p class="note">{BANNER}</p>' in report.read_text()
    assert loads(report.with_name("summary.json").read_text())["rehearsal"] == BANNER


def test_a_program_is_told_the_same_and_homes_can_be_kept(
    tuning: Any, inside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tuning.folder)
    keep = tuning.folder / "kept"
    words = (tuning.job_file(), "--homes", tuning.homes, "--rows", 120, "--keep", keep, "--json")
    assert _command(*words) == 0
    told = loads(capsys.readouterr().out)
    assert (told["rehearsal"], told["summary"]["rehearsal"]) == (True, BANNER)
    assert told["needs"][0]["party"] == "east" and "model to start from" in told["needs"][0]["what"]
    assert PartyHome(keep / "homes" / "east").config.datasets["stays"].sql == "SELECT * FROM synthetic"
    assert (_command(*words), loads(capsys.readouterr().out)["error"]["code"]) == (2, "rehearsal.folder")


def test_where_it_fails_the_homes_with_the_logs_are_left(
    world: Any, inside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr("tempfile.tempdir", str(world.folder / "temporary"))
    (world.folder / "temporary").mkdir()
    world.edit_party("insurer", lambda c: c["datasets"]["members"].update(sql="SELECT * REPLACE ('x' AS died) FROM t"))
    assert _command(world.job_file(), "--homes", world.homes, "--rows", 120) == 2
    (left,) = (world.folder / "temporary").iterdir()
    assert (left / "homes" / "lab" / "lab.duckdb").is_file()
    assert str(left) in capsys.readouterr().out
