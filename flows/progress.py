"""Progress artifacts in the Prefect UI: one a phase, over all members, kept up to date while they work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from ..parties.events import Finished, Phase, Progress
from .jobs import Job
from .journal import Journal

EVERY_S = 1.0
_log = logging.getLogger("isthmus.coordinator")


@asynccontextmanager
async def progress_artifacts(job: Job, journal: Journal) -> AsyncIterator[None]:
    """Keep one progress artifact a phase up to date while the parties work."""
    artifacts: dict[Phase, UUID] = {}

    async def publish() -> None:
        for phase, share in _shares(job, journal).items():
            percent = round(100 * share, 1)
            if phase in artifacts:
                await aupdate_progress_artifact(artifacts[phase], percent)
            else:
                description = f"{phase.value}, run {journal.run}"
                artifacts[phase] = await acreate_progress_artifact(
                    percent, key=f"{artifact_key(job.name)}-{phase.value}", description=description
                )

    async def try_to_publish() -> None:
        try:
            await publish()
        except Exception as failure:  # a server that is gone for a while stops no job
            _log.warning("progress could not be shown: %s", type(failure).__name__)

    async def keep_publishing() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await try_to_publish()

    publisher = asyncio.ensure_future(keep_publishing())
    try:
        yield
    finally:
        publisher.cancel()
        await asyncio.gather(publisher, return_exceptions=True)
    await try_to_publish()


def _shares(job: Job, journal: Journal) -> dict[Phase, float]:
    """How far each phase is, over all parties, 0 to 1."""
    shares: dict[Phase, dict[str, float]] = {}
    for party, event in journal.of(Progress):
        done = (event.index - 1 + (event.done / event.total if event.total else 1)) / event.units
        shares.setdefault(event.phase, {})[party] = done
    for party, ended in journal.of(Finished):  # training may stop early
        if ended.phase in shares:
            shares[ended.phase][party] = 1.0
    workers = {phase: 1 if phase is Phase.COMPARE else len(job.members) for phase in shares}
    return {phase: min(1.0, sum(of.values()) / workers[phase]) for phase, of in shares.items()}


def artifact_key(name: str) -> str:
    """An artifact's key: lower case, digits and dashes."""
    return name.replace("_", "-")
