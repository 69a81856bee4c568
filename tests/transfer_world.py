"""A source with many rows and a target with few, for transfer jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .vertical_world import VerticalWorld


class TransferWorld(VerticalWorld):
    """The insurer as a source of all its 240 persons, the lab as a target of 100 patients: 30 whom the insurer does not
    know and 70 whom it does, of whom the last 10 have no outcome at the lab.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sql("lab", "DELETE FROM t WHERE id < 'l0140'")
        self.sql("lab", "UPDATE t SET ssn = 'X' || ssn, sur = 'X' || sur WHERE id < 'l0170'")
        self.sql("lab", "UPDATE t SET died = NULL WHERE id >= 'l0230'")
        self.job: dict[str, Any] = {
            "kind": "transfer",
            "name": "test-job",
            "purpose": "testing",
            "source": {"name": "insurer", "dataset": "members", "columns": ["age", "sex"], "label": "died"},
            "target": {"name": "lab", "dataset": "results", "columns": ["*"], "label": "died"},
            "align": {"passes": [["national_id"], ["names", "birth_date"]], "at_least": 20},
            "pretraining": {"hidden": [8, 4], "epochs": 15, "batch_size": 16, "learning_rate": 0.02, "folds": 3},
            "fit": {"c": 1, "c_score": 10},
        }
        for party in ("insurer", "lab"):
            self.edit_party(party, _allow)


def _allow(content: dict[str, Any]) -> None:
    content["policy"] |= {"kinds": ["transfer"], "max_embedding": 4}
    (release,) = content["policy"]["release"].values()
    release |= {"labels": ["died"], "cohort": 5}
