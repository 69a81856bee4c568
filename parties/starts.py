"""Signed jobs: which member started a job, and whether this party lets it.

A `Start` is a statement of one member, signed with its Ed25519 key (see `identity`): this job may be started, until
then, so many times. It travels beside the job, so the server that carries both may be hostile::

    1  starter   signs: consortium, digest and kind of the job, until when, how many runs, a nonce
    2  party     checks the signature by the key that its roster pins for that member
    3  party     checks its own policy: may this member start this kind, and how often?
    4  party     notes the run and counts it and its attempts, in one transaction, before anything of the job leaves

Who learns what: whoever carries a start reads all of it, and it holds nothing that the job does not. The counts stay at
the party.

Adversary: a server or peer that forges, alters, swaps or replays starts. Each party counts by itself, so a start that
is shown to different parties is good for its runs at each of them, and for no more; and since each attempt at a run
may align anew, which is a question of its own, a run has few attempts under one start. What it does not hold against:
a starter's stolen key (revoke the member in the roster), and a server that withholds starts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from .errors import InputError, PolicyRefusal
from .events import Digest
from .home import NAME_PATTERN
from .identity import Identity
from .policy import Policy, Rate
from .signature import verify

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from .state import State

MAX_RUNS = 1000
MAX_ATTEMPTS = 5  # at one run under one start
CLOCKS_DIFFER = timedelta(hours=1)
FAR_AHEAD = timedelta(days=1)
_CONTEXT = b"isthmus start v1\n"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Start(BaseModel):
    """A member's signed word that a job may be started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: Name
    job: Digest
    kind: Annotated[str, Field(pattern=r"^[a-z]{1,40}$")]
    by: Name
    until: AwareDatetime
    runs: Annotated[int, Field(strict=True, ge=1, le=MAX_RUNS)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @field_validator("until")
    @classmethod
    def _whole_seconds_in_utc(cls, value: datetime) -> datetime:
        if value.microsecond:
            raise ValueError("a time in whole seconds")
        try:
            return value.astimezone(UTC)
        except OverflowError:  # the first or the last day of the calendar
            raise ValueError("a time that is one in UTC too") from None

    def signed_bytes(self) -> bytes:
        """What the signature is over: all fields but itself, as canonical JSON."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return _CONTEXT + json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """SHA-256 of what is signed: whatever is done to the signature, its runs are counted as those of one start."""
        return hashlib.sha256(self.signed_bytes()).hexdigest()


def sign_start(
    identity: Identity, consortium_name: str, job_digest: str, kind: str, *, until: datetime, runs: int
) -> Start:
    """A start of one job by the owner of `identity`; raises `pydantic.ValidationError` for what a start cannot say."""
    unsigned = Start(
        consortium=consortium_name,
        job=job_digest,
        kind=kind,
        by=identity.name,
        until=until,
        runs=runs,
        nonce=secrets.token_hex(16),
        signature="0" * 128,
    )
    return unsigned.model_copy(update={"signature": identity.sign(unsigned.signed_bytes()).hex()})


def judge_start(
    start: Start | None,
    *,
    policy: Policy,
    state: State,
    party: str,
    consortium: str,
    key_of: Callable[[str], bytes],
    kind: str,
    job_digest: str,
    run: str,
    begins_anew: bool,
    now: datetime,
) -> None:
    """Judge who starts a run, and note it: two processes cannot both take the last one that is allowed.

    For homes that belong to a consortium. A home without a roster is a simulation on one machine, where no start is
    judged.

    `key_of` gives the key that the roster pins for a member, and raises for a stranger and for one that is revoked.
    `begins_anew` is True for a run that starts over, which counts as one more run. Otherwise a run that was noted under
    this very start before, finished here or not, is resumed: that is one more of its `MAX_ATTEMPTS` attempts and no
    further run; every other rule holds for it too.

    Time only moves forward here: where the clock was set back, the latest time that was seen counts. Where that is why
    a start is refused, and it lies far ahead of `now`, the refusal is ``policy.clock``: a person may reset it.

    Raises what `check_start` raises, and `PolicyRefusal` ``policy.start_expired``, ``policy.start_used``,
    ``policy.start_attempts``, ``policy.start_rate`` and ``policy.clock``.
    """
    start, rate = check_start(
        start, policy=policy, party=party, consortium=consortium, key_of=key_of, kind=kind, job_digest=job_digest
    )
    with state.transaction() as connection:  # it ends well even where we refuse: the time that was seen is kept
        time = state.latest_time(connection, now)
        refusal = _count(connection, start, rate, party=party, run=run, begins_anew=begins_anew, time=time, now=now)
    if refusal is not None:
        raise refusal


def check_start(
    start: Start | None,
    *,
    policy: Policy,
    party: str,
    consortium: str,
    key_of: Callable[[str], bytes],
    kind: str,
    job_digest: str,
) -> tuple[Start, Rate]:
    """Whether a member has signed this very job whom the policy lets start it, and how often; nothing is counted.

    Raises `InputError` ``job.unsigned`` and ``job.signature``, `PolicyRefusal` ``policy.start``, and what `key_of`
    raises for a stranger or a member that is revoked.
    """
    if start is None:
        raise InputError("job.unsigned", party=party)
    key = key_of(start.by)
    meant = (start.consortium, start.job, start.kind) == (consortium, job_digest, kind)
    if not meant or not verify(key, bytes.fromhex(start.signature), start.signed_bytes()):
        raise InputError("job.signature", party=party, peer=start.by)
    rate = policy.rate(start.by, kind)
    if rate is None:
        raise PolicyRefusal("policy.start", party=party, peer=start.by, kind=kind)
    return start, rate


def _count(
    connection: DuckDBPyConnection,
    start: Start,
    rate: Rate,
    *,
    party: str,
    run: str,
    begins_anew: bool,
    time: datetime,
    now: datetime,
) -> PolicyRefusal | None:
    """Note a run of a start and return None, or return why it must not begin."""
    digest = start.digest()
    detail = f"the latest time seen here is {time.isoformat(sep=' ', timespec='seconds')} (state.duckdb, table clock)"
    ahead = time - now.astimezone(UTC).replace(tzinfo=None)
    clock = PolicyRefusal("policy.clock", party=party, seconds=int(ahead.total_seconds()), detail=detail)
    over = time - start.until.replace(tzinfo=None)
    if over > CLOCKS_DIFFER:
        if ahead > FAR_AHEAD and over - ahead <= CLOCKS_DIFFER:  # by `now` it would hold
            return clock
        seconds = int(over.total_seconds())
        return PolicyRefusal("policy.start_expired", party=party, seconds=seconds, detail=detail)
    known = connection.execute("SELECT run FROM starts WHERE start_digest = ?", [digest]).fetchall()
    if not begins_anew and (run,) in known:
        if not _add_attempt(connection, digest, run):
            return PolicyRefusal("policy.start_attempts", party=party, allowed=MAX_ATTEMPTS)
        return None
    if len(known) >= start.runs:
        return PolicyRefusal("policy.start_used", party=party, allowed=start.runs)
    recent = connection.execute(
        "SELECT count(*) FROM starts WHERE starter = ? AND kind = ? AND begun > ?",
        [start.by, start.kind, time - rate.span],
    ).fetchone()
    if recent is None or recent[0] >= rate.count:
        if ahead > FAR_AHEAD:  # in a time that stands still, no run leaves the window
            return clock
        return PolicyRefusal(
            "policy.start_rate", party=party, peer=start.by, kind=start.kind, allowed=rate.count, detail=detail
        )
    connection.execute("INSERT INTO starts VALUES (?, ?, ?, ?, ?, 1)", [digest, run, start.by, start.kind, time])
    return None


# A run that was begun anew has several rows under its start; the last that was written is the one that goes on.
_LAST_ROW = "rowid = (SELECT max(rowid) FROM starts WHERE start_digest = ? AND run = ?)"


def _add_attempt(connection: DuckDBPyConnection, digest: str, run: str) -> bool:
    """Count one more attempt at a run that was noted; False where it has had all."""
    counted = connection.execute(
        f"UPDATE starts SET attempts = attempts + 1 WHERE {_LAST_ROW} AND attempts < ? RETURNING run",  # noqa: S608  (our own words)
        [digest, run, MAX_ATTEMPTS],
    ).fetchall()
    return bool(counted)


def take_back_attempt(connection: DuckDBPyConnection, start: Start, run: str) -> None:
    """Count the last attempt at a run, which `judge_start` has counted, no longer: nothing of it has left."""
    connection.execute(
        f"UPDATE starts SET attempts = attempts - 1 WHERE {_LAST_ROW} AND attempts > 0",  # noqa: S608  (our own words)
        [start.digest(), run],
    )
