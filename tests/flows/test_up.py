"""`isthmus up`: a consortium of processes on this machine, jobs by its server, and an end that leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..consortium import free_port, wait

ISTHMUS = [sys.executable, "-P", "-m", "isthmus.flows.cli"]


@dataclass
class Up:
    """A sandbox that is up, in `folder`."""

    folder: Path
    port: int
    process: subprocess.Popen[str]

    def isthmus(self, *words: object, code: int = 0) -> Any:
        """One command against its server; the JSON that it prints."""
        env = {**os.environ, "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}
        done = subprocess.run(
            [*ISTHMUS, *map(str, words), "--json"],
            cwd=self.folder,
            env=env,
            text=True,
            capture_output=True,
            timeout=150,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def job(self, **changes: Any) -> Path:
        """The demo's job, quicker, with changes."""
        content = yaml.safe_load((self.folder / "up" / "homes" / "vertical.yaml").read_text())
        content["training"] |= {"epochs": 3}
        path = self.folder / f"{changes.get('name', 'job')}.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}))
        return path

    def processes(self) -> list[int]:
        """Every process of this sandbox but `isthmus up` itself."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (each / "cmdline").read_bytes()
                ours = os.fsencode(self.folder) in words or os.fsencode(self.folder) in (each / "environ").read_bytes()
                if ours and b"isthmus.flows" in words and int(each.name) not in (self.process.pid, os.getpid()):
                    found.append(int(each.name))
        return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder, port = tmp_path_factory.mktemp("sandbox"), free_port()
    log = (folder / "up.log").open("w")
    words = ["up", "--patients", "600", "--port", str(port)]
    process = subprocess.Popen(
        [*ISTHMUS, *words], cwd=folder, stdout=log, stderr=log, text=True, start_new_session=True
    )
    made = Up(folder, port, process)
    try:
        wait(lambda: "Ctrl-C ends" in (folder / "up.log").read_text() or process.poll() is not None, 240)
        assert process.poll() is None, (folder / "up.log").read_text()
        yield made
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.mark.timeout(300)
def test_all_members_are_online_and_a_job_runs_by_their_workers_to_its_report(up: Up) -> None:
    members = {seen["member"]: seen for seen in up.isthmus("status")["members"]}
    assert set(members) == {"lab", "insurer", "clinic", "coordinator"}
    assert all(seen["online"] and seen["roster"] == 1 for seen in members.values())
    assert up.isthmus("submit", up.job(name="by-workers"))["state"] == "COMPLETED"
    (folder,) = (up.folder / "up" / "runs").glob("by-workers-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parties"]["lab"]["rows"] > 100
    assert summary["shared"] > 100
    for party in ("lab", "insurer"):
        assert list((up.folder / "up" / "homes" / party / "models" / folder.name).glob("*.safetensors"))
    (seen,) = (run for run in up.isthmus("status")["runs"] if run["name"] == "by-workers")
    assert (seen["kind"], seen["state"]) == ("vertical", "completed")


@pytest.mark.timeout(200)
def test_a_job_that_a_policy_refuses_ends_with_its_code_at_everybody(up: Up) -> None:
    error = up.isthmus("submit", up.job(name="refused", purpose="curiosity"), code=3)["error"]
    assert error["code"] == "policy.purpose"
    record = json.loads(next((up.folder / "up" / "runs").glob("refused-*/run.json")).read_text())
    assert record["errors"].keys() & {"lab", "insurer"}
    assert set(record["errors"].values()) <= {"policy.purpose", "peer.gone", "worker.elsewhere", "peer.deadline"}


@pytest.mark.timeout(200)
def test_who_has_not_signed_and_may_not_sign_starts_nothing(up: Up) -> None:
    home = up.folder / "up" / "homes" / "coordinator" / "party.yaml"
    before = home.read_text()
    home.write_text(before.replace("signs: [vertical, transfer]", "signs: []"))
    try:
        error = up.isthmus("submit", up.job(name="unsigned"), code=3)["error"]
    finally:
        home.write_text(before)
    assert error["code"] == "policy.signs"
    assert not list((up.folder / "up" / "homes").glob("lab/runs/unsigned-*"))


@pytest.mark.timeout(200)
def test_what_is_killed_is_started_again_and_the_end_of_the_parent_ends_all(up: Up) -> None:
    wait(lambda: len(up.processes()) >= 6, 30)
    log = up.folder / "up" / "logs" / "lab.log"
    lab = next(pid for pid in up.processes() if b"start\0lab" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(lab, signal.SIGKILL)
    wait(lambda: log.read_text().count("serves pool") >= 2, 60)
    assert "lab has ended" in (up.folder / "up.log").read_text()
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.wait()
    began = time.monotonic()
    wait(lambda: not up.processes(), 40)
    assert time.monotonic() - began < 40
