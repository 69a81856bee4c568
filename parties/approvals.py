"""Jobs that wait for a person: the kinds that a policy names under `approve`.

The first attempt notes what was asked, refuses and leaves nothing behind at anybody else; a person at the party reads
the job in full and approves it (`isthmus approve`); the next attempt goes on. An approval is for one digest, so for
this very job and no other, and it ends by itself. The job's text stays in the party's own state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import InputError, PolicyRefusal
from .policy import Policy
from .state import State

SHORTEST_PREFIX = 8
_COLUMNS = "job_digest, kind, starter, job, asked, approved, until"


@dataclass(frozen=True)
class Request:
    """A job that waits, or that was approved. Times are UTC."""

    job_digest: str
    kind: str
    starter: str
    job: str  # canonical JSON, as the vault was given it
    asked: datetime
    approved: datetime | None
    until: datetime | None  # when the approval ends

    def holds(self, now: datetime) -> bool:
        """Whether the job is approved."""
        return self.until is not None and now < self.until


def require_approval(
    policy: Policy,
    state: State,
    kind: str,
    job_digest: str,
    starter: str,
    job_text: str,
    party: str,
    *,
    now: datetime | None = None,
) -> None:
    """Let a job pass if its kind needs no person here, or one has approved it; else note it.

    Call it after `starts.judge_start`, whose rates also bound how many jobs can wait. `job_text` is the canonical job.

    Raises `PolicyRefusal` ``policy.approval``.
    """
    if kind not in policy.approve:
        return
    with state.transaction() as connection:
        time = state.latest_time(connection, now or datetime.now(UTC))
        found = connection.execute("SELECT until FROM approvals WHERE job_digest = ?", [job_digest]).fetchone()
        holds = found is not None and found[0] is not None and time < found[0]
        if not holds:
            connection.execute(
                "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, ?, NULL, NULL)",
                [job_digest, kind, starter, job_text, time],
            )
    if not holds:
        raise PolicyRefusal("policy.approval", party=party, kind=kind, digest=job_digest)


def requests(state: State) -> list[Request]:
    """All jobs that wait or were approved, oldest first."""
    with state.transaction() as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM approvals ORDER BY asked, job_digest").fetchall()  # noqa: S608  (our own words)
    return [_request(*row) for row in rows]


def find_request(state: State, digest: str, *, party: str) -> Request:
    """The job whose digest is, or begins with, `digest`; raises `InputError` ``approval.unknown`` and
    ``approval.ambiguous``.
    """
    digest = digest.lower()
    known = requests(state)
    found = [request for request in known if request.job_digest.startswith(digest)]
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_PREFIX},64}}", digest) or len(found) > 1:
        raise InputError("approval.ambiguous", party=party, digest=digest, allowed=SHORTEST_PREFIX)
    if not found:
        raise InputError("approval.unknown", party=party, digest=digest)
    return found[0]


def approve_request(state: State, job_digest: str, days: int, *, party: str, now: datetime | None = None) -> datetime:
    """Approve a job for so many days; returns until when, in UTC. Raises `InputError` ``approval.unknown``."""
    with state.transaction() as connection:
        time = state.latest_time(connection, now or datetime.now(UTC))
        until = time + timedelta(days=days)
        changed = connection.execute(
            "UPDATE approvals SET approved = ?, until = ? WHERE job_digest = ? RETURNING job_digest",
            [time, until, job_digest],
        ).fetchall()
    if not changed:
        raise InputError("approval.unknown", party=party, digest=job_digest)
    return until.replace(tzinfo=UTC)


def withdraw_approval(state: State, job_digest: str) -> None:
    """Forget a job, approved or not: its next start asks anew. What runs already is not stopped (see `pause`)."""
    with state.transaction() as connection:
        connection.execute("DELETE FROM approvals WHERE job_digest = ?", [job_digest])


def _request(job_digest: str, kind: str, starter: str, job: str, asked: datetime, approved: Any, until: Any) -> Request:
    return Request(
        job_digest, kind, starter, job, _utc(asked), *(_utc(time) if time else None for time in (approved, until))
    )


def _utc(naive: datetime) -> datetime:
    return naive.replace(tzinfo=UTC)
