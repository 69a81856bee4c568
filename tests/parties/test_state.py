"""State: short transactions that are whole or not there, whoever else writes and however full the disk is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import duckdb
import pytest

from isthmus.parties import state as module
from isthmus.parties.approvals import requests
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.state import Run, SavedAlignment, State

RUN, JOB = "mortality-1", "a" * 64
ALIGNMENT = SavedAlignment("d" * 64, "s" * 64, ["7", "3", "ö'\"\n"], [{"linkage_pass": 1, "matched": 3}])


def _begin(state: State, *, job: str = JOB, seed: int | None = None, fresh: bool = False, run: str = RUN) -> Run:
    return state.begin_attempt(run, job, fixed_seed=seed, fresh=fresh)


def test_a_first_attempt_is_number_1(home: PartyHome) -> None:
    run = _begin(State(home), seed=5)
    assert run == Run(RUN, JOB, 1, "unfinished", 5, None)


def test_the_attempt_only_rises(home: PartyHome) -> None:
    attempts = [_begin(State(home)).attempt]
    attempts.append(_begin(State(home), fresh=True).attempt)
    State(home).finish(RUN)
    attempts.append(_begin(State(home)).attempt)
    attempts.append(_begin(State(home), job="b" * 64).attempt)
    assert attempts == [1, 2, 3, 4]
    assert _begin(State(home), run="other-1").attempt == 1


def test_a_resumed_run_keeps_its_private_seed(home: PartyHome) -> None:
    first = _begin(State(home))
    assert 0 <= first.private_seed < 2**128
    assert _begin(State(home)).private_seed == first.private_seed
    assert State(home).private_seed(RUN) == first.private_seed


def test_all_128_bits_of_a_private_seed_survive(home: PartyHome) -> None:
    assert _begin(State(home), seed=2**128 - 1).private_seed == 2**128 - 1
    assert _begin(State(home)).private_seed == 2**128 - 1
    assert State(home).private_seed(RUN) == 2**128 - 1


def test_a_run_that_is_not_known_has_no_private_seed(home: PartyHome) -> None:
    assert State(home).private_seed(RUN) is None


@pytest.mark.parametrize("why", ["fresh", "another job"])
def test_a_run_that_does_not_go_on_draws_a_new_seed_and_forgets_the_alignment(home: PartyHome, why: str) -> None:
    state = State(home)
    first = _begin(state)
    state.save_alignment(RUN, ALIGNMENT)
    state.note_data(RUN, sql_digest="q", data_digest="r")
    again = _begin(state, fresh=why == "fresh", job="b" * 64 if why == "another job" else JOB)
    assert again.private_seed != first.private_seed
    assert again.data_digest is None
    assert state.load_alignment(RUN) is None


def test_a_run_that_goes_on_keeps_alignment_and_data_digest(home: PartyHome) -> None:
    state = State(home)
    _begin(state)
    state.save_alignment(RUN, ALIGNMENT)
    state.note_data(RUN, sql_digest="q", data_digest="r")
    again = _begin(State(home))
    assert again.data_digest == "r"
    assert State(home).load_alignment(RUN) == ALIGNMENT


def test_the_later_alignment_replaces_the_earlier(home: PartyHome) -> None:
    state = State(home)
    state.save_alignment(RUN, ALIGNMENT)
    other = SavedAlignment("e" * 64, "s" * 64, [], [])
    state.save_alignment(RUN, other)
    assert state.load_alignment(RUN) == other
    assert state.load_alignment("other-1") is None


def test_a_transaction_that_fails_leaves_nothing(home: PartyHome) -> None:
    state = State(home)
    with pytest.raises(KeyError), state.transaction() as connection:
        connection.execute("INSERT INTO ledger VALUES (1, 'x', 'y')")
        raise KeyError
    with state.transaction() as connection:
        assert connection.execute("SELECT * FROM ledger").fetchall() == []


def test_threads_take_turns(home: PartyHome) -> None:
    attempts: list[int] = []
    threads = [threading.Thread(target=lambda: attempts.append(_begin(State(home)).attempt)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(attempts) == list(range(1, 9))


def test_processes_take_turns(home: PartyHome) -> None:
    program = (
        "import sys; from pathlib import Path; from isthmus.parties.home import PartyHome\n"
        "from isthmus.parties.state import State\n"
        "for _ in range(5): State(PartyHome(Path(sys.argv[1]))).begin_attempt('r-1', 'd', fixed_seed=1, fresh=False)"
    )
    words = [sys.executable, "-c", program, str(home.folder)]
    processes = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert _begin(State(home), job="d", run="r-1").attempt == 11


def test_a_lock_that_is_never_given_back_ends_as_busy(home: PartyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
    state = State(home)
    with state.transaction(), pytest.raises(InputError) as caught:
        State(home).finish(RUN)
    assert caught.value.code == "home.busy"


def test_a_state_file_that_somebody_looks_into_is_busy(home: PartyHome) -> None:
    _begin(State(home))
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home.state_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError) as caught:
            _begin(State(home))
        other.communicate()
    assert caught.value.code == "home.busy"
    assert _begin(State(home)).attempt == 2


def test_a_process_that_is_killed_in_a_transaction_leaves_the_state_as_it_was(home: PartyHome) -> None:
    _begin(State(home))
    program = (
        "import os, sys; from pathlib import Path; from isthmus.parties.home import PartyHome\n"
        "from isthmus.parties.state import State\n"
        "with State(PartyHome(Path(sys.argv[1]))).transaction() as connection:\n"
        "    connection.execute(\"INSERT INTO ledger VALUES (1, 'x', 'y')\"); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(home.folder)]).returncode == -9
    with State(home).transaction() as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (0,)
    assert _begin(State(home)).attempt == 2


def test_the_file_of_another_version_is_left_alone(home: PartyHome) -> None:
    _begin(State(home))
    with duckdb.connect(home.state_file) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(InputError) as caught:
        _begin(State(home))
    assert (caught.value.code, caught.value.facts["field"]) == ("home.invalid", "state.duckdb")


# --- masked sums that were given ------------------------------------------------------------------------------------


def test_a_strict_content_is_given_once_and_then_only_as_the_same_sum_again(home: PartyHome) -> None:
    state = State(home)
    assert state.released() == set()
    assert state.note_release("model", "sum 1", "all", strict=True)
    assert state.released() == {"model"}
    assert State(home).note_release("model", "sum 1", "all", strict=True)  # the same answer after a restart
    assert not state.note_release("model", "sum 1", "all but one", strict=True)
    assert not state.note_release("model", "sum 2", "all", strict=True)
    assert state.note_release("another model", "sum 2", "all", strict=True)


def test_a_repeatable_content_is_given_again_with_the_same_survivors_alone(home: PartyHome) -> None:
    state = State(home)
    assert state.note_release("counts", "sum 1", "all", strict=False)
    assert state.note_release("counts", "sum 2", "all", strict=False)
    assert not state.note_release("counts", "sum 3", "all but one", strict=False)
    assert not state.note_release("counts", "sum 4", "all", strict=True)


def test_the_sums_that_were_given_outlive_the_runs(home: PartyHome) -> None:
    state = State(home)
    _begin(state)
    state.note_release("model", "sum 1", "all", strict=True)
    state.finish(RUN)
    _begin(state, fresh=True)
    assert not State(home).note_release("model", "sum 2", "all", strict=True)


# --- older files -----------------------------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE schema_version (version INTEGER);
CREATE TABLE runs (
    run VARCHAR PRIMARY KEY, job_digest VARCHAR, attempt INTEGER, status VARCHAR, private_seed VARCHAR,
    sql_digest VARCHAR, data_digest VARCHAR, started TIMESTAMP
);
CREATE TABLE alignments (
    run VARCHAR PRIMARY KEY, digest VARCHAR, source_digest VARCHAR, passes VARCHAR, row_ids VARCHAR[]
);
CREATE TABLE ledger (entry_number BIGINT PRIMARY KEY, entry VARCHAR, mac VARCHAR);
INSERT INTO runs VALUES ('mortality-1', repeat('a', 64), 3, 'unfinished', '77', NULL, NULL, current_localtimestamp());
INSERT INTO ledger VALUES (1, 'entry', 'mac');
"""
OLDER = {
    1: VERSION_1,
    2: VERSION_1
    + "CREATE TABLE releases (content VARCHAR PRIMARY KEY, sum VARCHAR, survivors VARCHAR);"
    + "INSERT INTO releases VALUES ('an old model', 'sum 1', 'all');",
}


