"""Starts that wait for a person: of the kinds that a policy names under `approve`.

The first attempt notes what was asked, refuses and leaves nothing behind at anybody else; a person at the party reads
the job in full, who signed it, for how many runs and until when, and approves that (`isthmus approve`); the next
attempt goes on. An approval is for the digest of one start: another job, another starter, more runs and even the same
words signed again wait anew. It ends by itself. The job's text stays in the party's own state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .errors import InputError, PolicyRefusal
from .policy import Policy
from .starts import Start, take_back_attempt
from .state import State

SHORTEST_PREFIX = 8


@dataclass(frozen=True)
class Request:
    """A start that waits, or that was approved. Times are UTC."""

    start: Start
    job: str  # canonical JSON, as the vault was given it
    asked: datetime
    approved: datetime | None
    until: datetime | None  # when the approval ends

    @property
    def digest(self) -> str:
        """The start's digest, by which people name it."""
        return self.start.digest()

    def holds(self, now: datetime) -> bool:
        """Whether the start is approved."""
        return self.until is not None and now < self.until


def require_approval(
    policy: Policy, state: State, start: Start, job_text: str, party: str, *, run: str, now: datetime | None = None
) -> None:
    """Let a start pass if its kind needs no person here, or one has approved it; else note it.

    Call it after `starts.judge_start`, which has judged this very start for `run` and whose rates also bound how many
    can wait. An attempt that is refused here is not one of the attempts that the signature allows: waiting uses up
    none. `job_text` is the canonical job.

    Raises `PolicyRefusal` ``policy.approval``.
    """
    if start.kind not in policy.approve:
        return
    digest = start.digest()
    with state.transaction() as connection:
        time = state.latest_time(connection, now or datetime.now(UTC))
        found = connection.execute("SELECT until FROM approvals WHERE start_digest = ?", [digest]).fetchone()
        holds = found is not None and found[0] is not None and time < found[0]
        if not holds:
            connection.execute(
                "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, NULL, NULL)",
                [digest, start.model_dump_json(), job_text, time],
            )
            take_back_attempt(connection, start, run)
    if not holds:
        raise PolicyRefusal("policy.approval", party=party, kind=start.kind, digest=digest)


def requests(state: State) -> list[Request]:
    """All starts that wait or were approved, oldest first."""
    with state.transaction() as connection:
        rows = connection.execute(
            "SELECT start, job, asked, approved, until FROM approvals ORDER BY asked, start_digest"
        ).fetchall()
    return [
        Request(Start.model_validate_json(start), job, *(time and time.replace(tzinfo=UTC) for time in times))
        for start, job, *times in rows
    ]


def find_request(state: State, digest: str, *, party: str) -> Request:
    """The start whose digest is, or begins with, `digest`; raises `InputError` ``approval.unknown`` and
    ``approval.ambiguous``.
    """
    digest = digest.lower()
    found = [request for request in requests(state) if request.digest.startswith(digest)]
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_PREFIX},64}}", digest) or len(found) > 1:
        raise InputError("approval.ambiguous", party=party, digest=digest, allowed=SHORTEST_PREFIX)
    if not found:
        raise InputError("approval.unknown", party=party, digest=digest)
    return found[0]


def approve_request(state: State, digest: str, days: int, *, party: str, now: datetime | None = None) -> datetime:
    """Approve the start with this whole digest for so many days; returns until when, in UTC.

    Raises `InputError` ``approval.unknown``.
    """
    with state.transaction() as connection:
        time = state.latest_time(connection, now or datetime.now(UTC))
        until = time + timedelta(days=days)
        changed = connection.execute(
            "UPDATE approvals SET approved = ?, until = ? WHERE start_digest = ? RETURNING start_digest",
            [time, until, digest],
        ).fetchall()
    if not changed:
        raise InputError("approval.unknown", party=party, digest=digest)
    return until.replace(tzinfo=UTC)


def withdraw_approval(state: State, digest: str) -> None:
    """Forget a start, approved or not: its next attempt asks anew. What runs already is not stopped (see `pause`)."""
    with state.transaction() as connection:
        connection.execute("DELETE FROM approvals WHERE start_digest = ?", [digest])
