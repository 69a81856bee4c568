"""Fed-Heart-Disease of FLamby through the real engine, beside the published figures (`make bench-heart`; QUICK=1).

Four hospitals, 13 columns, logistic regression, 15 rounds of 100 batches of 4, seeds 42-46; accuracy on each hospital's
test patients, mean over hospitals, then over seeds. Data, split and settings are those of the benchmark (Ogier du
Terrail et al., "FLamby", NeurIPS 2022); none was tuned here. DATA is the folder of the four CSV files, by default
`../shared/data/heart_disease` beside the repository.

- **isthmus**: the whole engine, with a vault process for each hospital and the coordinator, secure aggregation, a
  split column and a model of one's own. Hospitals standardise by their own training rows.
- **plain**: the same methods in a torch loop in one process, as anyone would write them to repeat the paper.

Both begin with the weights that torch draws after `torch.manual_seed(seed)`: with others the figures of this benchmark
move by more than FedAvg, FedProx and SCAFFOLD differ. That, and two formulas in which implementations differ, are
switched in the plain loop at the end. Nothing is asserted; QUICK runs one seed, which says little of the published
means. The last line is JSON: `fedavg`, `fedprox`, `fedadam`, `fedyogi`, `fedadagrad`, `scaffold` (mean accuracy of
isthmus), `published` and `plain`.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch
import yaml
from heart_reference import BATCH, COLUMNS, METHODS, ROUNDS, SIZES, STEPS, Hospital, Method, plain, read_hospital

from isthmus.flows.kinds.horizontal.job import HorizontalJob
from isthmus.flows.launch import run_here
from isthmus.parties.events import Metric
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity

HERE = Path(__file__).parent
QUICK = os.environ.get("QUICK", "") not in ("", "0")
SEEDS = (42,) if QUICK else (42, 43, 44, 45, 46)
MODEL = "heart_model.Baseline"


def make_homes(folder: Path, hospitals: dict[str, Hospital]) -> None:
    """Write a home for each hospital, with its DuckDB file, and the coordinator's."""
    members = [*hospitals, "coordinator"]
    configs: dict[str, dict[str, Any]] = {}
    for name in members:
        (folder / name).mkdir(parents=True)
        policy: dict[str, Any] = {
            "kinds": ["horizontal"], "purposes": ["benchmark"], "peers": [other for other in members if other != name],
            "max_rounds": ROUNDS, "models": [MODEL], "publish": ["counts", "metrics", "curves"],
        }  # fmt: skip
        configs[name] = {"name": name, "policy": policy}
    for name, hospital in hospitals.items():
        with duckdb.connect(folder / name / "data.duckdb") as connection:
            columns = dict(zip(COLUMNS, hospital.features.T.copy(), strict=True))
            part = np.where(hospital.train, "train", "test").astype(object)
            rows = {"id": np.arange(len(part)), **columns, "disease": hospital.disease, "part": part}
            connection.register("rows", rows)
            connection.execute("CREATE TABLE patients AS FROM rows")
        configs[name]["data"] = "data.duckdb"
        configs[name]["datasets"] = {"heart": {"sql": "SELECT * FROM patients", "row_id": "id"}}
        release = {"columns": [*COLUMNS, "part"], "labels": ["disease"], "cohort": 1}
        configs[name]["policy"]["release"] = {"heart": release}
    for keys in (False, True):  # a home can make its key, which the others name, once it is one
        pinned = {name: Identity(PartyHome(folder / name)).public.hex() for name in members} if keys else {}
        for name, config in configs.items():
            (folder / name / "party.yaml").write_text(yaml.safe_dump({**config, "keys": pinned}))


