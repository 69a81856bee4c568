"""A coordinator and parties with the same columns, for horizontal and statistics jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity

from .world import World


class StarWorld(World):
    """A coordinator (`hub`) and some hospitals with the same columns about different persons."""

    def __init__(
        self,
        folder: Path,
        parties: tuple[str, ...] = ("north", "south", "east"),
        persons: int = 120,
        kind: str = "horizontal",
    ) -> None:
        self.parties, self.members = parties, (*parties, "hub")
        super().__init__(folder, self._training_job() if kind == "horizontal" else self._statistics_job())
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
