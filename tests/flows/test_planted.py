"""Nothing of a party reaches Prefect: strings are planted in rows, SQL and errors, and looked for in all it keeps."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .plants import PLANTS, VERBOSE, found_in, plant, plant_in_star

EXAMPLE = Path(__file__).parents[2] / "examples" / "quarterly_training.py"


def _kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_planted_string_of_a_job_that_goes_well_reaches_prefect_or_the_coordinator(seen: Any, server: Any) -> None:
    world, done = seen
    _wait_for_the_last_event(server, "prefect.flow-run.Completed", world.job["name"])
    _the_plants_were_reached(world, fail=False)
    _nothing_is_found(world, server, done)


@pytest.mark.parametrize(("kind", "fail"), [("world", True), ("transfer_world", False)])
def test_no_planted_string_reaches_prefect_or_the_coordinator(request: Any, server: Any, kind: str, fail: bool) -> None:
    world = request.getfixturevalue(kind)
    plant(world, fail=fail)
    world.job["name"] = f"planted-{kind.replace('_', '-')}-{'failing' if fail else 'well'}"
    done = _run(world, server, 2 if fail else 0)
    _the_plants_were_reached(world, fail)
    _nothing_is_found(world, server, done)


@pytest.mark.parametrize(("kind", "fail"), [("star", False), ("statistics_star", True)])
def test_no_planted_string_of_a_hospital_reaches_prefect_or_the_coordinator(
    request: Any, server: Any, kind: str, fail: bool
) -> None:
    star = request.getfixturevalue(kind)
    plant_in_star(star, fail=fail)
    star.job["name"] = f"planted-{kind.replace('_', '-')}-{'failing' if fail else 'well'}"
    done = _run(star, server, 2) if fail else _run_example(star, server)
    if fail:
        (log,) = star.homes.glob("north/runs/*/vault.log")
        assert PLANTS["failure"] + PLANTS["identifier"] in log.read_text()
    else:
        assert "outcome Model(" in done.stdout
        assert list(star.runs.glob("*/report.html"))
    _nothing_is_found(star, server, done)
    if not fail:
        _tune_what_came_of_it(star)
        _nothing_is_found(star, server, _run(star, server, 0))


def _tune_what_came_of_it(star: Any) -> None:
    """The job becomes one that goes on from the hospitals' model, at the hospital with the plants."""
    star.edit_party("north", lambda content: content["policy"].update(kinds=["finetune"], max_epochs=9))
    star.job = {
        "kind": "finetune",
        "name": "planted-tuning",
        "purpose": "testing",
        "party": {"name": "north", "dataset": "stays"},
        "columns": ["age", "crea", "sex"],
        "label": {"column": "died"},
        "model": star.job["model"],
        "start": {"job": star.job["name"]},
        "tuning": {"epochs": 3},
    }


def _run(world: Any, server: Any, exit_code: int) -> Any:
    done = world.command("run", str(world.job_file()), env={**server.env, **VERBOSE})
    assert done.returncode == exit_code, done.stderr
    _wait_for_the_last_event(server, f"prefect.flow-run.{'Failed' if exit_code else 'Completed'}", world.job["name"])
    return done


def _run_example(star: Any, server: Any) -> Any:
    """The same by a flow of one's own, which begins the job and publishes the report."""
    program = (
        "import asyncio, runpy, sys; from isthmus.flows import HorizontalJob; "
        "flow = runpy.run_path(sys.argv[1])['quarterly_training'].with_options(flow_run_name=sys.argv[3]); "
        "print('outcome', asyncio.run(flow(HorizontalJob.from_file(sys.argv[2]), at_least=0.0)))"
    )
    done = star.python(program, str(EXAMPLE), str(star.job_file()), star.job["name"], env={**server.env, **VERBOSE})
    assert done.returncode == 0, done.stderr
    _wait_for_the_last_event(server, "prefect.flow-run.Completed", star.job["name"])
    return done


def _nothing_is_found(world: Any, server: Any, done: Any) -> None:
    files = {**_kept(server.folder), **_kept(world.runs)}
    assert any(path.suffix == ".db" for path in files)
    places = {str(path): content for path, content in files.items()}
    places |= {"standard output": done.stdout.encode(), "standard error": done.stderr.encode()}
    assert any(world.job["name"].encode() in content for content in places.values())
    found = found_in(places, [*PLANTS.values(), str(world.homes)])
    # the paths of the models are printed here, to the user alone
    if any(place == "standard output" for place, _ in found):
        found = [(place, secret) for place, secret in found if secret != str(world.homes)]
    assert found == []


def _wait_for_the_last_event(server: Any, event: str, run: str) -> None:
    """The server writes events down some seconds late: until then its database does not hold all that it was told."""
    body = json.dumps({"filter": {"event": {"name": [event]}, "order": "DESC"}}).encode()
    for _ in range(60):
        request = urllib.request.Request(f"{server.url}/events/filter", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            found = json.loads(answer.read())["events"]
        if any(one["resource"].get("prefect.resource.name") == run for one in found):
            return
        time.sleep(0.5)
    raise AssertionError(f"the server never wrote {event} of {run}")


def _the_plants_were_reached(world: Any, fail: bool) -> None:
    (log,) = world.homes.glob("lab/runs/*/vault.log")
    if fail:
        assert PLANTS["failure"] + PLANTS["identifier"] in log.read_text()
    else:
        (part,) = world.homes.glob("lab/models/*/part.safetensors")
        content = part.read_bytes()
        assert PLANTS["column"].encode() in content
        assert PLANTS["value"].encode() in content
