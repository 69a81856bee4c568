"""`make browser-up`: `isthmus up` as people use it, in a browser; every step is looked at, and leaves a screenshot.

1. The lab and the insurer: the deployments; the form of `vertical`, what is filled in and what can be chosen; a job by
   that form until it is completed; its page with the parties' parts; the report.
2. A schedule by cron: the server makes runs of it, and it outlives a coordinator that is killed.
3. A job for a purpose that no policy allows: the message, and the hint in its report.
4. A job that is cancelled while it trains: every part is stopped, and no vault goes on.
5. The forms of all kinds of job, those of hospitals by `isthmus up hospitals`.

It needs Debian's Chromium (`apt-get install chromium`) and the UI that Prefect 3.9 prefers. Screenshots go to SHOTS,
or to a new folder that is named at the end. ``QUICK=1`` leaves the hospitals out. Exit code 1 if a step is not as it
should be; the last line is JSON: `steps` (the seconds of each), `shots`, `failed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Error as BrowserError
from running_up import RunningUp, wait
from ui import CHROMIUM, Ui

QUICK = os.environ.get("QUICK", "") not in ("", "0")
PATIENTS, PORT = 600, 4320
JOB_S, CANCEL_S = 300.0, 60.0
TYPES = ("str", "int", "float")  # what the UI calls a choice between a value and none


class WrongError(AssertionError):
    """Something is not as it should be."""


@dataclass
class Steps:
    """The steps of the test, each with its seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say how long it took."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        print(f"  {name:<14} {self.seconds[name]:6.1f} s", flush=True)


def hold(what: bool, else_say: str) -> None:
    """Raise `WrongError` unless it is so."""
    if not what:
        raise WrongError(else_say)


def a_job_by_the_form(up: RunningUp, ui: Ui, steps: Steps) -> None:
    """Fill the form of `vertical` in, start the job, see it complete, open its report."""
    with steps.step("deployments"):
        said = ui.deployments()
        for kind in ("vertical", "transfer", "horizontal", "statistics", "finetune"):
            hold(kind in said, f"no deployment of {kind} in the list")
        ui.shot("deployments")
        ui.deployment(up.deployment("vertical")["id"])
        ui.shot("deployment")
    with steps.step("form"):
        ui.custom_run()
        check_form(up, ui, "vertical")
        ui.page.get_by_role("tab", name="Logistic regression").click()
        hold("Logistic regression" in ui.chosen(), "the other model cannot be chosen")
        ui.shot("other-model")
        ui.page.get_by_role("tab", name="Network").click()
        hold("Network" in ui.chosen(), "the choice of a model snaps back")
        ui.fill({"Name": "from-the-form", "Epochs": "4"})
        run = ui.submit()
        ui.shot("started")
    with steps.step("completed"):
        ended = up.finished(run, JOB_S)
        hold(ended["state_type"] == "COMPLETED", f"the job has ended as {ended['state']}")
        hold(ended["parameters"]["job"]["training"]["epochs"] == 4, "the form's number has not reached the job")
        hold(ended["name"] == "from-the-form", "the run has not the job's name")
        hold(up.parts(run) == {"insurer": "COMPLETED", "lab": "COMPLETED"}, f"parts: {up.parts(run)}")
    with steps.step("run page"):
        ui.run(run)
        ui.see("Completed")
        ui.shot("completed", settle_s=4)  # with the graph, which is drawn and not text
        ui.tab("Subflow Runs")
        for party in ("insurer", "lab"):
            ui.see(party)
        ui.shot("parts")
        ui.tab("Artifacts")
        ui.see("from-the-form-report")
        ui.shot("artifacts")
        report = ui.artifact("from-the-form-report")
        for words in ("AUC on held-out patients", "together, no row shared", "shared patients found", "insurer", "lab"):
            hold(words in report, f"the report does not say: {words}")
        hold(ui.plots() == 1, "the report's plot is not drawn")
        ui.shot("report")


def a_schedule(up: RunningUp, ui: Ui, steps: Steps) -> None:
    """Set a cron at the deployment, see the server make runs of it, and see it outlive the coordinator."""
    with steps.step("cron"):
        ui.deployment(up.deployment("vertical")["id"])
        ui.schedule("0 3 1 * *")
        ui.deployment(up.deployment("vertical")["id"])
        said = ui.schedules()
        hold("03:00 AM" in said and "day 1 of the month" in said, f"the schedule reads: {said}")
        ui.shot("scheduled")
        wait(lambda: bool(up.scheduled()), 120, "the runs of a schedule")
        hold(all("T03:00:00" in when for when in up.scheduled()), f"scheduled: {up.scheduled()}")
        hold("Scheduled" in ui.upcoming(), "the deployment's page shows no run that is to come")
        ui.shot("upcoming")
    with steps.step("cron again"):
        updated = up.deployment("vertical")["updated"]
        os.kill(up.worker("coordinator"), signal.SIGKILL)  # it is started again, and registers all again
        wait(lambda: up.deployment("vertical")["updated"] != updated, 180, "the deployments, registered again")
        schedules = [one["schedule"].get("cron") for one in up.deployment("vertical")["schedules"]]
        hold(schedules == ["0 3 1 * *"], f"a coordinator that starts again leaves the schedules {schedules}")


