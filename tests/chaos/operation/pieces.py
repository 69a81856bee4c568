"""A consortium in operation whose every process was started by itself, so that each can be killed, and started again.

They are those of `isthmus up`, without what starts again whatever has died: a Prefect server, an exchange, and the
workers of a coordinator and of three parties.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from isthmus.flows.demo import JOB_FILE
from isthmus.flows.jobs import Job, job_of
from isthmus.flows.sandbox import COORDINATOR, found_sandbox

from ...consortium import wait
from ...marked import Mark
from ...prefect_api import PrefectApi

PATIENTS = 600
SERVER, EXCHANGE = "prefect", "exchange"
START_S = 120.0
LONG = {"epochs": 60, "patience": 60, "batch_size": 4}  # trains for some ten seconds, alone on a machine
SHORT = {"epochs": 3}


def job_file(homes: Path, name: str, training: dict[str, Any]) -> dict[str, Any]:
    """The demo's vertical job, by a name of its own, of so much training."""
    content: dict[str, Any] = yaml.safe_load((homes / JOB_FILE).read_text())
    content["name"] = name
    content["training"] |= training
    return content


def run_of(job: dict[str, Any], number: int = 1) -> str:
    """The name of a job's so-manieth run."""
    read: Job = job_of(job)
    return f"{read.name}-{read.digest()[:8]}-{number}"


def step_of(homes: Path, run: str) -> int:
    """The last step of which a party has a checkpoint."""
    found = homes.glob(f"*/runs/{run}/checkpoints/step-*.safetensors")
    return max((int(path.stem.removeprefix("step-")) for path in found), default=0)


