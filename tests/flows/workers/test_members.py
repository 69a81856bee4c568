"""A coordinating flow and its members' workers: who is waited for, what is heard, what is stopped."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from isthmus.flows.jobs import Job
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.flows.launch import together
from isthmus.flows.workers.members import Members
from isthmus.flows.workers.orders import said_key
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Count, Failed, Phase

from .fake_server import FakeServer

PHASES = VerticalJob.phases


@pytest.fixture
def job() -> Job:
    parties = [
        {"name": "insurer", "dataset": "members", "columns": ["age"], "label": "died"},
        {"name": "lab", "dataset": "results", "columns": ["*"]},
    ]
    align = {"passes": [["national_id"]], "at_least": 20}
    return VerticalJob.model_validate({"name": "heart", "purpose": "testing", "parties": parties, "align": align})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' last words are not waited for as long as those of real vaults."""
    monkeypatch.setattr("isthmus.flows.launch.LAST_WORDS_S", 0.2)


class World:
    """A job's members at a server, on which a test acts as their workers would."""

    def __init__(self, job: Job, **options: Any) -> None:
        self.server, self.job, self.journal = FakeServer(), job, Journal("run")
        members = Members(self.server, uuid4(), job, job.run_name(1), 1, self.journal, None, **options)  # type: ignore[arg-type]
        self.members, self.errors = members, dict[str, IsthmusError]()

    def part(self, member: str) -> Any:
        """The run that a member was given; None before that."""
        pool = f"isthmus-{member}"
        return next((run for run, of in self.server.pools.items() if of == pool), None)

    async def go(self) -> None:
        async with self.members:
            await together(self.job, lambda member: self.members.member(member, PHASES), self.errors)


async def _soon(ask: Any, seconds: float = 8) -> Any:
    for _ in range(int(seconds / 0.02)):
        if answer := ask():
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


def _run(world: World, act: Any) -> None:
    async def run() -> None:
        going = asyncio.ensure_future(world.go())
        try:
            await act(going)
        finally:
            await asyncio.gather(going, return_exceptions=True)
        going.result()

    asyncio.run(asyncio.wait_for(run(), 40))


def test_each_member_is_given_its_order_and_what_it_tells_is_heard(job: Job) -> None:
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")

    async def act(going: Any) -> None:
        for member in job.members:
            run = await _soon(lambda member=member: world.part(member))
            order = world.server.given[run].parameters["order"]
            assert (order["job"], order["run"]) == (job.canonical(), job.run_name(1))
            world.server.set_state(run, "RUNNING")
            await world.server.post(run, said_key(0), Count(name="rows", value=len(member)).model_dump_json())
            world.server.set_state(run, "COMPLETED")

    _run(world, act)
    assert {member: event.value for member, event in world.journal.of(Count)} == {"lab": 3, "insurer": 7}


def test_who_is_away_gets_its_run_and_the_others_wait_for_it(job: Job) -> None:
    world = World(job)
    world.server.be_online("isthmus-insurer")

    async def act(going: Any) -> None:
        await _soon(lambda: world.part("lab"))  # which people see as late
        await asyncio.sleep(0.6)
        assert world.part("insurer") is None
        world.server.be_online("isthmus-lab", "isthmus-insurer")
        await _soon(lambda: world.part("insurer"))
        for member in job.members:
            world.server.set_state(world.part(member), "COMPLETED")

    _run(world, act)
    assert len(world.server.pools) == 2


def test_who_never_comes_ends_the_job_at_the_deadline_and_nobody_else_has_begun(job: Job) -> None:
    world = World(job, deadline_s=1.0)
    world.server.be_online("isthmus-insurer")
    with pytest.raises(IsthmusError, match=r"worker.offline\]: lab's worker has not taken the job within 1 s"):
        _run(world, lambda going: asyncio.sleep(0))
    assert world.part("insurer") is None
    assert world.server.runs[world.part("lab")].type == "CANCELLED"


def test_the_first_failure_stops_the_others_and_is_told_with_its_words(job: Job) -> None:
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")

    async def act(going: Any) -> None:
        lab = await _soon(lambda: world.part("lab"))
        insurer = await _soon(lambda: world.part("insurer"))
        for run in (lab, insurer):
            world.server.set_state(run, "RUNNING")
        failed = Failed(phase=Phase.AGREE, code="policy.column", names={"party": "lab", "column": "age"})
        await world.server.post(lab, said_key(0), failed.model_dump_json())
        world.server.set_state(lab, "FAILED", "error[policy.column]: …")
        await _soon(lambda: world.server.runs[insurer].type == "CANCELLING")
        world.server.set_state(insurer, "CANCELLED")

    with pytest.raises(IsthmusError) as caught:
        _run(world, act)
    assert caught.value.code == "policy.column"
    assert world.errors["lab"].facts["column"] == "age"
    assert world.server.runs[world.part("lab")].type == "FAILED"  # its own worker's word stays


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("CRASHED", "", "worker.lost"),
        ("CANCELLED", "", "worker.elsewhere"),
        ("FAILED", "error[order.invalid]: …", "order.invalid"),
        ("FAILED", "error[made.up]: <script>", "internal"),
        ("FAILED", "", "internal"),
    ],
)
def test_a_part_that_ends_without_its_vaults_word_is_told_by_its_state(
    job: Job, state: Any, message: str, code: str
) -> None:
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")

    async def act(going: Any) -> None:
        world.server.set_state(await _soon(lambda: world.part("lab")), state, message)
        insurer = await _soon(lambda: world.part("insurer"))
        await _soon(lambda: world.server.runs[insurer].type == "CANCELLED")

    with pytest.raises(IsthmusError) as caught:
        _run(world, act)
    assert caught.value.code == code


def test_a_word_that_no_vault_says_is_not_heard(job: Job) -> None:
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")
    lies = [
        '{"event": "count", "name": "rows", "value": -1}',
        '{"event": "traffic", "peer": "<b>mallory</b>", "topic": "train", "sent": 1, "received": 1}',
        "not even json",
        '{"event": "metric", "name": "auc", "part": "test", "value": 1e999}',
    ]

    async def act(going: Any) -> None:
        lab = await _soon(lambda: world.part("lab"))
        await world.server.post(lab, said_key(0), "\n".join(lies))
        for member in job.members:
            world.server.set_state(await _soon(lambda member=member: world.part(member)), "COMPLETED")

    _run(world, act)
    assert world.journal.events == []


def test_a_cancelled_flow_stops_every_part(job: Job) -> None:
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")

    async def act(going: Any) -> None:
        parts = [await _soon(lambda member=member: world.part(member)) for member in job.members]
        for part in parts:
            world.server.set_state(part, "RUNNING")
        going.cancel()
        await _soon(lambda: all(world.server.runs[part].type == "CANCELLING" for part in parts))
        for part in parts:
            world.server.set_state(part, "CANCELLED")

    with pytest.raises(asyncio.CancelledError):
        _run(world, act)


def test_a_part_whose_worker_does_not_answer_is_called_crashed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.flows.workers.members.STOP_S", 0.5)
    world = World(job)
    world.server.be_online("isthmus-lab", "isthmus-insurer")

    async def act(going: Any) -> None:
        for member in job.members:
            world.server.set_state(await _soon(lambda member=member: world.part(member)), "RUNNING")
        going.cancel()

    with pytest.raises(asyncio.CancelledError):
        _run(world, act)
    assert {found.type for found in world.server.runs.values()} == {"CRASHED"}
