"""The engine's own state at one party: `state.duckdb`, in short transactions under a file lock.

It holds the runs, the alignments, the masked sums that were given, the ledger's rows, which signatures have started
runs, and which jobs wait for a person. Nothing here ever leaves the party.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import filelock

from .errors import InputError, disk_errors
from .home import PartyHome

SCHEMA_VERSION = 3
LOCK_TIMEOUT_S = 30.0
_SCHEMA = """
CREATE TABLE schema_version (version INTEGER);
CREATE TABLE runs (
    run VARCHAR PRIMARY KEY, job_digest VARCHAR, attempt INTEGER, status VARCHAR, private_seed VARCHAR,
    sql_digest VARCHAR, data_digest VARCHAR, started TIMESTAMP
);
CREATE TABLE alignments (
    run VARCHAR PRIMARY KEY, digest VARCHAR, source_digest VARCHAR, passes VARCHAR, row_ids VARCHAR[]
);
CREATE TABLE ledger (entry_number BIGINT PRIMARY KEY, entry VARCHAR, mac VARCHAR);
"""
_RELEASES = "CREATE TABLE releases (content VARCHAR PRIMARY KEY, sum VARCHAR, survivors VARCHAR);"
_STARTS = """
CREATE TABLE starts (
    start_digest VARCHAR, run VARCHAR, starter VARCHAR, kind VARCHAR, begun TIMESTAMP, attempts INTEGER
);
CREATE TABLE approvals (
    start_digest VARCHAR PRIMARY KEY, start VARCHAR, job VARCHAR, asked TIMESTAMP, approved TIMESTAMP, until TIMESTAMP
);
CREATE TABLE clock (latest TIMESTAMP);
"""
_UPGRADES = {1: _RELEASES, 2: _STARTS}  # version → what makes the next one of it
_CAUSES = {
    "disk.full": ("No space left", "File too large", "Disk quota"),
    "disk.denied": ("Permission denied", "Read-only file system"),
    "home.busy": ("Could not set lock",),
}


@dataclass(frozen=True)
class Run:
    """What a party remembers of one run of a job."""

    run: str
    job_digest: str
    attempt: int
    status: str  # unfinished, finished: before this attempt
    private_seed: int
    data_digest: str | None  # of the rows that the last attempt trained on


@dataclass(frozen=True)
class SavedAlignment:
    """An alignment as the party keeps it: its own row ids in the shared order."""

    digest: str
    source_digest: str  # of the identifiers that it was made from
    row_ids: Sequence[str]
    passes: Sequence[dict[str, int]]


class State:
    """Short transactions on the state file of one party."""

    def __init__(self, home: PartyHome) -> None:
        self._home = home

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection within one transaction; committed at the end, or rolled back.

        Raises `InputError` ``disk.full``, ``disk.denied``, ``home.busy``, and ``home.invalid`` for a file of another
        version.
        """
        path, party = self._home.state_file, self._home.name
        with _locked(path.with_suffix(".lock"), party), _duckdb_errors(party):
            if not path.exists():
                _create(path, party)
            connection = duckdb.connect(path, config={"threads": 1})  # opens in half the time
            try:
                connection.begin()
                _check_version(connection, party)
                yield connection
                connection.commit()
            finally:
                connection.close()  # an open transaction is rolled back

    @staticmethod
    def latest_time(connection: duckdb.DuckDBPyConnection, now: datetime) -> datetime:
        """The latest time that this party has ever seen, `now` included, in UTC and without a zone, as the tables hold
        it: what has run out, or has been used up, does not come back when a clock is set back.
        """
        naive = now.astimezone(UTC).replace(tzinfo=None)
        row = connection.execute("SELECT max(latest) FROM clock").fetchone()
        if row is not None and row[0] is not None and row[0] >= naive:
            latest: datetime = row[0]
            return latest
        connection.execute("DELETE FROM clock")
        connection.execute("INSERT INTO clock VALUES (?)", [naive])
        return naive

    def seconds_ahead(self, now: datetime) -> int:
        """By how much the latest time that this party has ever seen lies ahead of `now`; 0 if it does not."""
        with self.transaction() as connection:
            ahead = self.latest_time(connection, now) - now.astimezone(UTC).replace(tzinfo=None)
        return int(ahead.total_seconds())

    def reset_clock(self, now: datetime) -> None:
        """Make `now` the latest time that was seen, after a clock that was wrong and far ahead.

        What has run out by that time alone is no longer over. For the rest the stricter way holds: runs that began by
        that time count as begun now, and what was approved by it waits again.
        """
        naive = now.astimezone(UTC).replace(tzinfo=None)
        with self.transaction() as connection:
            connection.execute("UPDATE clock SET latest = ?", [naive])
            connection.execute("UPDATE starts SET begun = least(begun, ?)", [naive])
            connection.execute("UPDATE approvals SET approved = NULL, until = NULL WHERE approved > ?", [naive])
            connection.execute("UPDATE approvals SET asked = least(asked, ?)", [naive])

    def begin_attempt(self, run: str, job_digest: str, *, fixed_seed: int | None, fresh: bool) -> Run:
        """Note a new attempt at a run, before anything leaves.

        The attempt's number only rises. `private_seed` stays the same for all attempts, so that a resumed run draws
        what an uninterrupted one would have drawn; `fresh` forgets it and the alignment. A run that is finished here
        goes on like any other: others may have been stopped before they could finish it.
        """
        with self.transaction() as connection:
            known = connection.execute(
                "SELECT job_digest, attempt, status, private_seed, data_digest FROM runs WHERE run = ?", [run]
            ).fetchone()
            finished = known is not None and known[2] == "finished"
            goes_on = known is not None and known[0] == job_digest and not fresh
            attempt = known[1] + 1 if known else 1
            if known and goes_on:
                seed, data_digest = int(known[3]), known[4]
            else:
                seed, data_digest = secrets.randbits(128) if fixed_seed is None else fixed_seed, None
                connection.execute("DELETE FROM alignments WHERE run = ?", [run])
            connection.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, 'unfinished', ?, NULL, ?, current_localtimestamp())",
                [run, job_digest, attempt, str(seed), data_digest],
            )
        return Run(run, job_digest, attempt, "finished" if goes_on and finished else "unfinished", seed, data_digest)

    def private_seed(self, run: str) -> int | None:
        """What this party drew its weights and dropout from in a run; None for a run that it does not know."""
        with self.transaction() as connection:
            row = connection.execute("SELECT private_seed FROM runs WHERE run = ?", [run]).fetchone()
        return int(row[0]) if row else None

    def finish(self, run: str) -> None:
        """Note that a run has ended well."""
        with self.transaction() as connection:
            connection.execute("UPDATE runs SET status = 'finished' WHERE run = ?", [run])

    def finished_runs(self) -> list[str]:
        """The runs that have ended well, the one begun last first."""
        with self.transaction() as connection:
            rows = connection.execute(
                "SELECT run FROM runs WHERE status = 'finished' ORDER BY started DESC, run"
            ).fetchall()
        return [row[0] for row in rows]

    def note_data(self, run: str, *, sql_digest: str, data_digest: str) -> None:
        """Keep the digests of the SQL and of the rows that this attempt trains on."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE runs SET sql_digest = ?, data_digest = ? WHERE run = ?", [sql_digest, data_digest, run]
            )

    def save_alignment(self, run: str, alignment: SavedAlignment) -> None:
        """Keep an alignment for later phases and attempts."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO alignments VALUES (?, ?, ?, ?, ?)",
                [
                    run,
                    alignment.digest,
                    alignment.source_digest,
                    json.dumps(list(alignment.passes)),
                    list(alignment.row_ids),
                ],
            )

    def load_alignment(self, run: str) -> SavedAlignment | None:
        """The alignment of an unfinished run, if one was reached."""
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT digest, source_digest, row_ids, passes FROM alignments WHERE run = ?", [run]
            ).fetchone()
        return SavedAlignment(row[0], row[1], row[2], json.loads(row[3])) if row else None

    def released(self) -> set[str]:
        """The contents of all sums that this party ever helped to unmask (see `horizontal.secagg`)."""
        with self.transaction() as connection:
            return {row[0] for row in connection.execute("SELECT content FROM releases").fetchall()}

    def note_release(self, content: str, one: str, survivors: str, *, strict: bool) -> bool:
        """Note that this party is about to help to unmask the sum `one` over `content`; False if it must not.

        The same sum with the same survivors may be unmasked again: that says nothing new. Another sum over the same
        content may not if `strict`, and otherwise only with the same survivors. All are digests.
        """
        with self.transaction() as connection:
            known = connection.execute("SELECT sum, survivors FROM releases WHERE content = ?", [content]).fetchone()
            if known is None:
                connection.execute("INSERT INTO releases VALUES (?, ?, ?)", [content, one, survivors])
        return known is None or (known[1] == survivors and (known[0] == one or not strict))