def _writes_to(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    except OSError:  # it is gone
        return ""


class Pieces:
    """All of it below one folder. Leaves nothing running when it is closed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.mark = folder, port, Mark()
        self.sandbox = found_sandbox(folder / "up", "vertical", patients=PATIENTS)
        self.homes = self.sandbox.homes.resolve()
        self.runs = (self.sandbox.folder / "runs").resolve()
        self.logs, self.temporary = folder / "up" / "logs", folder / "tmp"
        for made in (self.logs, self.temporary):
            made.mkdir()
        self.parties = self.sandbox.parties
        self.members = (*self.parties, COORDINATOR)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._said: dict[str, int] = {}
        self.api = PrefectApi(f"http://127.0.0.1:{port}/api")

    def close(self) -> None:
        """End all of it."""
        self.mark.kill()
        for process in self.processes.values():
            self._gone(process)
        self.api.close()

    def _gone(self, process: subprocess.Popen[bytes], seconds: float = 10) -> None:
        process.wait(seconds)
        if process.stdin is not None:
            process.stdin.close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def whole(self) -> None:
        """Have every process run, and every worker serve."""
        for name, process in self.processes.items():
            if process.poll() is None:
                self.signal(name, signal.SIGCONT)
        started = [name for name in (SERVER, EXCHANGE) if self._start(name)]
        wait(self.api.answers, START_S)
        started += [name for name in self.members if self._start(name)]
        for name in started:
            self._until_it_serves(name)

    def start(self, *names: str) -> None:
        """Start what has ended, and wait until it serves."""
        for name in names:
            assert self._start(name), f"{name} runs"
        for name in names:
            self._until_it_serves(name)

    def _until_it_serves(self, name: str) -> None:
        if name == SERVER:
            wait(self.api.answers, START_S)
            return
        word = "serves on" if name == EXCHANGE else "serves pool"
        wait(lambda: word in self.said(name) or self.processes[name].poll() is not None, START_S)
        assert self.processes[name].poll() is None, self.said(name)

    def said(self, name: str) -> str:
        """What the process has printed since it was started last."""
        return (self.logs / f"{name}.log").read_bytes()[self._said[name] :].decode()

    def _start(self, name: str) -> bool:
        if name in self.processes and self.processes[name].poll() is None:
            return False
        words = {SERVER: ("attended", "prefect-server", "127.0.0.1", self.port)}.get(name) or self._command(name)
        module, *rest = map(str, words)
        with (self.logs / f"{name}.log").open("ab") as log:
            self._said[name] = log.tell()
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", f"isthmus.flows.{module}", *rest],
                cwd=self.folder,
                stdin=subprocess.PIPE,  # its end would end a server
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        return True

    def _command(self, name: str) -> tuple[object, ...]:
        poll = ("--homes", self.homes, "--poll", 0.4)
        if name == EXCHANGE:
            return ("cli", "exchange", "start", "--folder", self.sandbox.exchange_folder)
        if name == COORDINATOR:
            return ("cli", "coordinator", "start", name, "--runs", self.runs, *poll)
        return ("cli", "party", "start", name, *poll)

    def environment(self) -> dict[str, str]:
        mine = {
            "PREFECT_HOME": str(self.folder / "up" / "prefect"),
            "PREFECT_API_URL": self.api.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "ISTHMUS_DEBUG": "1",  # a trace of what is our fault, in the logs
            "TMPDIR": str(self.temporary),
        }
        return {**os.environ, **mine, **self.mark.environment}

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9 of that process alone; who depends on it sees to it by itself."""
        self.processes[name].kill()
        self._gone(self.processes[name])

    def stop(self, name: str, seconds: float = 30) -> None:
        """SIGTERM, as a service manager does it."""
        self.processes[name].terminate()
        self._gone(self.processes[name], seconds)

    def lose_host(self, name: str) -> list[int]:
        """kill -9 of all processes of one member at once: its worker, its vaults, the flows that it coordinates."""
        own = [self.processes[name].pid, *self.all_vaults(name)]
        own += self.flows() if name == COORDINATOR else []
        self.mark.kill(own)
        self._gone(self.processes[name])
        return own

    def vaults(self, member: str = "") -> list[int]:
        """The process ids of all vaults at work, or of a member's: each of them writes into the log of its run."""
        return [pid for pid in self.all_vaults(member) if _writes_to(pid).endswith("/vault.log")]

    def all_vaults(self, member: str = "") -> list[int]:
        """The same, with those that are ready for the next job."""
        home = str(self.homes / member) if member else ""
        return [seen.pid for seen in self.mark.processes("-m isthmus.flows.vault ", f"--home {home}")]

    def settled(self, seconds: float = 60) -> list[str]:
        """Wait until no job is being done, and all is ready for the next one; the commands of all processes."""

        def there() -> dict[str, int]:
            return {"flows": len(self.flows())} | {member: len(self.all_vaults(member)) for member in self.members}

        wanted = {"flows": 1, **dict.fromkeys(self.members, 1), COORDINATOR: 2}  # its flow has one to sign with
        until = time.monotonic() + seconds
        while self.vaults() or there() != wanted:
            assert time.monotonic() < until, (there(), self.vaults())
            time.sleep(0.2)
        return sorted(seen.words for seen in self.mark.processes())

    def flows(self) -> list[int]:
        """The processes of coordinating flows, that which waits for its turn among them; oldest first."""
        return [seen.pid for seen in self.mark.processes("isthmus.flows.workers.coordinating")]

    def no_vault(self, seconds: float = 20) -> None:
        """No vault is left, or will be soon."""
        wait(lambda: not self.vaults(), seconds)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def job(self, name: str, training: dict[str, Any]) -> dict[str, Any]:
        """See `job_file`."""
        return job_file(self.homes, name, training)

    def start_long(self, name: str) -> tuple[str, str]:
        """Start a job that trains for some time, and see it train; its id at the server and its run's name."""
        job = self.job(name, LONG)
        flow = self.api.start(job)
        run = run_of(job)
        self.until_it_trains(flow, run)
        return flow, run

    def until_it_trains(self, flow: str, run: str, step: int = 3) -> None:
        """Wait until there are checkpoints."""

        def ended() -> bool:
            return self.api.state(flow) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        wait(lambda: step_of(self.homes, run) >= step or ended(), 150)
        assert not ended(), self.api.run(flow)["state"]

    def vault_log(self, member: str, run: str) -> str:
        """What a member's vaults have noted of a run."""
        path = self.homes / member / "runs" / run / "vault.log"
        return path.read_text() if path.exists() else ""

    def attempts(self, member: str, run: str) -> int:
        """How many attempts a member has begun."""
        return self.vault_log(member, run).count("INFO isthmus.vault attempt")

    def models(self, run: str) -> list[str]:
        """Who has a model of a run."""
        return sorted(path.parts[-4] for path in self.homes.glob(f"*/models/{run}/part.safetensors"))

    def resumed(self, run: str) -> bool:
        """Whether a run's report says that it went on from an earlier attempt."""
        return bool(json.loads((self.runs / run / "summary.json").read_text())["resumed"])

    def run_folders_after(self, run: str) -> list[str]:
        """Other runs of the same job: there are some where it was started over."""
        name = run.rpartition("-")[0]
        return [path.name for path in self.runs.glob(f"{name}-*") if path.name != run]
