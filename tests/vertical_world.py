"""An active party and one or two passive ones, for vertical jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from .world import World


class VerticalWorld(World):
    """An insurer (active: age, sex, label) and one or two passive parties, about partly the same persons."""

    def __init__(self, folder: Path, persons: int = 240, passive: tuple[str, ...] = ("lab",)) -> None:
        job = {
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
        super().__init__(folder, job)
        generator = np.random.default_rng(5)
        self.facts = generator.normal(size=(persons, 4))
        logits = self.facts @ np.array([1.0, -1.0, 1.5, 0.5]) + 0.3 * generator.normal(size=persons)
        self.label = (logits > 0).astype(int)
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
