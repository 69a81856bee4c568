"""The demo's claim, measured through the real engine: `make bench-demo` (five seeds), `QUICK=1 make bench-demo` (two).

Each seed makes homes of its own (other initial weights and numbering), runs the demo's job with another split by real
vault processes without Prefect, and then trains the baselines as `isthmus demo` does. Nothing is tuned on what is
reported: settings are the job file's; epochs, penalties and rounds are chosen on validation patients.

Two calls differ: the split hangs on the alignment's order as well as on the seed, and its keys are fresh in every run.

The last line is JSON: `recall`, `precision` (the worst of all seeds), `gain_median` (together less the better party
alone, by seed), `pooled_minus_together`, `boosting_pooled_minus_together` (medians), `seconds` (median of a run).
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from isthmus.flows.demo import demo_job, make_homes
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.vertical.baselines import Baselines, run_baselines
from isthmus.flows.launch import run_here
from isthmus.parties.events import Metric

QUICK = bool(os.environ.get("QUICK"))
SEEDS = (7, 11) if QUICK else (7, 11, 23, 42, 101)
COLUMNS = ("lab", "insurer", "insurer+", "together", "pooled", "boosting", "gain", "recall", "seconds")


async def one(seed: int, folder: Path) -> tuple[float, float, Baselines]:
    """One seed: the joint test AUC, the seconds of the run, and the baselines."""
    homes, run = folder / "homes", f"bench-{seed}"
    make_homes(homes, seed=seed)
    job = demo_job(seed=seed)
    began = time.monotonic()
    journal = await run_here(job, homes, run)
    seconds = time.monotonic() - began
    auc = next(e.value for _, e in journal.of(Metric) if e.name == "auc" and e.part == "test" and e.epoch is None)
    return auc, seconds, await run_baselines(homes, folder, run, job, Journal(run))


def main() -> None:
    """Measure and print."""
    print(f"{len(SEEDS)} seeds{' (QUICK: five without it)' if QUICK else ''}; test AUC, network unless said otherwise")
    print(f"{'seed':>6}" + "".join(f"{name:>10}" for name in COLUMNS))
    lines: list[dict[str, float]] = []
    gains_hold = True
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            together, seconds, baselines = asyncio.run(one(seed, Path(folder)))
        auc = {(row.kind, row.party): row.network.auc for row in baselines.rows}
        pooled = next(row for row in baselines.rows if row.kind == "pooled")
        assert baselines.linkage is not None
        better = max(auc["alone", "lab"], auc["alone", "insurer"])
        line = {
            "lab": auc["alone", "lab"],
            "insurer": auc["alone", "insurer"],
            "insurer+": auc["all_rows", "insurer"],
            "together": together,
            "pooled": pooled.network.auc,
            "boosting": pooled.boosting.auc,
            "gain": together - better,
            "recall": baselines.linkage.recall,
            "seconds": seconds,
            "precision": baselines.linkage.precision,
        }
        gains_hold &= line["gain"] > 0
        lines.append(line)
        print(f"{seed:>6}" + "".join(f"{line[name]:>10.3f}" for name in COLUMNS), flush=True)
    for name, of in (("median", statistics.median), ("least", min), ("most", max)):
        print(f"{name:>6}" + "".join(f"{of([line[column] for line in lines]):>10.3f}" for column in COLUMNS))
    print("together beats the better party alone " + ("in every seed" if gains_hold else "NOT in every seed"))

    def median(name: str, less: str = "") -> float:
        return round(statistics.median(line[name] - (line[less] if less else 0) for line in lines), 4)

    result = {
        "seeds": len(lines),
        "recall": round(min(line["recall"] for line in lines), 4),
        "precision": round(min(line["precision"] for line in lines), 4),
        "gain_median": median("gain"),
        "pooled_minus_together": median("pooled", "together"),
        "boosting_pooled_minus_together": median("boosting", "together"),
        "seconds": round(median("seconds"), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
