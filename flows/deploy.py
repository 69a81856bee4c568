"""Deployments: the vertical job in the Prefect UI, with its form and an optional schedule."""

from __future__ import annotations

import os

from prefect.types.entrypoint import EntrypointType

from ..parties.errors import InputError
from .coordinate import vertical
from .jobs import VerticalJob


def serve_vertical(name: str, job: VerticalJob | None, cron: str | None) -> None:
    """Register one deployment of the vertical job and run what it starts, on this machine, until stopped.

    Raises `InputError` ``prefect.unreachable`` without a server: a deployment on an embedded one would be gone with it.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise InputError("prefect.unreachable")
    vertical.serve(
        name=name,
        cron=cron,
        parameters={"job": job.canonical()} if job else None,
        description="Find the shared patients, then train one split model. Each party keeps its rows.",
        tags=["isthmus"],
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=True,
    )