@contextmanager
def _locked(path: Path, party: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    with disk_errors(party):
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout as failure:
            raise InputError("home.busy", party=party, detail=str(failure)) from failure
    try:
        yield
    finally:
        lock.release()


def _create(path: Path, party: str) -> None:
    """Make the file under another name and rename it: on a full disk DuckDB leaves one that it cannot open again."""
    new = path.with_name(path.name + ".partial")
    log = new.with_name(new.name + ".wal")
    with disk_errors(party):
        _drop(new, log)
        try:
            with duckdb.connect(new) as connection:
                connection.execute(_SCHEMA + _RELEASES + _STARTS)
                connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
                connection.execute("CHECKPOINT")  # all of it into the one file that is renamed, or an error
            new.chmod(0o600)  # it will hold the rows' ids; DuckDB and the umask of a shell would let others read them
            new.replace(path)
        finally:
            _drop(new, log)


def _drop(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _check_version(connection: duckdb.DuckDBPyConnection, party: str) -> None:
    found = connection.execute("SELECT version FROM schema_version").fetchone()
    while found and found[0] in _UPGRADES:
        connection.execute(_UPGRADES[found[0]])
        found = (found[0] + 1,)
        connection.execute("UPDATE schema_version SET version = ?", found)
    if found != (SCHEMA_VERSION,):
        problem = "another version of isthmus wrote it"
        raise InputError("home.invalid", party=party, field="state.duckdb", problem=problem)


@contextmanager
def _duckdb_errors(party: str) -> Iterator[None]:
    # DuckDB wraps the system's words; it has no error number to ask for.
    try:
        yield
    except duckdb.Error as failure:
        for code, words in _CAUSES.items():
            if any(word in str(failure) for word in words):
                raise InputError(code, party=party, detail=str(failure)) from failure
        raise
