"""Nothing of a party reaches Prefect, the exchange or the coordinator where each member has a worker of its own.

The same is looked for on PostgreSQL by `make demo-postgres`.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ..consortium import Consortium, isthmus, wait
from ..vertical_world import VerticalWorld
from .plants import PLANTS, VERBOSE, found_in, plant

MEMBERS = ("hub", "insurer", "lab")


@pytest.fixture(scope="module")
def at_work(copies: Any, server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Consortium]]:
    """A lab with plants, an insurer and a coordinator, each with a worker at a Prefect server on SQLite."""
    world = copies(VerticalWorld, tmp_path_factory.mktemp("at-work") / "world")
    plant(world, fail=False)
    world.job["name"] = "planted-by-workers"
    isthmus("init", "coordinator", "hub", "--homes", world.homes)
    environment = {**os.environ, **server.env, **VERBOSE}
    with Consortium(world.folder, world.job, starter="insurer") as consortium:
        consortium.start_exchange()
        for member in MEMBERS:
            role = "coordinator" if member == "hub" else "party"
            runs = ("--runs", world.runs) if member == "hub" else ()
            with (world.folder / f"{member}.worker.log").open("ab") as log:
                words = (role, "start", member, "--homes", world.homes, *runs)
                consortium.spawn(*words, stdout=log, env=environment)
        logs = [world.folder / f"{member}.worker.log" for member in MEMBERS]
        wait(lambda: all("serves pool" in log.read_text() for log in logs), 240)
        yield world, consortium


@pytest.mark.skipif("PLANTED" not in os.environ, reason="minutes on a busy machine: make planted-workers")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fails", [False, True], ids=["well", "failing"])
def test_no_planted_string_of_a_job_by_workers_reaches_the_server_the_exchange_or_the_coordinator(
    at_work: tuple[Any, Consortium], server: Any, fails: bool
) -> None:
    world, consortium = at_work
    if fails:
        world.edit_party("lab", _breaks)
    done = world.command("submit", str(consortium.signed), "--no-wait", env={**server.env, **VERBOSE})
    (run,) = re.findall(r"run ([0-9a-f-]{36})", done.stdout)
    end = _last_event(server, run)

    assert end["event"] == ("prefect.flow-run.Failed" if fails else "prefect.flow-run.Completed"), end
    if fails:
        assert "error[data.sql]" in end["payload"]["validated_state"]["message"]
        logs = "".join(log.read_text() for log in world.homes.glob("lab/runs/*/vault.log"))
        assert PLANTS["failure"] + PLANTS["identifier"] in logs
    else:
        (part,) = world.homes.glob("lab/models/*/part.safetensors")
        assert PLANTS["column"].encode() in part.read_bytes()
        assert PLANTS["value"].encode() in part.read_bytes()
        assert list(world.runs.glob("*/report.html"))
    folders = (server.folder, world.runs, world.homes / "hub", consortium.exchange_folder)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [world.folder / "exchange.log", *(world.folder / f"{member}.worker.log" for member in MEMBERS)]
    assert any(path.suffix == ".db" for path in files)
    places = {str(path): path.read_bytes() for path in files}
    assert any(run.encode() in content for content in places.values())
    assert all(places[str(world.folder / f"{member}.worker.log")] for member in MEMBERS)
    assert found_in(places, [*PLANTS.values(), str(world.homes / "lab")]) == []


def _breaks(content: dict[str, Any]) -> None:
    failing = f"(SELECT error('{PLANTS['failure']}' || max(ssn)) FROM t) IS NULL"
    content["datasets"]["results"]["sql"] = f"SELECT * FROM t WHERE '{PLANTS['sql']}' <> '' AND {failing}"


def _last_event(server: Any, run: str) -> Any:
    """The event of a run's end. The server writes events down some seconds late: until then its database lacks some."""
    ends = [f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")]
    wanted = {"event": {"name": ends}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    body = json.dumps({"filter": wanted}).encode()

    def ask() -> Any:
        request = urllib.request.Request(f"{server.url}/events/filter", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())["events"]

    return wait(ask, 200)[0]
