"""`isthmus up`: a whole consortium on this machine, each member a process of its own, as on machines of their own.

::

    Prefect server   127.0.0.1:4200, its database in the folder
    exchange         a relay that only passes sealed frames on
    coordinator      deployments, coordinating flows
    a worker a party, whose vault is a child of its own

They end with this process, however it ends: each holds the end of a pipe from it (`attended`). One that dies by itself
is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ..parties.errors import InternalError
from .sandbox import COORDINATOR, Sandbox
from .workers.members import online
from .workers.orders import pool_of
from .workers.server import ServerGoneError, connected

START_S = 180.0
STOP_S = 20.0
AGAIN_S = 2.0  # before one that has died is started again
POLL_S = 0.4


@dataclass
class Up:
    """The processes of a sandbox. `port` is the Prefect server's."""

    sandbox: Sandbox
    port: int
    out: Console
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the Prefect server answers programs."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui(self) -> str:
        """Where people open it: the UI that the server itself prefers, of those that it has."""
        own = f"http://127.0.0.1:{self.port}"
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{own}/ui-settings", timeout=5) as told:  # noqa: S310
            settings = json.load(told)
            base = settings.get(f"{settings.get('default_ui')}_base_url") or "/"
            return f"{own}{base}".rstrip("/")
        return own

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGTERM or Ctrl-C."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        (self.sandbox.folder / "logs").mkdir(parents=True, exist_ok=True)
        watching = asyncio.ensure_future(self._run(on_ready))
        stopping = asyncio.ensure_future(stopped.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            for task in (watching, stopping):
                task.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)
            await self._stop()

    async def _run(self, on_ready: Callable[[], None]) -> None:
        homes, runs = str(self.sandbox.homes.resolve()), str((self.sandbox.folder / "runs").resolve())
        jobs = [word for job in self.sandbox.jobs for word in ("--job", str(job.resolve()))]
        poll = ("--poll", str(POLL_S))
        watched = [self._keep("prefect", "prefect-server", "127.0.0.1", str(self.port))]
        watched.append(
            self._keep("exchange", "exchange", "start", "--folder", str(self.sandbox.exchange_folder.resolve()))
        )
        tasks = [asyncio.ensure_future(one) for one in watched]
        try:
            await self._until(self._answers, "the Prefect server")
            members = [
                self._keep(party, "party", "start", party, "--homes", homes, *poll) for party in self.sandbox.parties
            ]
            hub = ("coordinator", "start", COORDINATOR, "--homes", homes, "--runs", runs)
            members.append(self._keep(COORDINATOR, *hub, *jobs, *poll))
            tasks += [asyncio.ensure_future(one) for one in members]
            await self._until(self._all_there, "a worker")
            on_ready()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, name: str, *words: str) -> None:
        """Have a process run, again and again."""
        while True:
            process = await self._start(name, *words)
            code = await process.wait()
            self.out.print(
                f"{name} has ended ({code}); {self._log(name)} says why; it is started again", style="yellow"
            )
            await asyncio.sleep(AGAIN_S)

    async def _start(self, name: str, *words: str) -> asyncio.subprocess.Process:
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "isthmus.flows.attended", *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        self._processes[name] = process
        return process

    def _log(self, name: str) -> Path:
        return self.sandbox.folder / "logs" / f"{name}.log"

    def _environment(self) -> dict[str, str]:
        mine = {
            "PREFECT_HOME": str((self.sandbox.folder / "prefect").resolve()),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "ISTHMUS_HOMES": str(self.sandbox.homes.resolve()),
        }
        return {**os.environ, **mine}

    async def _until(self, ask: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            answer = ask()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.3)
        raise InternalError("internal", party=what, detail="it did not start in time")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310  (our own address)
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    async def _all_there(self) -> bool:
        os.environ.update(self._environment())
        with contextlib.suppress(ServerGoneError):
            async with connected(patience_s=0) as server:
                pools = [pool_of(name) for name in (*self.sandbox.parties, COORDINATOR)]
                return all([online(await server.workers(pool)) for pool in pools])
        return False

    async def _stop(self) -> None:
        """The members first: they tell the server how their runs ended."""
        last = ("exchange", "prefect")
        for names in ([name for name in self._processes if name not in last], last):
            going = [process for name in names if (process := self._processes.get(name)) and process.returncode is None]
            for process in going:
                assert process.stdin is not None
                process.stdin.close()
            waits = [asyncio.ensure_future(process.wait()) for process in going]
            if waits:
                await asyncio.wait(waits, timeout=STOP_S)
            for process in going:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
