"""What a consortium registers at a Prefect server, and what stays of it when it registers again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from isthmus.flows.deploy import register
from isthmus.flows.jobs import load_job
from isthmus.flows.kinds import KINDS

JOB = load_job(Path(__file__).parents[2] / "examples" / "vertical.yaml")


def test_registering_again_changes_nothing_that_people_have_set(server: Any) -> None:
    async def register_twice() -> tuple[Any, Any]:
        await register(["lab"], {"vertical": JOB})
        async with get_client() as client:
            before = await client.read_deployment_by_name("vertical/isthmus")
            monthly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 1 * *"))
            await client.create_deployment_schedules(before.id, [monthly])
        await register(["lab"])
        async with get_client() as client:
            return before, await client.read_deployment_by_name("vertical/isthmus")

    with temporary_settings({PREFECT_API_URL: server.url}):
        before, after = asyncio.run(register_twice())
    assert after.id == before.id
    assert [one.schedule.cron for one in after.schedules] == ["0 3 1 * *"]
    assert after.parameters == {"job": JOB.canonical()}


def test_every_kind_has_a_deployment_with_its_form_and_every_member_one_without(server: Any) -> None:
    async def found() -> tuple[list[Any], Any]:
        await register(["lab"])
        async with get_client() as client:
            kinds = [await client.read_deployment_by_name(f"{kind}/isthmus") for kind in KINDS]
            return kinds, await client.read_deployment_by_name("party/lab")

    with temporary_settings({PREFECT_API_URL: server.url}):
        kinds, lab = asyncio.run(found())
    for deployment in kinds:
        assert list(deployment.parameter_openapi_schema["properties"]) == ["job", "fresh", "signature"]
        assert deployment.enforce_parameter_schema
        assert deployment.work_pool_name == "isthmus"
    assert lab.parameter_openapi_schema["properties"] == {}
    assert lab.work_pool_name == "isthmus-lab"