@pytest.mark.parametrize("version", OLDER)
def test_a_file_of_an_older_version_is_brought_up_to_date_with_all_that_is_in_it(home: PartyHome, version: int) -> None:
    with duckdb.connect(home.state_file) as connection:
        connection.execute(OLDER[version])
        connection.execute("INSERT INTO schema_version VALUES (?)", [version])
    assert State(home).note_release("model", "sum 1", "all", strict=True)
    assert State(home).released() == {"model"} | ({"an old model"} if version == 2 else set())
    assert _begin(State(home)) == Run(RUN, JOB, 4, "unfinished", 77, None)
    assert requests(State(home)) == []
    with State(home).transaction() as connection:
        assert connection.execute("SELECT * FROM ledger").fetchall() == [(1, "entry", "mac")]
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(3,)]
        assert connection.execute("SELECT attempts FROM starts").fetchall() == []
        assert connection.execute("SELECT start FROM approvals").fetchall() == []


# --- time ------------------------------------------------------------------------------------------------------------


def test_the_latest_time_that_was_seen_never_falls_back(home: PartyHome) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    seen = []
    for hours in (0, -5, 2, 1):
        with State(home).transaction() as connection:
            seen.append(State.latest_time(connection, noon + timedelta(hours=hours)))
    assert [time.hour for time in seen] == [12, 12, 14, 14]


