"""`isthmus submit`: start or schedule a job file at the Prefect server, as its form in the UI does."""

from __future__ import annotations

import asyncio
import json as json_module
import re
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.console import Console

from ..parties.catalogue import CATALOGUE
from ..parties.errors import InputError, IsthmusError, PeerFailure, error_of
from ..parties.starts import Start
from .deploy import NAME
from .jobs import Job
from .terminal import console
from .workers.server import FINAL, RunState, Server, ServerGoneError, connected

POLL_S = 1.0
PATIENCE_S = 30.0


class _Deployment(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: UUID


def submit_and_show(job: Job, start: Start | None, *, cron: str | None, fresh: bool, wait: bool, json: bool) -> None:
    """Start a job, or have it started at times, and by default see it end.

    Raises the error that the run ended with, `InputError` ``deployment.unknown`` and ``prefect.unreachable``.
    """
    parameters = {
        "job": job.canonical(),
        "fresh": fresh,
        "signature": start.model_dump_json() if start is not None else "",
    }
    out = Console(stderr=True, highlight=False) if json else console
    try:
        asyncio.run(_submit(job, parameters, cron, wait, out, json))
    except ServerGoneError as failure:
        raise InputError("prefect.unreachable", detail=str(failure)) from failure


async def _submit(job: Job, parameters: dict[str, Any], cron: str | None, wait: bool, out: Console, json: bool) -> None:
    async with connected(PATIENCE_S) as server:
        deployment = await _deployment(server, job.kind)
        if cron is not None:
            await _schedule(server, deployment, job, parameters, cron)
            out.print(f"{job.name} will be started at '{cron}' (UTC); the UI shows when", soft_wrap=True)
            facts: dict[str, Any] = {"deployment": str(deployment), "cron": cron}
        else:
            path = f"/deployments/{deployment}/create_flow_run"
            run: RunState = await server.ask("POST", path, {"parameters": parameters}, TypeAdapter(RunState))
            out.print(f"{job.name} is started, run {run.id}", soft_wrap=True)
            facts = {"run": str(run.id), "state": (await _see(server, run.id, out)) if wait else run.type}
    if json:
        sys.stdout.write(json_module.dumps(facts) + "\n")


async def _deployment(server: Server, kind: str) -> UUID:
    path = f"/deployments/name/{kind}/{NAME}"
    found: _Deployment | None = await server.ask_maybe(path, TypeAdapter(_Deployment))
    if found is None:
        raise InputError("deployment.unknown", kind=kind)
    return found.id


async def _schedule(server: Server, deployment: UUID, job: Job, parameters: dict[str, Any], cron: str) -> None:
    """One schedule a job: saying it again replaces it."""
    schedule = {"cron": cron, "timezone": "UTC"}
    wanted = {"schedule": schedule, "active": True, "parameters": parameters, "slug": f"isthmus-{job.name}"}
    path = f"/deployments/{deployment}/schedules"
    there = await server.ask("GET", path, None, TypeAdapter(list[_Slug]))
    for old in there:
        if old.slug == wanted["slug"]:
            await server.forget_schedule(deployment, old.id)
    await server.ask("POST", path, [wanted], TypeAdapter(list[_Deployment]))


class _Slug(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: UUID
    slug: str | None = None


async def _see(server: Server, run: UUID, out: Console) -> str:
    """Wait for a run's end; raises what it ended with."""
    last = ""
    while True:
        found = (await server.states([run])).get(run)
        if found is None:
            raise PeerFailure("worker.lost", party="the coordinator")
        if found.type != last:
            last = found.type
            out.print(f"  {datetime.now(UTC):%H:%M:%S}  {last.lower()}")
        if found.type in FINAL:
            if found.type != "COMPLETED":
                raise _error(found)
            return found.type
        await asyncio.sleep(POLL_S)


def _error(found: RunState) -> IsthmusError:
    if found.type == "CANCELLED":
        return PeerFailure("worker.cancelled")
    word = re.search(r"error\[([a-z_.]{1,40})\]: (.{0,300})", found.message)
    code = word[1] if word and word[1] in CATALOGUE else "internal" if found.type == "FAILED" else "worker.lost"
    error = error_of(code, party="the coordinator")
    if word and code == word[1]:
        error.what = word[2]  # the names in it, which only that side knows
        error.args = (f"error[{code}]: {word[2]}",)
    return error
