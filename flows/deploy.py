"""Deployments: jobs in the Prefect UI, each kind with its form, and an optional schedule."""

from __future__ import annotations

import os

import prefect
from prefect.types.entrypoint import EntrypointType

from ..parties.errors import InputError
from .coordinate import flow_of
from .jobs import Job
from .kinds import KINDS, room


def serve_jobs(name: str, job: Job | None, cron: str | None) -> None:
    """Register one deployment of a job's kind, or one of each kind without a job, and run what they start.

    Raises `InputError` ``prefect.unreachable`` without a server: a deployment on an embedded one would be gone with it.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise InputError("prefect.unreachable")
    deployments = [
        flow_of(kind).to_deployment(
            name=name,
            cron=cron,
            parameters={"job": job.canonical()} if job else None,
            description=room(kind, "job").JOB.__doc__.splitlines()[0],
            tags=["isthmus"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for kind in ((job.kind,) if job else KINDS)
    ]
    prefect.serve(*deployments, print_starting_message=True)
