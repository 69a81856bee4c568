"""The process of one coordinating flow: started ahead, so that a run need not wait for Prefect to be imported.

::

    1  worker → process   one JSON line: the run, the kind of job, the parameters that the worker has read
    2  worker → process   "stop", or the end of the pipe: the flow is cancelled, and with it every member's part

The flow is one of ours, by its kind; what the server names is not looked at. Its result is never read back from a
state, since that would load whatever file a server names there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async

from ..coordinate import flow_of
from ..jobs import job_of
from ..journal import log_to_stderr
from .orders import Assignment
from .seat import seat


def main() -> None:
    """Wait for an assignment, and do it. The states of the run are the flow engine's to tell the server."""
    log_to_stderr()
    try:
        asyncio.run(_wait_and_run())
    except BaseException as failure:  # the engine has told the server; the worker looks after the rest
        print(type(failure).__name__, file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)  # what the libraries would tidy up takes seconds


async def _wait_and_run() -> None:
    at = seat()
    if at is not None:
        await at.keeper.prepare()  # to sign
    line = await asyncio.to_thread(sys.stdin.readline)
    if line.strip():
        await _run(Assignment.model_validate_json(line))


async def _run(given: Assignment) -> None:
    async with get_client() as client:
        flow_run = await client.read_flow_run(given.run)
    # With a storage of its own, though nothing is stored: without one Prefect loads the block that the server names.
    flow = flow_of(given.kind).with_options(result_storage=Path(os.devnull))
    parameters = {"job": job_of(given.job), "fresh": given.fresh, "signature": given.signature}
    running = asyncio.ensure_future(run_flow_async(flow, flow_run=flow_run, parameters=parameters, return_type="state"))
    loop = asyncio.get_running_loop()

    def watch() -> None:
        os.read(0, 1)  # not by sys.stdin, whose lock would be held when the interpreter ends
        loop.call_soon_threadsafe(running.cancel)

    threading.Thread(target=watch, daemon=True).start()
    await running


if __name__ == "__main__":
    main()
