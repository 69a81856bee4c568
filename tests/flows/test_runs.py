"""The coordinator's runs: numbered, resumed only when they were not finished, never two at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import pytest

from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.flows.runs import find_run, open_run, run_records
from isthmus.parties.errors import InputError, PeerFailure

JOB: dict[str, Any] = {
    "name": "mortality",
    "purpose": "testing",
    "parties": [{"name": "insurer", "dataset": "members", "label": "died"}, {"name": "lab", "dataset": "results"}],
    "align": {"passes": [["national_id"]]},
}


def _job(**changes: Any) -> VerticalJob:
    return VerticalJob.model_validate({**JOB, **changes})


PREFIX = f"mortality-{_job().digest()[:8]}"


def _attempt(root: Path, status: Any = "finished", *, fresh: bool = False, job: VerticalJob | None = None) -> str:
    with open_run(root, job or _job(), fresh=fresh) as run:
        run.save(status)
        return run.name


def test_a_run_is_named_by_job_digest_and_number(tmp_path: Path) -> None:
    assert [_attempt(tmp_path) for _ in range(3)] == [f"{PREFIX}-1", f"{PREFIX}-2", f"{PREFIX}-3"]


def test_numbers_are_not_reused_and_10_comes_after_9(tmp_path: Path) -> None:
    for number in (2, 9, 10):
        (tmp_path / f"{PREFIX}-{number}").mkdir()
    assert _attempt(tmp_path) == f"{PREFIX}-11"


def test_another_job_of_the_same_name_counts_for_itself(tmp_path: Path) -> None:
    _attempt(tmp_path)
    assert _attempt(tmp_path, job=_job(purpose="another")).endswith("-1")


def test_an_unfinished_run_goes_on_under_its_name(tmp_path: Path) -> None:
    assert _attempt(tmp_path, "unfinished") == f"{PREFIX}-1"
    with open_run(tmp_path, _job()) as run:
        assert (run.name, run.record.attempts) == (f"{PREFIX}-1", 2)
        run.save("finished")
    with open_run(tmp_path, _job()) as run:
        assert (run.name, run.record.attempts) == (f"{PREFIX}-2", 1)


def test_a_run_that_was_killed_without_a_word_goes_on(tmp_path: Path) -> None:
    with open_run(tmp_path, _job()):
        pass
    with open_run(tmp_path, _job()) as run:
        assert (run.name, run.record.attempts) == (f"{PREFIX}-1", 2)


def test_fresh_starts_over_and_leaves_the_old_run_as_it_was(tmp_path: Path) -> None:
    _attempt(tmp_path, "unfinished")
    with open_run(tmp_path, _job(), fresh=True) as run:
        assert (run.name, run.record.attempts) == (f"{PREFIX}-2", 1)
    assert [(record.run, record.attempts) for record in run_records(tmp_path)] == [
        (f"{PREFIX}-1", 1),
        (f"{PREFIX}-2", 1),
    ]


def test_only_the_newest_run_goes_on(tmp_path: Path) -> None:
    _attempt(tmp_path, "unfinished")
    _attempt(tmp_path, "finished", fresh=True)
    assert _attempt(tmp_path) == f"{PREFIX}-3"


def test_a_run_that_is_going_on_cannot_be_started_again(tmp_path: Path) -> None:
    with open_run(tmp_path, _job()), pytest.raises(InputError) as caught, open_run(tmp_path, _job()):
        pass
    assert caught.value.code == "run.active"
    assert run_records(tmp_path)[0].attempts == 1
    assert _attempt(tmp_path) == f"{PREFIX}-1"


def test_a_lock_that_times_out_within_a_run_is_not_taken_for_its_own(tmp_path: Path) -> None:
    with pytest.raises(filelock.Timeout), open_run(tmp_path, _job()):
        raise filelock.Timeout("another lock")


def test_an_error_within_a_run_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_run(tmp_path, _job()):
        raise KeyError
    assert _attempt(tmp_path) == f"{PREFIX}-1"


def test_the_record_says_how_it_went(tmp_path: Path) -> None:
    with open_run(tmp_path, _job()) as run:
        assert (run.record.status, run.record.ended) == ("unfinished", None)
        run.save("unfinished", PeerFailure("peer.gone", party="lab", peer="insurer", detail="PLANTED"))
    (record,) = run_records(tmp_path)
    assert (record.status, record.error, record.job_digest) == ("unfinished", "peer.gone", _job().digest())
    assert VerticalJob.model_validate(record.job) == _job()
    assert record.ended is not None
    assert record.started <= record.ended
    assert "PLANTED" not in (tmp_path / record.run / "run.json").read_text()
    assert not list(tmp_path.rglob("*.partial"))


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    names = [_attempt(tmp_path, job=_job(purpose=str(number))) for number in range(3)]
    oldest = tmp_path / names[2] / "run.json"
    record = json.loads(oldest.read_text())
    record["started"] = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    oldest.write_text(json.dumps(record))
    assert [record.run for record in run_records(tmp_path)] == [names[2], names[0], names[1]]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "x", '{"run": "strange-1"}', b"\xff", None, "naive", "other name", "extra"]
)
def test_the_folders_of_others_are_passed_over(tmp_path: Path, content: Any) -> None:
    name = _attempt(tmp_path)
    strange = tmp_path / "strange-1"
    strange.mkdir()
    record = json.loads((tmp_path / name / "run.json").read_text())
    if content == "naive":
        content = json.dumps({**record, "run": "strange-1", "started": "2026-01-01T00:00:00"})
    elif content == "other name":
        content = json.dumps({**record, "run": "../elsewhere"})
    elif content == "extra":
        content = json.dumps({**record, "run": "strange-1", "surprise": 1})
    if content is not None:
        (strange / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [record.run for record in run_records(tmp_path)] == [name]
    assert find_run(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("run", ["nothing", "", ".", "..", "../runs"])
def test_a_run_that_is_not_there_is_unknown(tmp_path: Path, run: str) -> None:
    _attempt(tmp_path)
    with pytest.raises(InputError) as caught:
        find_run(tmp_path, run)
    assert caught.value.code == "run.unknown"


def test_no_folder_of_runs_holds_no_run(tmp_path: Path) -> None:
    assert run_records(tmp_path / "nowhere") == []


def test_a_file_where_the_folder_should_be_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="cannot write into its folder"), open_run(tmp_path / "runs", _job()):
        pass