def job_of(method: Method, seed: int) -> HorizontalJob:
    """The job of one method and seed."""
    objective = {"kind": "proximal", "mu": method.mu} if method.mu else {"kind": "plain"}
    strategy = {
        "objective": {"kind": "scaffold"} if method.scaffold else objective,
        "optimizer": {"kind": method.server, "learning_rate": method.server_rate},
    }
    return HorizontalJob.model_validate(
        {
            "name": "heart",
            "purpose": "benchmark",
            "parties": [{"name": name, "dataset": "heart"} for name in SIZES],
            "columns": list(COLUMNS),
            "label": {"column": "disease"},
            "model": {"kind": "own", "path": MODEL, "options": {"seed": seed}},
            "strategy": strategy,
            "rounds": {
                "count": ROUNDS, "local_steps": STEPS, "batch_size": BATCH, "learning_rate": method.learning_rate,
                "keep": "last", "seed": seed,
            },
            "split": {"column": "part"},
            "standardise": "own",
            "alone": False,
        }
    )  # fmt: skip


def through_isthmus(method: Method, seed: int, hospitals: dict[str, Hospital]) -> float:
    """Mean test accuracy of a method through the engine, in homes that have never trained before."""
    with tempfile.TemporaryDirectory() as folder:
        make_homes(Path(folder), hospitals)
        journal = asyncio.run(run_here(job_of(method, seed), Path(folder), "heart"))
    found = {
        party: event.value
        for party, event in journal.of(Metric)
        if (event.name, event.part, event.of) == ("accuracy", "test", "own") and event.subgroup is None
    }
    return float(np.mean([found[name] for name in hospitals]))


def spread(values: list[float]) -> str:
    """Mean and range over seeds."""
    return f"{np.mean(values):.4f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    """Measure, print the table and what moves the figures, then one line of JSON."""
    torch.set_num_threads(1)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))  # for vaults
    hospitals = {name: read_hospital(name) for name in SIZES}
    print(
        f"{'QUICK: ' if QUICK else ''}four hospitals, {len(COLUMNS)} columns, {ROUNDS} rounds of {STEPS} steps, seeds "
        f"{', '.join(map(str, SEEDS))}; test accuracy, mean over hospitals, then over seeds (range)\n"
    )
    print(f"{'':>11}{'isthmus':>23}{'published':>11}{'difference':>12}{'plain torch':>23}{'seconds':>9}")
    result: dict[str, Any] = {"benchmark": "heart", "quick": QUICK, "seeds": list(SEEDS), "published": {}, "plain": {}}
    raw: dict[str, Any] = {}
    for name, method in METHODS.items():
        start = time.monotonic()
        ours = [through_isthmus(method, seed, hospitals) for seed in SEEDS]
        seconds = (time.monotonic() - start) / len(SEEDS)
        base = [plain(method, seed, hospitals) for seed in SEEDS]
        print(
            f"{name:>11}{spread(ours):>23}{method.published:>11.4f}{np.mean(ours) - method.published:>+12.4f}"
            f"{spread(base):>23}{seconds:>9.1f}",
            flush=True,
        )
        raw[name] = {"isthmus": ours, "plain": base}
        result[name] = round(float(np.mean(ours)), 4)
        result["published"][name] = method.published
        result["plain"][name] = round(float(np.mean(base)), 4)
    print("\nWhat moves these figures, switched in plain torch:")
    adam, scaffold, average = (METHODS[name] for name in ("fedadam", "scaffold", "fedavg"))
    switched = {
        "fedadam, bias corrected as in Flower": [plain(adam, seed, hospitals, correct_bias=True) for seed in SEEDS],
        "scaffold, controls by party, not by row": [
            plain(scaffold, seed, hospitals, count_alike=True) for seed in SEEDS
        ],
        "fedavg, other first weights (seeds + 100)": [plain(average, seed + 100, hospitals) for seed in SEEDS],
    }
    for name, values in switched.items():
        print(f"  {name:<43}{spread(values)}")
    result["switched"] = {name: round(float(np.mean(values)), 4) for name, values in switched.items()}
    result["raw"] = raw
    print(json.dumps(result))


if __name__ == "__main__":
    main()
