"""What a data engineer sees in Prefect: runs, children, phases, progress, artifacts, the form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.kinds import KINDS, room

EXAMPLES = Path(__file__).parents[2] / "examples"


def _post(server: Any, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"{server.url}{path}", data=json.dumps(body or {}).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def _get(server: Any, path: str) -> Any:
    with urllib.request.urlopen(f"{server.url}{path}", timeout=20) as answer:
        return json.loads(answer.read())


def _runs_of(server: Any, name: str) -> list[dict[str, Any]]:
    return _post(server, "/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})


def _children(server: Any, parent: dict[str, Any]) -> list[dict[str, Any]]:
    return _post(server, "/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [parent["id"]]}}})


def _phases(server: Any, run: dict[str, Any]) -> dict[str, str]:
    tasks = _post(server, "/task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run["id"]]}}})
    return {task["name"]: task["state_type"] for task in tasks}


def test_the_server_shows_the_run_its_parties_their_phases_progress_and_report(seen: Any, server: Any) -> None:
    done = seen[1]
    assert done.returncode == 0, done.stderr
    (run,) = _runs_of(server, "seen-in-prefect")
    assert run["state_type"] == "COMPLETED"
    parties = _children(server, run)
    assert {(party["name"], party["state_type"]) for party in parties} == {
        ("insurer", "COMPLETED"),
        ("lab", "COMPLETED"),
    }
    for party in parties:
        assert _phases(server, party) == dict.fromkeys(["agree", "align", "train", "evaluate", "close"], "COMPLETED")
    artifacts = {found["key"]: found for found in _post(server, "/artifacts/latest/filter")}
    assert artifacts["seen-in-prefect-align"]["data"] == 100.0
    assert artifacts["seen-in-prefect-train"]["data"] == 100.0
    assert "AUC" in artifacts["seen-in-prefect-report"]["data"]


def test_a_failing_job_fails_its_run_with_the_code_and_stops_the_other_party(world: Any, server: Any) -> None:
    world.job["name"] = "refused-in-prefect"
    world.edit_party("lab", lambda content: content["policy"].update(purposes=[]))
    done = world.command("run", str(world.job_file()), env=server.env)
    assert done.returncode == 3
    assert "error[policy.purpose]" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    (run,) = _runs_of(server, "refused-in-prefect")
    assert run["state_type"] == "FAILED"
    assert "policy.purpose" in run["state"]["message"]
    assert all(party["state_type"] not in {"RUNNING", "COMPLETED"} for party in _children(server, run))


@pytest.mark.timeout(240)
def test_a_served_deployment_has_a_form_and_runs_what_the_form_sends(world: Any, server: Any) -> None:
    world.job["name"] = "from-the-form"
    env = {**os.environ, **server.env, "ISTHMUS_HOMES": str(world.homes), "ISTHMUS_RUNS": str(world.runs)}
    words = [sys.executable, "-m", "isthmus.flows.cli", "serve", str(world.job_file()), "--name", "test-serve"]
    words += ["--cron", "0 3 1 1 *"]
    with (world.folder / "serve.log").open("wb") as log:
        serving = subprocess.Popen(words, cwd=world.folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        deployment = _wait_for(lambda: _deployment(server, "vertical/test-serve"), serving)
        form = deployment["parameter_openapi_schema"]
        assert form["definitions"]["VerticalJob"]["properties"]["purpose"]["title"] == "Purpose"
        parameters = {"job": json.loads(json.dumps(world.load_job().canonical()))}
        started = _post(server, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
        final = ("COMPLETED", "FAILED", "CRASHED")
        ended = _wait_for(
            lambda: (run := _get(server, f"/flow_runs/{started['id']}"))["state_type"] in final and run, serving
        )
        assert ended["state_type"] == "COMPLETED", ended["state"]
        assert {child["name"] for child in _children(server, ended)} == {"insurer", "lab"}
        assert list(world.runs.glob("from-the-form-*/report.html"))
        scheduled = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        assert _wait_for(lambda: _post(server, "/flow_runs/filter", scheduled), serving)  # by the cron
    finally:
        serving.terminate()
        serving.wait(20)


def test_a_flow_of_ones_own_runs_the_steps_in_twenty_lines(world: Any, server: Any) -> None:
    program = (
        "import asyncio, runpy, sys; from isthmus.flows import VerticalJob; "
        "flow = runpy.run_path(sys.argv[1])['monthly_mortality']; job = VerticalJob.from_file(sys.argv[2]); "
        "[print('outcome', asyncio.run(flow(job, at_least=int(word)))) for word in sys.argv[3:]]"
    )
    words = [str(EXAMPLES / "monthly_mortality.py"), str(world.job_file()), "100", "1000"]
    done = world.python(program, *words, env=server.env)
    assert done.returncode == 0, done.stderr
    outcomes = [line for line in done.stdout.splitlines() if line.startswith("outcome")]
    assert "test-job-" in outcomes[0]
    assert "too few shared patients" in outcomes[1]
    assert len(list(world.homes.glob("lab/models/*/part.safetensors"))) == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_flow_of_ones_own_takes_twenty_lines(path: Path) -> None:
    code = [line for line in path.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) <= 20


def test_a_flow_of_ones_own_counts_over_hospitals(statistics_star: Any, server: Any) -> None:
    star = statistics_star
    star.job["name"] = "weekly-counts"
    program = (
        "import asyncio, runpy, sys; from isthmus.flows import StatisticsJob; "
        "flow = runpy.run_path(sys.argv[1])['weekly_counts']; "
        "print('outcome', asyncio.run(flow(StatisticsJob.from_file(sys.argv[2]))))"
    )
    done = star.python(program, str(EXAMPLES / "weekly_counts.py"), str(star.job_file()), env=server.env)
    assert done.returncode == 0, done.stderr
    assert "outcome" in done.stdout
    (parent,) = _runs_of(server, "measure weekly-counts")
    children = _children(server, parent)
    assert {(child["name"], child["state_type"]) for child in children} == {(m, "COMPLETED") for m in star.members}
    assert _phases(server, children[0]) == dict.fromkeys(["agree", "measure", "close"], "COMPLETED")
    artifacts = {found["key"]: found for found in _post(server, "/artifacts/latest/filter")}
    assert artifacts["weekly-counts-measure"]["data"] == 100.0
    assert "390 patients" in artifacts["weekly-counts-report"]["data"]


def test_a_flow_of_ones_own_transfers_and_looks_at_what_the_gate_kept(transfer_world: Any, server: Any) -> None:
    transfer_world.job["name"] = "yearly-transfer"
    program = (
        "import asyncio, runpy, sys; from isthmus.flows import TransferJob; "
        "flow = runpy.run_path(sys.argv[1])['yearly_transfer']; "
        "print('outcome', asyncio.run(flow(TransferJob.from_file(sys.argv[2]), at_least=50)))"
    )
    words = [str(EXAMPLES / "yearly_transfer.py"), str(transfer_world.job_file())]
    done = transfer_world.python(program, *words, env=server.env)
    assert done.returncode == 0, done.stderr
    assert "'chosen': 'transferred'" in done.stdout
    (parent,) = _runs_of(server, "train yearly-transfer")
    children = _children(server, parent)
    assert {(child["name"], child["state_type"]) for child in children} == {
        ("insurer", "COMPLETED"),
        ("lab", "COMPLETED"),
    }
    phases = ["agree", "align", "prepare", "train", "evaluate", "close"]
    assert _phases(server, children[0]) == dict.fromkeys(phases, "COMPLETED")
    artifacts = {found["key"]: found for found in _post(server, "/artifacts/latest/filter")}
    assert artifacts["yearly-transfer-prepare"]["data"] == 100.0
    assert "| transferred |" in artifacts["yearly-transfer-report"]["data"]


def test_without_a_job_every_kind_is_served_with_its_form(world: Any, server: Any) -> None:
    env = {**os.environ, **server.env, "ISTHMUS_HOMES": str(world.homes), "ISTHMUS_RUNS": str(world.runs)}
    words = [sys.executable, "-m", "isthmus.flows.cli", "serve", "--name", "every-kind"]
    with (world.folder / "serve.log").open("wb") as log:
        serving = subprocess.Popen(words, cwd=world.folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        body = {"deployments": {"name": {"any_": ["every-kind"]}}}
        found = _wait_for(
            lambda: (all_of := _post(server, "/deployments/filter", body)) and len(all_of) == len(KINDS) and all_of,
            serving,
        )
    finally:
        serving.terminate()
        serving.wait(20)
    forms = {name for one in found for name in one["parameter_openapi_schema"]["definitions"]}
    assert {room(kind, "job").JOB.__name__ for kind in KINDS} <= forms


def test_training_stops_when_the_parties_no_longer_share_the_same_patients(world: Any, server: Any) -> None:
    program = (
        "import asyncio, sys; from isthmus.flows import Shared, VerticalJob, train_vertical; "
        "asyncio.run(train_vertical(VerticalJob.from_file(sys.argv[1]), Shared('another', '0' * 64, None)))"
    )
    done = world.python(program, str(world.job_file()), env=server.env)
    assert "error[run.realigned]" in done.stderr
    assert not list(world.homes.glob("*/models/*"))


def test_a_server_that_does_not_answer_is_said_and_nothing_starts(world: Any) -> None:
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
    done = world.command("run", str(world.job_file()), env=nowhere)
    assert done.returncode == 2
    assert "error[prefect.unreachable]" in done.stderr
    assert not list(world.homes.glob("*/runs"))


def test_a_deployment_needs_a_server_that_outlives_it(world: Any) -> None:
    done = world.command("serve", env={"PREFECT_API_URL": ""})
    assert done.returncode == 2
    assert "error[prefect.unreachable]" in done.stderr


def _deployment(server: Any, name: str) -> Any:
    flow, deployment = name.split("/")
    found = _post(server, "/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
    return next(iter(found), None) if flow else None


def _wait_for(ask: Any, process: subprocess.Popen[bytes], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the serving process ended"
        if answer := ask():
            return answer
        time.sleep(0.3)
    raise AssertionError("it did not happen in time")
