"""What is wrong with a job, a home or the data is said with a code; nothing half-written is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.check import check_job
from isthmus.parties.errors import InputError, IsthmusError, PolicyRefusal

Change = Callable[[Any], Any]


def _dataset(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        (dataset,) = content["datasets"].values()
        dataset.update(changes)

    return change


def _policy(**changes: Any) -> Change:
    return lambda content: content["policy"].update(changes)


def _release(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        (release,) = content["policy"]["release"].values()
        release.update(changes)

    return change


def _refused(world: Any, code: str, exit_code: int, **options: Any) -> IsthmusError:
    with pytest.raises(IsthmusError) as caught:
        world.run_inside(**options)
    assert caught.value.code == code, caught.value
    assert caught.value.exit_code == exit_code
    _nothing_half_written(world)
    return caught.value


def _nothing_half_written(world: Any) -> None:
    assert not list(world.homes.glob("*/models/*/*"))
    assert not list(world.homes.rglob("*.partial"))


def _birth_date(content: Any) -> Any:
    (dataset,) = content["datasets"].values()
    return dataset["identifiers"]["birth_date"]


POLICY = [
    ("policy.kind", "lab", _policy(kinds=[])),
    ("policy.purpose", "lab", _policy(purposes=["something else"])),
    ("policy.peer", "lab", _policy(peers=[])),
    ("policy.dataset", "lab", lambda content: content["policy"].update(release={})),
    ("policy.column", "insurer", _release(columns=["age"])),
    ("policy.label", "insurer", _release(labels=[])),
    ("policy.epochs", "lab", _policy(max_epochs=3)),
    ("policy.membership", "insurer", _release(may_learn_membership=[])),
    ("policy.too_few", "lab", _release(at_least=1000)),
]


@pytest.mark.parametrize(("code", "party", "change"), POLICY, ids=[case[0] for case in POLICY])
def test_a_policy_that_does_not_allow_the_job_refuses_it(world: Any, code: str, party: str, change: Change) -> None:
    world.edit_party(party, change)
    assert isinstance(_refused(world, code, 3), PolicyRefusal)


DATA = [
    ("data.sql", "lab", _dataset(sql="SELECT * FROM nowhere")),
    ("data.file_missing", "lab", lambda content: content.update(data="nowhere.duckdb")),
    ("data.file_invalid", "lab", lambda content: content.update(data="party.yaml")),
    ("data.column_unknown", "insurer", _dataset(sql="SELECT * EXCLUDE (age) FROM t")),
    ("data.column_empty", "insurer", _dataset(sql="SELECT * REPLACE (NULL::DOUBLE AS age) FROM t")),
    ("data.column_type", "insurer", _dataset(types={"sex": "number"})),
    ("data.column_unsupported", "insurer", _dataset(sql="SELECT * REPLACE (DATE '2020-01-01' AS age) FROM t")),
    ("data.no_columns", "lab", _release(columns=[])),
    ("data.identifier_format", "lab", lambda content: _birth_date(content).update(format="%d.%m.%Y")),
    ("data.empty", "lab", _dataset(sql="SELECT * FROM t WHERE false")),
    ("data.row_id", "lab", _dataset(sql="SELECT * REPLACE ('x' AS id) FROM t")),
    ("data.identifier_unknown", "lab", lambda content: content["datasets"]["results"]["identifiers"].pop("names")),
    ("data.label_missing", "insurer", _dataset(sql="SELECT * REPLACE (nullif(died, 1) AS died) FROM t")),
    ("data.label_constant", "insurer", _dataset(sql="SELECT * REPLACE (1 AS died) FROM t")),
    ("data.label_not_binary", "insurer", _dataset(sql="SELECT * REPLACE (2 * died AS died) FROM t")),
    ("home.invalid", "lab", lambda content: content.update(surprise=1)),
    ("align.no_keys", "lab", _dataset(sql="SELECT * REPLACE (NULL AS ssn, NULL AS born) FROM t")),
]


@pytest.mark.parametrize(("code", "party", "change"), DATA, ids=[case[0] for case in DATA])
def test_what_is_wrong_with_the_data_is_named(world: Any, code: str, party: str, change: Change) -> None:
    world.edit_party(party, change)
    error = _refused(world, code, 2)
    assert isinstance(error, InputError)
    assert party in error.what


@pytest.mark.parametrize(("code", "party", "change"), DATA, ids=[case[0] for case in DATA])
def test_a_check_finds_before_the_run_what_the_run_would_stop_at(
    world: Any, code: str, party: str, change: Change
) -> None:
    world.edit_party(party, change)
    error = check_job(world.load_job(), world.homes).error
    if code == "align.no_keys":  # the protocol itself says so
        assert error is None
    else:
        assert error is not None
        assert error.code == code


def test_a_vault_of_its_own_refuses_in_the_same_words(world: Any) -> None:
    world.edit_party("lab", _policy(purposes=["something else"]))
    with pytest.raises(PolicyRefusal) as caught:
        world.run()
    assert caught.value.code == "policy.purpose"
    _nothing_half_written(world)


def test_no_shared_patient_is_said_when_no_floor_forbids_to_say_it(world: Any) -> None:
    world.job["align"]["at_least"] = 1
    for name in ("insurer", "lab"):
        world.edit_party(name, _release(at_least=1))
    world.sql("lab", "UPDATE t SET ssn = 'L' || ssn, given = 'nobody' || given")
    _refused(world, "align.none", 2)


def test_no_shared_patient_is_not_told_apart_from_too_few_when_there_is_a_floor(world: Any) -> None:
    world.sql("lab", "UPDATE t SET ssn = 'L' || ssn, given = 'nobody' || given")
    _refused(world, "policy.too_few", 3)


def test_duplicate_and_null_identifiers_are_counted_and_not_fatal(world: Any) -> None:
    world.sql("lab", "UPDATE t SET ssn = NULL WHERE id IN ('l0020', 'l0021', 'l0022')")
    world.sql("lab", "UPDATE t SET ssn = 'N000030' WHERE id = 'l0031'")
    events = [event for party, event in world.run_inside().events if party == "lab" and event.event == "count"]
    first = {event.name: event.value for event in events if event.linkage_pass == 1}
    assert first == {"keys_null": 3, "keys_repeated": 2, "keys_used": 225, "matched": 225}
    assert next(event.value for event in events if event.name == "shared") == 230


def test_a_data_file_that_another_process_writes_is_named(world: Any) -> None:
    program = (
        "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(world.homes / "lab" / "lab.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        _refused(world, "data.locked", 2)
        writer.communicate("\n")


def test_parties_that_were_given_different_jobs_stop_at_the_first_field_that_differs(world: Any) -> None:
    other = world.load_job().model_copy(update={"purpose": "Testing"})  # the policies take it for the same
    error = _refused(world, "job.not_agreed", 2, jobs={"lab": other})
    assert "'purpose' differs" in error.what


CLI = [
    ("job.missing", ["run", "nowhere.yaml"], 2),
    ("job.not_yaml", ["run", "broken.yaml"], 2),
    ("job.invalid", ["run", "unknown.yaml"], 2),
    ("job.invalid", ["check", "wrong.yaml"], 2),
    ("job.party_unknown", ["run", "job.yaml", "--homes", "elsewhere"], 2),
    ("run.unknown", ["runs", "nothing"], 2),
    ("job.party_unknown", ["audit", "show", "nobody"], 2),
    ("policy.epochs", ["check", "long.yaml"], 3),
]


@pytest.mark.parametrize(("code", "words", "exit_code"), CLI, ids=[" ".join(case[1][:2]) for case in CLI])
def test_the_command_line_says_code_place_and_next_step_without_a_traceback(
    world: Any, code: str, words: list[str], exit_code: int
) -> None:
    good = world.job_file().read_text()
    (world.folder / "broken.yaml").write_text("kind: [vertical\nname: x")
    (world.folder / "unknown.yaml").write_text(good + "surprise: 1\n")
    (world.folder / "wrong.yaml").write_text(good.replace("epochs: 4", "epochs: many"))
    (world.folder / "long.yaml").write_text(good.replace("epochs: 4", "epochs: 400"))
    done = world.command(*words)
    assert done.returncode == exit_code, done.stderr
    assert f"error[{code}]" in done.stderr
    assert "  next  " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (Path(world.folder) / "runs").exists()


def test_an_unknown_word_on_the_command_line_is_wrong_input(world: Any) -> None:
    assert world.command("rum").returncode == 2
