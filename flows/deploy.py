"""Deployments: what a Prefect server is told of a consortium, so that people find, start and schedule its jobs there.

The catalogue of a consortium, registered as often as one likes with the same outcome::

    pool isthmus              deployment KIND/isthmus       one a kind of job, with its form: the coordinating flows
    pool isthmus-MEMBER       deployment party/MEMBER       one a member: its part of a job; nobody starts it by hand
    automation                                              a run that has not been heard of for 100 s is marked crashed

What the deployments say of code is for the UI alone: our workers run what they themselves hold (`workers`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import prefect
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import ParameterSchema, parameter_schema

from ..parties.errors import InputError
from .coordinate import flow_of
from .forms import form_of
from .jobs import Job
from .kinds import KINDS, room
from .workers.coordinator import POOL
from .workers.members import PARTY_FLOW
from .workers.orders import pool_of
from .workers.server import HEARTBEAT, WORKER_TYPE

NAME, TAG = "isthmus", "isthmus"
LOST_AFTER = timedelta(seconds=100)  # a server may be away for all of it but one beat
_ON_ONE_MACHINE = frozenset({"baselines"})  # parameters of flows that the members' workers do not take
LOST_RUNS = "isthmus: runs that are no longer heard of"
_TEMPLATE: dict[str, Any] = {  # nothing that the server may set; it wants some word here
    "job_configuration": {"name": "isthmus"},
    "variables": {"type": "object", "properties": {}},
}


def serve_jobs(name: str, job: Job | None, cron: str | None) -> None:
    """Register one deployment of a job's kind, or one of each kind without a job, and run what they start, here.

    Raises `InputError` ``prefect.unreachable`` without a server: a deployment on an embedded one would be gone with it.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise InputError("prefect.unreachable")
    deployments = []
    for kind in (job.kind,) if job else KINDS:
        filled = {"job": job.canonical()} if job else None
        deployment = flow_of(kind).to_deployment(
            name=name,
            cron=cron,
            parameters=filled,
            description=_description(kind),
            tags=[TAG],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployments.append(_with_form(deployment, kind))
    prefect.serve(*deployments, print_starting_message=True)


async def register(members: Iterable[str], jobs: Mapping[str, Job] | None = None, *, limit: int = 8) -> None:
    """Register the catalogue of a consortium; what people have set at a deployment since (schedules) stays.

    `jobs` fill the forms of their kinds in; `limit` is how many jobs run at a time.
    """
    jobs = jobs or {}
    async with get_client() as client:
        await _pool(client, POOL, "Coordinating flows: one run a job.", limit)
        for kind in KINDS:
            await _deployment(client, kind, NAME, work_pool_name=POOL, **_words(kind, jobs.get(kind)))
        for member in members:
            await _pool(client, pool_of(member), f"{member}'s part of jobs; {member}'s own worker does it.", limit)
            await _deployment(
                client,
                PARTY_FLOW,
                member,
                work_pool_name=pool_of(member),
                description=f"{member}'s part of a job. Coordinating flows start it; by hand it does nothing.",
                tags=[TAG],
                enforce_parameter_schema=False,
                parameter_openapi_schema={"type": "object", "properties": {}},
            )
        await _automation(client)


async def _deployment(client: PrefectClient, flow: str, name: str, **words: Any) -> None:
    """Make a deployment, or bring it up to date: Prefect's own `apply` would take the schedules away that people have
    set in the UI.
    """
    try:
        there = await client.read_deployment_by_name(f"{flow}/{name}")
    except ObjectNotFound:
        await client.create_deployment(await client.create_flow_from_name(flow), name, **words)
    else:
        await client.update_deployment(there.id, DeploymentUpdate(**words))


def _words(kind: str, job: Job | None) -> dict[str, Any]:
    """What a deployment of a kind says of itself; `job` fills its form in."""
    flow = flow_of(kind)
    drawn = parameter_schema(flow).model_dump(exclude_unset=True)
    filled = {"parameters": {"job": job.canonical()}} if job else {}
    return {
        "description": _description(kind),
        "tags": [TAG],
        "entrypoint": f"{flow.fn.__module__}.{flow.fn.__name__}",
        "parameter_openapi_schema": form_of(kind, drawn, without=_ON_ONE_MACHINE),
        "enforce_parameter_schema": True,
        **filled,
    }


def _description(kind: str) -> str:
    return str(room(kind, "job").JOB.__doc__.splitlines()[0])


def _with_form(deployment: RunnerDeployment, kind: str) -> RunnerDeployment:
    """The deployment with our form, for which it has no public place."""
    drawn = deployment._parameter_openapi_schema.model_dump(exclude_unset=True)
    deployment._parameter_openapi_schema = ParameterSchema.model_validate(form_of(kind, drawn))
    return deployment


async def _pool(client: PrefectClient, name: str, description: str, limit: int) -> None:
    try:
        there = await client.read_work_pool(name)
    except ObjectNotFound:
        new = WorkPoolCreate(
            name=name,
            type=WORKER_TYPE,
            description=description,
            base_job_template=_TEMPLATE,
            concurrency_limit=limit,
        )
        await client.create_work_pool(new)
        return
    if there.concurrency_limit != limit or there.base_job_template != _TEMPLATE:
        await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit, base_job_template=_TEMPLATE))


async def _automation(client: PrefectClient) -> None:
    """Without it, the runs of a host that is lost with all its processes would stay Running for ever."""
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    wanted = AutomationCore(
        name=LOST_RUNS,
        description=f"Marks a run as crashed that nobody has said to be alive for {LOST_AFTER.seconds} seconds.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            after={HEARTBEAT},
            expect={HEARTBEAT, *ends},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=LOST_AFTER,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=True,
                message=f"error[worker.lost]: not heard of for {LOST_AFTER.seconds} s; start the job again: it goes on "
                "where it stopped",
            )
        ],
    )
    there = await client.read_automations_by_name(LOST_RUNS)
    if there:
        await client.update_automation(there[0].id, wanted)
    else:
        await client.create_automation(wanted)
