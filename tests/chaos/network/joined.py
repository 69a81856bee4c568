"""Members that join a job at an exchange through a proxy; what they leave behind when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.events import Phase
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger

from ...consortium import Consortium, wait
from ...parties.cut_proxy import CutProxy

Weights = dict[str, dict[str, np.ndarray[Any, Any]]]
ENDED_S = 15.0  # beyond its deadline, for a member to be gone on a machine that has much else to do
_BY_NETWORK = ("roster.yaml", "roster.pin")
_LEARNT = ("models/*/*", "runs/*/**/*.safetensors")


class Joined:
    """The members of a world's job, joining it. `pristine` is a copy of that world from before."""

    def __init__(self, world: Any, pristine: Any, consortium: Consortium, proxy: CutProxy) -> None:
        self.world, self.pristine, self.consortium, self.proxy = world, pristine, consortium, proxy
        self.members: tuple[str, ...] = consortium.members
        self.homes: Path = consortium.homes
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._said_before: dict[str, int] = {}
        job = world.load_job()
        self.run = f"{job.name}-{job.digest()[:8]}-1"
        self.last_step: int = job.training.epochs if job.kind == "vertical" else job.rounds.count

    def join(self, *members: str, timeout_s: float = 60, **options: Any) -> None:
        """Have members, or all of them, join."""
        for member in members or self.members:
            log = self.consortium.folder / f"{member}.log"
            self._said_before[member] = log.stat().st_size if log.exists() else 0
            self.processes[member] = self.consortium.join(member, "--timeout", timeout_s, **options)

    def said(self, member: str) -> str:
        """What a member's last join has printed."""
        return self.consortium.said(member)[self._said_before[member] :]

    def vault_log(self, member: str) -> str:
        """What a member's vaults have noted of this run."""
        path = self.homes / member / "runs" / self.run / "vault.log"
        return path.read_text() if path.exists() else ""

    def attempts(self, member: str) -> int:
        """How many attempts a member has begun."""
        return self.vault_log(member).count("INFO isthmus.vault attempt")

    def ended(self, phase: str, member: str) -> bool:
        """Whether a member's last join has ended a phase."""
        return any(line.split()[1:2] == [phase] for line in self.said(member).splitlines() if "✓" in line)

    def steps(self, member: str = "*") -> int:
        """The last step of which a member, or any of them, has a checkpoint."""
        found = self.homes.glob(f"{member}/runs/{self.run}/checkpoints/step-*.safetensors")
        return max((int(path.stem.removeprefix("step-")) for path in found), default=0)

    def wait(self, ask: Any, seconds: float = 150) -> None:
        """Wait for what must happen before any member ends."""
        wait(lambda: ask() or any(one.poll() is not None for one in self.processes.values()), seconds)
        assert ask(), {member: self.said(member) for member in self.processes}

    def kill_vault(self, member: str) -> None:
        """kill -9."""
        os.kill(self.consortium.vault_of(self.processes[member]), signal.SIGKILL)

    def ends_well(self, seconds: float = 240) -> None:
        """Wait for the end of all; every one must be well."""
        deadline = time.monotonic() + seconds
        for process in self.processes.values():
            process.wait(max(1.0, deadline - time.monotonic()))
        told = {member: (process.returncode, self.said(member)) for member, process in self.processes.items()}
        assert all(code == 0 for code, _ in told.values()), told
        self.nothing_runs()

    def ends_with(self, member: str, code: int, *errors: str, within_s: float) -> float:
        """Wait for the end of one, which must be with this exit code and one of these errors; seconds that it took."""
        began = time.monotonic()
        self.processes[member].wait(within_s + ENDED_S)
        took = time.monotonic() - began
        said = self.said(member)
        assert self.processes[member].returncode == code, (member, said)
        assert any(f"error[{error}]" in said for error in errors), (member, said)
        assert "Traceback" not in said
        return took

    def nothing_runs(self) -> None:
        """No vault of these homes is left."""
        wait(lambda: not self.vaults(), 10)

    def vaults(self) -> list[int]:
        """The process ids of all vaults of these homes."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"isthmus.flows.vault" in words and str(self.homes).encode() + b"/" in words:
                found.append(int(folder.name))
        return found

    def models(self) -> Weights:
        """What is in the model files of this run, by member."""
        paths = sorted(self.homes.glob(f"*/models/{self.run}/*.safetensors"))
        return {path.parts[-4]: dict(read_tensors(path)[0]) for path in paths}

    def nothing_half_written(self, final: Weights | None = None) -> None:
        """Whatever is there under its name is whole, and every ledger verifies.

        With `final`, what a model file holds is what the run came to in the end; without it there must be none.
        """
        models = self.models()
        if final is None:
            assert not models
        assert_same(models, {member: (final or {})[member] for member in models})
        for path in self.homes.glob(f"*/runs/{self.run}/checkpoints/**/*.safetensors"):
            read_tensors(path)
        for member in self.members:
            Ledger(PartyHome(self.homes / member)).verify()

    def uninterrupted(self, folder: Path, attempt: int = 1) -> Weights:
        """The models of a run that nothing has stopped, in homes that belong to no consortium, by sockets.

        Where patients were aligned it begins with what the homes keep of that, since every alignment has an order of
        its own. Where there is a coordinator it begins from nothing, since a party never gives a round's sum a second
        time; `attempt` is the one in which the training has begun, since no two begin with the same model.
        """
        if self.world.job.get("coordinator"):
            twin = self.pristine
            for _ in range(attempt - 1):
                twin.run(self.run, phases=(Phase.AGREE, Phase.CLOSE))
        else:
            twin = self.world.copy_to(folder)
            for pattern in (*_BY_NETWORK, *_LEARNT):
                for path in list(twin.homes.glob(f"*/{pattern}")):
                    path.unlink()
        twin.run(self.run)
        paths = sorted(twin.homes.glob(f"*/models/{self.run}/*.safetensors"))
        return {path.parts[-4]: dict(read_tensors(path)[0]) for path in paths}


def assert_same(one: Weights, other: Weights) -> None:
    """Bit by bit."""
    assert one.keys() == other.keys()
    for member, weights in one.items():
        assert weights.keys() == other[member].keys()
        for name, value in weights.items():
            assert np.array_equal(value, other[member][name]), (member, name)
