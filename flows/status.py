"""`isthmus status`: who of a consortium is online, with which version and roster, and how the last runs went."""

from __future__ import annotations

import asyncio
import json as json_module
import re
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.table import Table

from ..parties.errors import InputError
from .kinds import KINDS
from .terminal import console
from .workers.coordinator import POOL
from .workers.members import online
from .workers.orders import pool_of
from .workers.server import Server, ServerGoneError, StateType, connected

LAST = 10
PATIENCE_S = 5.0
_WORDS = re.compile(r"^(?P<member>\S+) isthmus (?P<version>\S+)(?: roster (?P<roster>\d+))?$")


@dataclass(frozen=True)
class MemberSeen:
    """A member, as its pool at the Prefect server shows it."""

    member: str
    online: bool
    version: str | None
    roster: int | None
    seconds_ago: int | None  # since its worker was last heard of
    coordinates: bool = False


@dataclass(frozen=True)
class RunSeen:
    """A job that was started at the Prefect server."""

    name: str
    kind: str
    state: str
    started: str | None
    message: str


@dataclass(frozen=True)
class Status:
    """What `isthmus status` shows."""

    members: tuple[MemberSeen, ...]
    runs: tuple[RunSeen, ...]


class _Named(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: StateType
    message: str | None = None


class _Run(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    flow_id: str
    state: _State | None = None
    start_time: datetime | None = None


class _Flow(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str
    name: str


def show_status(*, json: bool) -> None:
    """Print it; raises `InputError` ``prefect.unreachable``."""
    try:
        status = asyncio.run(_look())
    except ServerGoneError as failure:
        raise InputError("prefect.unreachable", detail=str(failure)) from failure
    if json:
        sys.stdout.write(json_module.dumps(asdict(status)) + "\n")
        return
    if not status.members:
        console.print("this Prefect server knows no consortium: `isthmus coordinator start` registers one")
        return
    members = Table("member", "worker", "heard of", "isthmus", "roster", box=None)
    for seen in status.members:
        state = "[green]online[/]" if seen.online else "[red]offline[/]"
        ago = "never" if seen.seconds_ago is None else f"{seen.seconds_ago} s ago"
        name = f"{seen.member} (coordinates)" if seen.coordinates else seen.member
        members.add_row(name, state, ago, seen.version or "–", str(seen.roster or "–"))
    console.print(members)
    rosters = {seen.roster for seen in status.members if seen.online and seen.roster}
    if len(rosters) > 1:
        console.print("[yellow]members that are online hold different versions of the roster[/]")
    console.print()
    if not status.runs:
        console.print("no job has been started yet")
        return
    runs = Table("job", "kind", "state", "started (UTC)", "", box=None)
    for run in status.runs:
        runs.add_row(run.name, run.kind, run.state, run.started or "–", run.message)
    console.print(runs)


async def _look() -> Status:
    async with connected(PATIENCE_S) as server:
        pools = await server.ask("POST", "/work_pools/filter", {"limit": 200}, TypeAdapter(list[_Named]))
        names = [pool.name for pool in pools]
        hubs = await server.workers(POOL) if POOL in names else []
        coordinating = {found["member"] for seen in hubs if (found := _WORDS.match(seen.name)) and online([seen])}
        prefix = pool_of("")
        members = [
            await _member(server, name.removeprefix(prefix), coordinating)
            for name in sorted(names)
            if name.startswith(prefix)
        ]
        flows = await server.ask("POST", "/flows/filter", {"limit": 200}, TypeAdapter(list[_Flow]))
        kinds = {flow.id: flow.name for flow in flows if flow.name in KINDS}
        wanted = {
            "flows": {"name": {"any_": list(KINDS)}},
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
            "sort": "START_TIME_DESC",
            "limit": LAST,
        }
        runs = await server.ask("POST", "/flow_runs/filter", wanted, TypeAdapter(list[_Run]))
    return Status(tuple(members), tuple(_run(run, kinds) for run in runs))


async def _member(server: Server, member: str, coordinating: set[str]) -> MemberSeen:
    seen = [worker for worker in await server.workers(pool_of(member)) if worker.last_heartbeat_time]
    if not seen:
        return MemberSeen(member, False, None, None, None, member in coordinating)
    latest = max(seen, key=lambda worker: worker.last_heartbeat_time or datetime.min.replace(tzinfo=UTC))
    assert latest.last_heartbeat_time is not None
    ago = int((datetime.now(UTC) - latest.last_heartbeat_time).total_seconds())
    words = _WORDS.match(latest.name)
    roster = int(words["roster"]) if words and words["roster"] else None
    version = words["version"] if words else None
    return MemberSeen(member, online([latest]), version, roster, ago, member in coordinating)


def _run(run: _Run, kinds: dict[str, str]) -> RunSeen:
    state = run.state.type.lower() if run.state else "unknown"
    found = re.search(r"error\[[a-z_.]+\]", run.state.message or "") if run.state else None
    started = run.start_time.strftime("%Y-%m-%d %H:%M:%S") if run.start_time else None
    return RunSeen(run.name, kinds.get(run.flow_id, "–"), state, started, found[0] if found else "")
