"""A small world of parties for the tests: homes with DuckDB files, party.yaml and a job, made to be broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml

from isthmus.flows import vault
from isthmus.flows.jobs import Job, job_of
from isthmus.flows.journal import Journal
from isthmus.flows.launch import run_here, says_less
from isthmus.flows.publisher import Publisher
from isthmus.parties.events import Failed, Phase, parse
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.local import socket_pair


class World:
    """An insurer (active: age, sex, label) and one or two passive parties, about partly the same persons."""

    def __init__(self, folder: Path, persons: int = 240, passive: tuple[str, ...] = ("lab",)) -> None:
        self.homes, self.runs = folder / "homes", folder / "runs"
        self.folder, self.passive = folder, passive
        generator = np.random.default_rng(5)
        self.facts = generator.normal(size=(persons, 4))
        logits = self.facts @ np.array([1.0, -1.0, 1.5, 0.5]) + 0.3 * generator.normal(size=persons)
        self.label = (logits > 0).astype(int)
        self.job: dict[str, Any] = {
            "kind": "vertical",
            "name": "test-job",
            "purpose": "testing",
            "parties": [
                {"name": "insurer", "dataset": "members", "columns": ["age", "sex"], "label": "died"},
                *({"name": name, "dataset": "results", "columns": ["*"]} for name in passive),
            ],
            "align": {"passes": [["national_id"], ["names", "birth_date"]], "at_least": 20},
            "model": {"kind": "network", "bottom": [8, 4], "top": [4], "dropout": 0.2},
            "training": {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "patience": 4, "seed": 3},
        }
        self._make("insurer", range(persons), "members", ["age", "sex"], list(passive))
        for name in passive:
            self._make(name, range(10, persons), "results", ["alb", "ward"], ["insurer", *(set(passive) - {name})])

    def _make(self, name: str, persons: range, dataset: str, columns: list[str], peers: list[str]) -> None:
        home = self.homes / name
        home.mkdir(parents=True)
        first, second = (0, 1) if name == "insurer" else (2, 3)
        who = np.array(persons[::-1])
        texts = {
            "id": [f"{name[0]}{person:04d}" for person in who],
            "ssn": [f"N{person:06d}" for person in who],
            "given": [f"given{person % 37}" for person in who],
            "sur": [f"sur{person % 101}" for person in who],
            "born": [f"19{person % 90 + 10}0{person % 9 + 1}1{person % 9}" for person in who],
            columns[1]: ["high" if value > 0 else "low" for value in self.facts[who, second]],
        }
        table = {column: np.array(values, dtype=object) for column, values in texts.items()}
        table |= {columns[0]: self.facts[who, first], "died": self.label[who].astype(np.int32)}
        with duckdb.connect(home / f"{name}.duckdb") as connection:
            connection.register("made", table)  # a row at a time would take a second
            connection.execute("CREATE TABLE t AS SELECT * FROM made")
        release: dict[str, Any] = {"columns": columns, "at_least": 20, "may_learn_membership": peers}
        if name == "insurer":
            release["labels"] = ["died"]
        self.write_party(
            name,
            {
                "name": name,
                "data": f"{name}.duckdb",
                "seed": 11,
                "datasets": {
                    dataset: {
                        "sql": "SELECT * FROM t",
                        "row_id": "id",
                        "identifiers": {
                            "national_id": "ssn",
                            "names": ["given", "sur"],
                            "birth_date": {"column": "born", "format": "%Y%m%d"},
                        },
                    }
                },
                "policy": {
                    "kinds": ["vertical"],
                    "purposes": ["testing"],
                    "peers": peers,
                    "release": {dataset: release},
                    "max_epochs": 50,
                    "publish": ["counts", "metrics", "curves"],
                },
            },
        )

    def party(self, name: str) -> dict[str, Any]:
        """The content of a party's party.yaml."""
        return yaml.safe_load((self.homes / name / "party.yaml").read_text())

    def write_party(self, name: str, content: dict[str, Any]) -> None:
        """Replace a party's party.yaml."""
        (self.homes / name / "party.yaml").write_text(yaml.safe_dump(content))

    def edit_party(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change a party's party.yaml in place."""
        content = self.party(name)
        change(content)
        self.write_party(name, content)

    def dataset(self, name: str) -> dict[str, Any]:
        """The only dataset of a party."""
        (found,) = self.party(name)["datasets"].values()
        return found

    def sql(self, name: str, statement: str) -> None:
        """Change a party's rows."""
        with duckdb.connect(self.homes / name / f"{name}.duckdb") as connection:
            connection.execute(statement)

    def load_job(self) -> Job:
        """The job as it stands."""
        return job_of(self.job)

    def job_file(self) -> Path:
        """The job as a YAML file."""
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(self.job))
        return path

    def run(self, run: str = "test-job-1", **options: Any) -> Journal:
        """Run the job with real vault processes, without Prefect."""
        return asyncio.run(run_here(self.load_job(), self.homes, run, **options))

    def run_inside(
        self,
        run: str = "test-job-1",
        *,
        jobs: dict[str, Job] | None = None,
        phases: Sequence[Phase] | None = None,
        fresh: bool = False,
        timeout_s: float = 30.0,
        leaves: dict[str, Phase] | None = None,
    ) -> Journal:
        """Run the job with every vault a thread of this process: the same code, without the seconds to start four.

        `jobs` gives some members another job, and some break down when they should begin what `leaves` says. Raises
        what explains a failure best, as a flow does.
        """
        job = self.load_job()
        self.journal = journal = Journal(run)
        ends: dict[str, dict[str, socket.socket]] = {member: {} for member in job.members}
        for left, right in job.links:
            ends[left][right], ends[right][left] = socket_pair()

        def serve(member: str) -> None:
            mine = (jobs or {}).get(member, job)
            commands: queue.Queue[bytes] = queue.Queue()
            for phase in phases or job.phases:
                broken = (leaves or {}).get(member) is phase
                commands.put(b"{}" if broken else json.dumps({"phase": phase}).encode())
            if Phase.CLOSE not in (phases or job.phases):
                commands.put(b'{"phase": "close"}')
            opening = vault.Open(job=mine.canonical(), run=run, fresh=fresh, timeout_s=timeout_s)

            def write(line: bytes) -> None:
                journal.note(member, parse(line, job.aliases()))

            numbers = {peer: os.dup(end.fileno()) for peer, end in ends[member].items()}
            vault.serve(opening, mine, self.homes / member, numbers, commands, Publisher(write, mine.aliases()))
            for end in ends[member].values():  # as when a process ends
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

        threads = [threading.Thread(target=serve, args=(member,), daemon=True) for member in job.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=100)
        failures = {member: failed.error() for member, failed in journal.of(Failed)}
        if failures.keys() & job.essential:
            raise min((failures[member] for member in job.members if member in failures), key=says_less)
        return journal

    def command(
        self, *words: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `isthmus …` as a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "isthmus.flows.cli", *words],
            cwd=self.folder,
            env={**os.environ, "ISTHMUS_HOMES": str(self.homes), "ISTHMUS_RUNS": str(self.runs), **(env or {})},
            capture_output=True,
            text=True,
            timeout=100,
            **options,
        )


