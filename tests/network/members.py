"""The members of the demo and their exchange: a folder each as if on a machine of its own, and their processes.

Everything by the commands that people use. A member's processes run in its own place (`namespaces`), where the folders
of all others are hidden from them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from namespaces import Network

sys.path.append(str(Path(__file__).parents[1]))
from consortium import free_port, isthmus, wait

from isthmus.flows.jobs import Job

THRESHOLD = 5
PORT, METRICS_PORT = 7443, 9464


class Members:
    """The members' folders below `root`, each as if on a machine of its own, and the exchange's."""

    def __init__(self, root: Path, network: Network, *, coordinator: str) -> None:
        self.root, self.network, self.coordinator = root, network, coordinator
        self.names = tuple(network.addresses)
        self.machines = {name: root / "machines" / name for name in self.names}
        self.exchange = root / "machines" / "exchange"
        self.port, self.metrics = (PORT, METRICS_PORT) if network.enforced else (free_port(), free_port())
        self.processes: list[subprocess.Popen[Any]] = []

    def homes(self, name: str) -> Path:
        """The folder with a member's home in it, and no other."""
        return self.machines[name] / "homes"

    def found(self, made: Path) -> str:
        """Take each member's home out of `made`; keys, the exchange's folder and the roster; the roster's digest."""
        for name in self.names:
            self.homes(name).mkdir(parents=True)
            (made / name).rename(self.homes(name) / name)
            role = "coordinator" if name == self.coordinator else "party"
            isthmus("init", role, name, "--homes", self.homes(name))
        address = f"{self.network.exchange}:{self.port}"
        isthmus("init", "exchange", "main", "--address", address, "--folder", self.exchange)
        configuration = {"name": "main", "listen": address, "metrics": f"127.0.0.1:{self.metrics}"}
        (self.exchange / "exchange.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
        roster = self.root / "roster.yaml"
        files = [self.homes(name) / name / f"{name}.member.yaml" for name in self.names]
        words = ("--name", "hearts", "--threshold", THRESHOLD)
        isthmus("consortium", "add", roster, *files, self.exchange / "main.member.yaml", *words)
        for name in self.names:
            isthmus("consortium", "sign", roster, name, "--homes", self.homes(name))
        digest: str = json.loads(isthmus("consortium", "verify", roster, "--json"))["digest"]
        for folder in (*(self.homes(name) / name for name in self.names), self.exchange):
            isthmus("consortium", "accept", roster, folder, "--digest", digest)
        return digest

    def sign(self, job: Job, starter: str) -> Path:
        """The file of a job that the starter has signed."""
        plain, signed = self.root / f"{job.name}.yaml", self.root / f"{job.name}.signed.yaml"
        plain.write_text(yaml.safe_dump(job.canonical(), sort_keys=False))
        isthmus("sign", plain, "--as", starter, "--homes", self.homes(starter), "--runs", 5, "--out", signed)
        return signed

    def start_exchange(self) -> str:
        """Start it and wait until it serves; the line that says so."""
        log = self.root / "exchange.log"
        process = self.spawn(None, log, log, "-m", "isthmus.flows.cli", "exchange", "start", "--folder", self.exchange)
        wait(lambda: "serves on" in log.read_text() or process.poll() is not None, 60)
        if process.poll() is not None:
            raise RuntimeError(f"the exchange has not started:\n{log.read_text()}")
        return next(line for line in log.read_text().splitlines() if "serves on" in line)

    def spawn(self, name: str | None, log: Path, errors: Path, *words: object) -> subprocess.Popen[Any]:
        """Python in a member's place (None: the exchange's), where it cannot see the other members' folders."""
        own = self.exchange if name is None else self.machines[name]
        without_proxy = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        with log.open("ab") as said, errors.open("ab") as told:
            process = subprocess.Popen(
                [*self.network.inside(name, self.hidden(name)), sys.executable, *map(str, words)],
                cwd=own,
                env=without_proxy,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=told,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def hidden(self, name: str | None) -> list[Path]:
        """The folders that belong to others than a member (None: the exchange)."""
        own = self.exchange if name is None else self.machines[name]
        folders = (*self.machines.values(), self.exchange, self.root / "made", self.root / "together")
        return [folder for folder in folders if folder != own and folder.exists()]

    def relayed(self) -> dict[str, float]:
        """What the exchange says that it has passed on, and dropped, from its own /metrics."""
        ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{self.metrics}/metrics').read().decode())"
        words = [*self.network.inside(None), sys.executable, "-c", ask]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("isthmus_exchange_"))
        return {name: float(value) for name, _, value in lines}

    def close(self) -> None:
        """End every process that is still there; vaults end with the pipe to those that started them."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM if process.poll() is None else signal.SIGKILL)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
