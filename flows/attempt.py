"""One attempt at a run of a job, inside a coordinating flow: the members do their parts, the journal becomes a report.

The members are had in one of two ways. As a rule every vault is a process on this machine (`launch.Here`). Where the
environment names a seat in a consortium (`workers.seat`), each member is asked through its own worker
(`workers.members`), and the job carries a signature: the one that was given, that of an earlier attempt at this run, or
one of the seat's own member, if its policy lets its flows have one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as this_run
from pydantic import ValidationError

from ..parties.errors import InputError, IsthmusError, PeerFailure
from ..parties.events import Fingerprint, Phase, PublicEvent
from ..parties.files import write_whole
from ..parties.starts import Start
from .jobs import Job
from .journal import Journal, Listener
from .kinds.vertical.baselines import Baselines, may_pool, run_baselines
from .kinds.vertical.job import VerticalJob
from .launch import Here, together
from .orders import Sign
from .party import HERE, party_flow, sealed
from .progress import artifact_key, progress_artifacts
from .report import failure_markdown, summarise, write_report
from .runs import OpenRun, Status, open_run
from .workers.seat import Seat, seat

HOMES_VARIABLE, RUNS_VARIABLE = "ISTHMUS_HOMES", "ISTHMUS_RUNS"
START_FILE = "start.json"  # in a run's folder: who has signed it
LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("isthmus_listeners", default=())

Part = Callable[[str], Awaitable[object]]  # of a member, by its name
Parts = Callable[[Job, Journal, Sequence[Phase]], AbstractAsyncContextManager[Part]]


async def attempt(
    job: Job,
    phases: Sequence[Phase],
    *,
    signature: str = "",
    fresh: bool = False,
    baselines: bool = False,
    alignment: str = "",
) -> tuple[str, dict[str, Any]]:
    """The name of the run, and every number of its report. `alignment`: the digest that has to come out.

    `signature` is what `isthmus sign` prints; `baselines` are of a vertical job on one machine. Raises the error that
    explains best why it failed; the run's record and an artifact then hold each member's own.
    """
    at, homes = seat(), homes_folder()
    start = _start_of(signature)
    if baselines:
        assert isinstance(job, VerticalJob)
        may_pool(homes, job)  # said before anything starts
    with open_run(runs_folder(), job, fresh=fresh) as run:
        journal = Journal(run.name, listeners=[*LISTENERS.get(), _expecting(alignment)])
        status: Status = "unfinished"
        errors: dict[str, IsthmusError] = {}
        error: IsthmusError | None = None
        try:
            async with progress_artifacts(job, journal):
                parts = _by_workers(at, run, start) if at else _here(homes, run, start)
                async with parts(job, journal, phases) as part:
                    await together(job, part, errors)
            summary = summarise(job, journal, run.record)
            write_report(run.folder, summary)
            if tuple(phases) == job.phases:
                status = "finished"  # for the parties, whatever becomes of the comparison
            if baselines:
                summary = summarise(job, journal, run.record, baselines=await compare(homes, run, journal))
                write_report(run.folder, summary)
        except asyncio.CancelledError:
            error = PeerFailure("worker.cancelled")
            raise
        except IsthmusError as failure:
            error = failure
            await _show_failure(job, run.name, failure, errors)
            raise
        finally:
            run.save(status, error, errors)
    return run.name, summary


def homes_folder() -> Path:
    """Where the parties' homes are: no parameter, since parameters are stored by the Prefect server."""
    return Path(os.environ.get(HOMES_VARIABLE, "homes"))


def runs_folder() -> Path:
    """Where runs and reports are written."""
    return Path(os.environ.get(RUNS_VARIABLE, "runs"))


def _here(homes: Path, run: OpenRun, start: Start | None) -> Parts:
    """Every member's vault a process on this machine."""

    @asynccontextmanager
    async def parts(job: Job, journal: Journal, phases: Sequence[Phase]) -> AsyncIterator[Part]:
        names = [phase.value for phase in phases]
        async with Here(job, homes, run.name, journal, fresh=run.fresh, start=start) as here:
            HERE.set(here)
            yield lambda member: party_flow(job, member, names)

    return parts


def _by_workers(at: Seat, run: OpenRun, given: Start | None) -> Parts:
    """Every member asked through its own worker."""

    @asynccontextmanager
    async def parts(job: Job, journal: Journal, phases: Sequence[Phase]) -> AsyncIterator[Part]:
        from .workers.members import Members
        from .workers.server import ServerGoneError, connected

        start = await _kept_start(at, job, run, given)
        try:
            async with connected() as server:
                name, number = run.name, run.record.attempts
                within = UUID(this_run.id)
                members = Members(server, within, job, name, number, journal, start, fresh=run.fresh)
                async with members:
                    yield lambda member: members.member(member, phases)
        except ServerGoneError as failure:
            raise InputError("prefect.unreachable", detail=str(failure)) from failure

    return parts


def _start_of(signature: str) -> Start | None:
    """Raises `InputError` ``order.signature``."""
    if not signature.strip():
        return None
    try:
        return Start.model_validate_json(signature)
    except ValidationError as failure:
        raise InputError("order.signature") from failure


async def _kept_start(at: Seat, job: Job, run: OpenRun, given: Start | None) -> Start:
    """Who has signed this run: as given, as an earlier attempt had it, or the seat's own member now.

    One signature a run, however many attempts it takes: parties count the attempts of each.
    """
    path = run.folder / START_FILE
    if given is None and path.is_file() and not run.fresh:
        given = Start.model_validate_json(path.read_bytes())
    if given is None:
        said = await at.keeper.sign(at.member, Sign(sign=job.canonical(), run=run.name))
        given = Start(
            consortium=at.consortium,
            job=job.digest(),
            kind=job.kind,
            by=at.member,
            until=datetime.fromtimestamp(said.until, UTC),
            runs=1,
            nonce=said.nonce,
            signature=said.signature,
        )
    write_whole(path, given.model_dump_json().encode(), party="the coordinator")
    return given


async def _show_failure(job: Job, run: str, error: IsthmusError, errors: dict[str, IsthmusError]) -> None:
    """The report of a run that failed: each member's error and what to do about it."""
    await acreate_markdown_artifact(
        failure_markdown(job, run, error, errors), key=f"{artifact_key(job.name)}-report", description=run
    )


@task(name="baselines", cache_policy=NO_CACHE, persist_result=False)
@sealed
async def compare(homes: Path, run: OpenRun, journal: Journal) -> Baselines:
    """Simulations only: what each party could do alone, by a process of its own that reads all homes."""
    return await run_baselines(homes, run.folder, run.name, run.record.job, journal)


def _expecting(alignment: str) -> Listener:
    def check(party: str, event: PublicEvent) -> None:
        if alignment and isinstance(event, Fingerprint) and event.name == "alignment" and event.value != alignment:
            raise InputError("run.realigned")

    return check