class StarWorld(World):
    """A coordinator (`hub`) and some hospitals with the same columns about different persons."""

    def __init__(
        self,
        folder: Path,
        parties: tuple[str, ...] = ("north", "south", "east"),
        persons: int = 120,
        kind: str = "horizontal",
    ) -> None:
        self.homes, self.runs, self.folder, self.parties = folder / "homes", folder / "runs", folder, parties
        self.members = (*parties, "hub")
        self.job = self._training_job() if kind == "horizontal" else self._statistics_job()
        generator = np.random.default_rng(5)
        for number, name in enumerate(parties):
            self._make_party(name, generator, persons + 10 * number)
        for name in self.members:
            (self.homes / name).mkdir(parents=True, exist_ok=True)
            self.write_party(name, self._config(name, {}))
        keys = {name: Identity(PartyHome(self.homes / name)).public.hex() for name in self.members}
        for name in self.members:
            self.write_party(name, self._config(name, keys))

    def _common(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "name": "star-job",
            "purpose": "testing",
            "coordinator": "hub",
            "parties": [{"name": name, "dataset": "stays"} for name in self.parties],
            "columns": [
                {"name": "age", "kind": "number", "unit": "years"},
                {"name": "crea", "kind": "number"},
                {"name": "sex", "kind": "category", "levels": ["female", "male"]},
            ],
        }

    def _training_job(self) -> dict[str, Any]:
        return self._common("horizontal") | {
            "label": {"column": "died"},
            "model": {"kind": "network", "hidden": [8], "dropout": 0.2},
            "rounds": {"count": 3, "batch_size": 16, "learning_rate": 0.1, "seed": 3, "deadline_s": 30},
            "subgroups": ["sex"],
        }

    def _statistics_job(self) -> dict[str, Any]:
        return self._common("statistics") | {
            "tables": [["sex"]],
            "curves": [{"name": "survival", "duration": "days", "event": "dead", "until": 60, "by": ["sex"]}],
            "at_least": 5,
        }

    def _make_party(self, name: str, generator: np.random.Generator, persons: int) -> None:
        home = self.homes / name
        home.mkdir(parents=True)
        age, crea = generator.normal(60, 10, persons), generator.normal(1, 0.3, persons)
        crea[generator.random(persons) < 0.1] = np.nan
        male = generator.random(persons) < 0.5
        risk = (age - 60) / 10 + np.nan_to_num(crea - 1) * 2 + male - 0.5
        died = (risk + generator.normal(size=persons) > 0.3).astype(np.int32)
        table = {
            "id": np.array([f"{name[0]}{person:04d}" for person in range(persons)], dtype=object),
            "age": age,
            "crea": crea,
            "sex": np.array(["male" if one else "female" for one in male], dtype=object),
            "died": died,
            "days": np.ceil(generator.exponential(30, persons) + 1),
            "dead": (generator.random(persons) < 0.6).astype(np.int32),
        }
        with duckdb.connect(home / f"{name}.duckdb") as connection:
            connection.register("made", table)
            connection.execute("CREATE TABLE t AS SELECT * REPLACE (nullif(crea, 'nan'::DOUBLE) AS crea) FROM made")

    def _config(self, name: str, keys: dict[str, str]) -> dict[str, Any]:
        policy: dict[str, Any] = {
            "kinds": ["horizontal", "statistics"],
            "purposes": ["testing"],
            "peers": [member for member in self.members if member != name],
            "max_rounds": 100,
            "publish": ["counts", "metrics", "curves"],
        }
        content: dict[str, Any] = {"name": name, "seed": 11 + self.members.index(name), "policy": policy, "keys": keys}
        if name != "hub":
            policy["release"] = {
                "stays": {"columns": ["age", "crea", "sex"], "labels": ["died", "days", "dead"], "cohort": 5}
            }
            dataset = {"sql": "SELECT * FROM t", "row_id": "id", "units": {"age": "years"}}
            content |= {"data": f"{name}.duckdb", "datasets": {"stays": dataset}}
        return content

    def run(self, run: str = "star-job-1", **options: Any) -> Journal:
        """Run the job with real vault processes, without Prefect."""
        return super().run(run, **options)

    def run_inside(self, run: str = "star-job-1", **options: Any) -> Journal:
        """Run the job with every vault a thread of this process."""
        return super().run_inside(run, **options)


@pytest.fixture
def star(tmp_path: Path) -> StarWorld:
    """Three hospitals and a coordinator, to train."""
    return StarWorld(tmp_path)


@pytest.fixture
def make_star() -> Callable[..., StarWorld]:
    """Make a star of any parties."""
    return StarWorld


@pytest.fixture
def statistics_star(tmp_path: Path) -> StarWorld:
    """Three hospitals and a coordinator, to count."""
    return StarWorld(tmp_path, kind="statistics")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two parties."""
    return World(tmp_path)


@pytest.fixture
def world_of_three(tmp_path: Path) -> World:
    """An active party and two passive ones."""
    return World(tmp_path, passive=("lab", "clinic"))


LONGEST_FIRST = ("test_prefect.py", "test_planted.py", "test_packaging.py", "test_star_runs.py", "test_equality.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: what is left for the end then fits both processors."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.name) if item.path.name in LONGEST_FIRST else 9)