def a_refusal(up: RunningUp, ui: Ui, steps: Steps) -> None:
    """Start a job for a purpose that no policy allows."""
    with steps.step("refused"):
        ui.deployment(up.deployment("vertical")["id"])
        ui.custom_run()
        ui.fill({"Name": "for-another-purpose", "Purpose": "advertising"})
        run = ui.submit()
        hold(up.finished(run, JOB_S)["state_type"] == "FAILED", "a job that policies refuse has not failed")
        ui.see("Failed")
        ui.tab("Details")
        ui.see("does not allow this purpose")
        ui.shot("refused")
        report = ui.artifact("for-another-purpose-report")
        for words in (
            "error[policy.purpose]",
            "insurer does not allow this purpose",
            "add it to its policy's purposes",
        ):
            hold(words in report, f"the report of the refusal does not say: {words}")
        ui.shot("refused-report")


def a_cancellation(up: RunningUp, ui: Ui, steps: Steps) -> None:
    """Cancel a job while it trains."""
    parties = ("insurer", "lab")
    with steps.step("running"):
        wait(lambda: all(len(up.vaults(party)) <= 1 for party in parties), JOB_S, "vaults of earlier jobs ended")
        ui.deployment(up.deployment("vertical")["id"])
        ui.custom_run()
        ui.fill({"Name": "to-be-cancelled", "Epochs": "100", "Patience": "100"})
        run = ui.submit()
        wait(lambda: up.progress("to-be-cancelled-train") > 0, JOB_S, "training")
        hold(all(up.vaults(party) for party in parties), "nobody's vault runs while the job trains")
        ui.shot("training")
    with steps.step("cancelled"):
        ui.cancel()
        # Prefect's engine calls its flow crashed for a moment, before the coordinator's worker says what it was.
        wait(lambda: up.run(run)["state_type"] == "CANCELLED", CANCEL_S, "the run cancelled")
        wait(lambda: set(up.parts(run).values()) == {"CANCELLED"}, CANCEL_S, f"parts cancelled, not {up.parts(run)}")
        wait(lambda: all(len(up.vaults(party)) <= 1 for party in parties), CANCEL_S, "the vaults stopped")
        ui.see("Cancelled")
        ui.shot("cancelled", settle_s=4)


def check_form(up: RunningUp, ui: Ui, kind: str) -> None:
    """See the form of a kind: its labels are words, and what `isthmus up` knows of a job is filled in."""
    ui.page.wait_for_timeout(1500)
    labels = ui.labels()
    hold({"Job", "Kind", "Name", "Purpose", "Start over", "Signature"} <= set(labels), f"{kind}: labels {labels}")
    for word in (*labels, *ui.tabs()):
        hold(word in TYPES or bool(re.match("[A-Z]", word)), f"{kind}: {word!r} is no label for people")
        hold(not re.search("[a-z][A-Z]", word), f"{kind}: {word!r} is the name of a class")
    filled = up.deployment(kind)["parameters"].get("job", {})
    for label, name in (("Name", "name"), ("Purpose", "purpose")):
        shown = ui.field(label).first.input_value()
        hold(shown == filled.get(name, ""), f"{kind}: {label} shows {shown!r}")
    ui.whole_form(f"form-{kind}")


def the_forms(up: RunningUp, ui: Ui, steps: Steps, kinds: tuple[str, ...]) -> None:
    """See the forms of some kinds, and that the server takes what they are filled with."""
    for kind in kinds:
        with steps.step(f"form {kind}"):
            ui.deployment(up.deployment(kind)["id"])
            ui.custom_run()
            check_form(up, ui, kind)


def main() -> int:
    """Run all steps; the exit code."""
    if not CHROMIUM.exists():
        print(f"This test drives Debian's Chromium, and there is none at {CHROMIUM}: apt-get install chromium")
        return 2
    root = Path(tempfile.mkdtemp(prefix="isthmus-browser-"))
    shots = Path(os.environ.get("SHOTS") or root / "shots")
    shots.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps, failed, ui = Steps(), "", Ui(shots)
    try:
        with ui:
            with steps.step("up"), RunningUp(root / "two", "vertical", patients=PATIENTS, port=PORT) as up:
                ui.address = up.ui()
                a_job_by_the_form(up, ui, steps)
                a_schedule(up, ui, steps)
                a_refusal(up, ui, steps)
                a_cancellation(up, ui, steps)
                the_forms(up, ui, steps, ("transfer",))
            if not QUICK:
                with steps.step("hospitals"), RunningUp(root / "five", "hospitals", patients=PATIENTS, port=PORT) as up:
                    ui.address = up.ui()
                    the_forms(up, ui, steps, ("horizontal", "statistics", "finetune"))
    except (WrongError, RuntimeError, BrowserError) as failure:
        failed = str(failure)[:600]
        print(f"\n{failed}\nWhat there was stays in {root}")
    if not failed:
        for folder in ("two", "five"):
            shutil.rmtree(root / folder, ignore_errors=True)
    print(json.dumps({"steps": steps.seconds, "shots": [str(shots / name) for name in ui.taken], "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