def test_times_of_any_zone_are_kept_in_utc(home: PartyHome) -> None:
    there = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    with State(home).transaction() as connection:
        assert State.latest_time(connection, there) == datetime(2026, 3, 1, 3)
        assert State.latest_time(connection, there.astimezone(UTC)) == datetime(2026, 3, 1, 3)


def test_how_far_ahead_the_latest_time_lies_is_told_until_it_is_reset(home: PartyHome) -> None:
    noon, state = datetime(2026, 3, 1, 12, tzinfo=UTC), State(home)
    assert state.seconds_ahead(noon + timedelta(days=400)) == 0
    assert state.seconds_ahead(noon) == 400 * 86400
    state.reset_clock(noon.astimezone(timezone(timedelta(hours=9))))
    assert state.seconds_ahead(noon) == 0
    assert state.seconds_ahead(noon - timedelta(seconds=5)) == 5


def test_a_reset_clock_leaves_no_run_and_no_approval_in_the_future(home: PartyHome) -> None:
    noon, state = datetime(2026, 3, 1, 12), State(home)
    before, ahead = noon - timedelta(days=1), noon + timedelta(days=400)
    month = timedelta(days=30)
    with state.transaction() as connection:
        connection.execute("INSERT INTO clock VALUES (?)", [ahead])
        for time in (before, ahead):
            connection.execute("INSERT INTO starts VALUES ('d', 'r-1', 'insurer', 'vertical', ?, 1)", [time])
            approval = [str(time), time, time, time + month]
            connection.execute("INSERT INTO approvals VALUES (?, '{}', '{}', ?, ?, ?)", approval)
    state.reset_clock(noon.replace(tzinfo=UTC))
    with state.transaction() as connection:
        assert connection.execute("SELECT begun FROM starts").fetchall() == [(before,), (noon,)]
        assert connection.execute("SELECT asked, approved, until FROM approvals ORDER BY asked").fetchall() == [
            (before, before, before + month),
            (noon, None, None),
        ]


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 8192, 100_000])
def test_a_disk_that_is_full_from_the_start_leaves_no_state_file_that_cannot_be_opened(
    home: PartyHome, with_little_disk: Any, nbytes: int
) -> None:
    program = (
        "from isthmus.parties.state import State\n"
        "begin = lambda: State(home).begin_attempt('r-1', 'd', fixed_seed=1, fresh=False)\n"
        "home = PartyHome(Path(sys.argv[1])); fill(int(sys.argv[2])); print(code_of(begin))\n"
        "left = sorted(path.name for path in home.folder.iterdir()); free(); print(left); print(begin().attempt)"
    )
    code, left, attempt = with_little_disk(program, home.folder, nbytes).stdout.splitlines()
    assert (code, left, attempt) == ("disk.full", "['party.yaml', 'state.lock']", "1")


def test_a_disk_that_fills_up_keeps_what_was_written_before(home: PartyHome, with_little_disk: Any) -> None:
    state = State(home)
    _begin(state, seed=5)
    state.save_alignment(RUN, ALIGNMENT)
    program = (
        "from isthmus.parties.state import SavedAlignment, State\n"
        "home = PartyHome(Path(sys.argv[1])); state = State(home)\n"
        "big = SavedAlignment('e', 's', [f'{number:040d}' for number in range(100_000)], [])\n"
        "fill(home.state_file.stat().st_size // 2); print(code_of(lambda: state.save_alignment(sys.argv[2], big)))\n"
        "fill(0); print(code_of(lambda: state.finish(sys.argv[2])))"
    )
    assert with_little_disk(program, home.folder, RUN).stdout == "disk.full\ndisk.full\n"
    assert State(home).load_alignment(RUN) == ALIGNMENT
    assert _begin(State(home)) == Run(RUN, JOB, 2, "unfinished", 5, None)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_home_that_may_not_be_written_is_denied(home: PartyHome) -> None:
    home.folder.chmod(0o500)
    try:
        with pytest.raises(InputError) as caught:
            _begin(State(home))
    finally:
        home.folder.chmod(0o700)
    assert caught.value.code == "disk.denied"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("IO Error: Could not write file: No space left on device", "disk.full"),
        ("FATAL Error: Failed to create checkpoint because of error: Disk quota exceeded", "disk.full"),
        ('IO Error: Cannot open file "x": Permission denied', "disk.denied"),
        ('IO Error: Cannot open file "x": Read-only file system', "disk.denied"),
    ],
)
def test_duckdbs_words_for_a_disk_that_refuses_are_known(home: PartyHome, words: str, code: str) -> None:
    with pytest.raises(InputError) as caught, State(home).transaction():
        raise duckdb.IOException(words)
    assert caught.value.code == code


def test_another_error_of_duckdb_passes(home: PartyHome) -> None:
    with pytest.raises(duckdb.CatalogException), State(home).transaction() as connection:
        connection.execute("SELECT * FROM nowhere")


def test_the_state_is_for_the_owner_alone_whatever_the_umask(home: PartyHome) -> None:
    before = os.umask(0o022)
    try:
        State(home).begin_attempt("r-1", "a" * 64, fixed_seed=None, fresh=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.state_file.stat().st_mode) == 0o600
