"""How long people wait for `isthmus up` and for what they start there (`make bench-start`; QUICK=1 runs a short form).

The demo's consortium by `isthmus up`: a Prefect server, an exchange, a coordinator and three parties on this machine.
Its vertical job is started as the UI starts it, five times in a row, with all 5,000 patients and with 600.

- `up_s`: from the command to all workers serving, homes, keys and roster made on the way.
- `trigger_to_vault_s`: from the call that starts a job to the first line of the log of each party's vault; the later.
- `job_s`: from that call to the coordinating run's Completed.

Where the time goes, of the slower party: what the server notes of both runs, the coordinator's file with the signature,
and the vaults' logs, all by the clock of this machine::

    claim       the coordinator's worker looks (every 0.4 s), and has taken the run
    flow        Prefect's engine begins
    signature   the flow has begun a run, and its member's vault has signed it
    barrier     the flow has seen all workers there, and has started the party's run
    party       the party's worker looks (every 0.4 s), and has taken its run
    vault       a process that imports torch; policy, roster and signature judged, own rows counted

Medians (lowest to highest). Nothing is asserted of the figures; targets that are met or missed are printed. The last
line is JSON, with the figures of all 5,000 patients on top.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from marked import Mark  # noqa: E402
from prefect_api import PrefectApi  # noqa: E402
from whole_up import WholeUp  # noqa: E402

QUICK = os.environ.get("QUICK", "") not in ("", "0")
SAMPLES = 2 if QUICK else 5
PORT = 4340
WHOLE = "5,000 patients"
SIZES: dict[str, int | None] = {"600 patients": 600} if QUICK else {WHOLE: None, "600 patients": 600}
REST_S = 8.0  # between two jobs: a flow is made ready for the next one
JOB_S = 300.0
TARGETS = {"trigger_to_vault_s": 3.0, "job_s": 60.0}
STEPS = ("claim", "flow", "signature", "barrier", "party", "vault")


def at(text: str) -> float:
    """Seconds since 1970 of a time as the server writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def first_line(log: Path) -> float:
    """When a vault's log begins."""
    words = log.read_text().split()
    return datetime.strptime(f"{words[0]} {words[1]}", "%Y-%m-%d %H:%M:%S,%f").timestamp()


def first(states: list[dict[str, Any]], kind: str) -> float:
    """When a run first was in a state."""
    return next(at(state["timestamp"]) for state in states if state["type"] == kind)


class Measured:
    """One job from its trigger to its end."""

    def __init__(self, up: WholeUp, api: PrefectApi, job: dict[str, Any]) -> None:
        began = time.time()
        flow = api.start(job)
        state = api.ended(flow, JOB_S)
        if state["type"] != "COMPLETED":
            sys.exit(f"the job did not complete: {state['message']}")
        self.job_s = at(state["timestamp"]) - began
        found = max(up.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent
        signed = (found / "start.json").stat().st_mtime
        of_flow = api.states(flow)
        claimed, running = first(of_flow, "PENDING"), first(of_flow, "RUNNING")
        self.to_vault: dict[str, float] = {}
        steps: dict[str, dict[str, float]] = {}
        for part in api.parts(flow):
            member = part["name"]
            asked, taken = at(part["created"]), first(api.states(part["id"]), "PENDING")
            line = first_line(up.homes / member / "runs" / found.name / "vault.log")
            self.to_vault[member] = line - began
            times = (began, claimed, running, signed, asked, taken, line)
            steps[member] = dict(zip(STEPS, (b - a for a, b in pairwise(times)), strict=True))
        self.slower = max(self.to_vault, key=self.to_vault.__getitem__)
        self.trigger_to_vault_s, self.steps = self.to_vault[self.slower], steps[self.slower]


def spread(values: list[float]) -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(size: str, patients: int | None) -> dict[str, Any]:
    """Everything of one size of the demo."""
    mark = Mark()
    with tempfile.TemporaryDirectory() as folder:
        up = WholeUp(Path(folder), patients, PORT, mark.environment)
        try:
            up_s = up.start()
            print(f"\n{size}: up in {up_s:.1f} s, {len(mark.processes())} processes", flush=True)
            api, job = PrefectApi(up.url), yaml.safe_load((up.homes / "vertical.yaml").read_text())
            taken = []
            for _ in range(SAMPLES):
                time.sleep(REST_S)
                taken.append(one := Measured(up, api, job))
                seen = ", ".join(f"{member} {after:.2f}" for member, after in sorted(one.to_vault.items()))
                parts = "  ".join(f"{name} {one.steps[name]:.2f}" for name in STEPS)
                print(f"  to the vault's first line, s: {seen}; {one.slower}: {parts}; job {one.job_s:.1f}", flush=True)
            up.stop()
            again_s = up.start()
            up.stop()
        finally:
            mark.kill()
    raw = {
        "trigger_to_vault_s": [one.trigger_to_vault_s for one in taken],
        "job_s": [one.job_s for one in taken],
        "up_s": [up_s],
        "up_again_s": [again_s],
    }
    print(f"  trigger to the later vault's first line, s: {spread(raw['trigger_to_vault_s'])}")
    for name in STEPS:
        print(f"    {name:<10}{spread([one.steps[name] for one in taken])}")
    print(f"  trigger to Completed, s: {spread(raw['job_s'])}; up again in the same folder: {again_s:.1f}", flush=True)
    return {name: round(statistics.median(values), 2) for name, values in raw.items()} | {
        "raw": {name: [round(value, 2) for value in values] for name, values in raw.items()}
    }


def main() -> None:
    """Measure, print, and end with JSON."""
    print(f"load at the beginning {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors", flush=True)
    found = {size: measure(size, patients) for size, patients in SIZES.items()}
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    top = found[next(iter(SIZES))]
    for name, target in TARGETS.items():
        print(f"{name} {top[name]:.2f}, to be <= {target:g}: {'met' if top[name] <= target else 'MISSED'}")
    print(json.dumps({name: top[name] for name in ("trigger_to_vault_s", "job_s", "up_s")} | {"sizes": found}))


if __name__ == "__main__":
    main()
