"""Federated transfer on SUPPORT2, by the functions that vaults call (`make bench-transfer`; QUICK=1: two of the seeds).

The 5,000 patients of `flows/data`, outcome `hospdead`. Each of eight seeds takes 1,000 patients for the test, whom
neither side has seen, and shuffles the others: the source has 11 columns and the label of all 4,000, the target has 15
columns and the label of the first 1, 5 or 20 % of them, which are the shared ones. The target's other patients would be
neither labelled nor shared, so they play no part. What the source says of the shared patients is out of fold and goes
through `give_embedding` and `receive_embedding` over a channel in memory; of a test patient it speaks as of a new one.
The target's patients are of the source's kind here, which is the best case of transfer.

Settings are the defaults of the job. They, and the gate's criterion, were chosen on these 5,000 patients shuffled by
the seeds 0 to 15. The seeds here are others, so that nothing was chosen by their splits; but the patients are the same.

- **target alone**: the linear model on the target's own columns, of all its labelled patients; **source alone**: what
  the source gives and nothing else; **transferred**: both.
- **the gate's choice** is by cross-validation on the shared patients; its **regret** is the best of the three less it.
- **distilled**: own columns only, soft labels of the shared patients, in those seeds in which the gate chose a teacher.
- **not out of fold** is what a source would give that lets one model speak of its own training rows; beside both ways
  stands what cross-validation on the shared patients then claims.

A second table: only a quarter of the shared 20 % is labelled, so that unlabelled patients carry soft labels; or the
target has further 600 labelled patients whom the source does not know. A third: split training of both sides, which
trains on three fifths of the shared patients and stops by another fifth, beside the transferred model of all of them.

Nothing is asserted. The last line is JSON: `gain_1`, `gain_5`, `gain_20` (medians over seeds of transferred, with a
score, less target alone), `gate_regret_max` (the largest of the three medians of the regret), and all figures as raw.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support2_world import PLAN, TEST, Floats, Rows, World, read, take

from isthmus.horizontal.metrics import auc
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.transfer.distill import distill
from isthmus.transfer.embedding import give_embedding, receive_embedding
from isthmus.transfer.gate import CANDIDATES, Comparison, cross_validate, judge
from isthmus.transfer.patients import Patients
from isthmus.transfer.pretrain import pretrain_without
from isthmus.vertical import SplitPlan, split_rows, train_active, train_central, train_passive
from isthmus.vertical.models import ComposedNetwork

QUICK = os.environ.get("QUICK", "") not in ("", "0")
SEEDS = range(100, 102 if QUICK else 108)  # not those by which settings were chosen
OVERLAPS = {"1 %": 40, "5 %": 200, "20 %": 800}
TUNED = (1_000,) if QUICK else (1_000, 2_000)
SPLIT = SplitPlan(dropout=0.3)  # the job's defaults

Found = dict[str, Any]


def channels() -> tuple[Channel, Channel]:
    """The source's and the target's end."""
    ours, theirs = memory_pair()
    return (
        Channel(ours, me="source", peer="target", log=CountingLog(), timeout_s=60),
        Channel(theirs, me="target", peer="source", log=CountingLog(), timeout_s=60),
    )


def through_channel(values: NDArray[np.float32]) -> Floats:
    """Give what the source says of the shared patients to the target."""
    source, target = channels()
    with ThreadPoolExecutor(1) as pool:
        giving = pool.submit(give_embedding, source, values, may_split=False)
        given = receive_embedding(target, *values.shape, split=False)
        giving.result()
    return given


def one(world: World, in_sample: tuple[Floats, Floats]) -> Found:
    """One seed and overlap. `in_sample` are scores of all known and of the test patients by a model of all known."""
    learnt = world.pretrained()
    patients, told = world.patients(through_channel(learnt.given("score"))), world.new(learnt, "score")
    gate = judge(patients, PLAN, seed=world.seed, party="target")
    found = judged(world, patients, told, gate.validated) | {
        "nested": gate.nested.auc("chosen").value,
        "claim": gate.validated.auc("transferred").value,
    }
    for name, representation in (("embedding", learnt), ("self-supervised", world.pretrained(how="self_supervised"))):
        wide = world.patients(through_channel(representation.given("embedding")))
        scores = world.predicted("transferred", wide, world.new(representation, "embedding"))
        found[name] = world.test_auc(scores)
    scores, told = in_sample
    seen = world.patients(scores[: world.shared])
    found["not out of fold"] = world.test_auc(world.predicted("transferred", seen, told))
    claim = cross_validate(seen, ["transferred"], PLAN, world.seed)["transferred"]
    return found | {"claim, not out of fold": auc(seen.label, claim)}


def judged(world: World, patients: Patients, told: Floats, validated: Comparison) -> Found:
    """Test AUC of the candidates, of the gate's choice and of its student; `told` is what the source says of them."""
    found: Found = {name: world.test_auc(world.predicted(name, patients, told)) for name in CANDIDATES}
    choice = validated.chosen
    regret = max(found[name] for name in CANDIDATES) - found[choice]
    found |= {"choice": choice, "gate": found[choice], "regret": regret}
    if choice == "target":
        return found
    student = distill(patients, choice, PLAN, seed=world.seed)
    logits = student.model.logits(take(world.data.target, world.test))
    return found | {"student": world.test_auc(logits), "soft labels": student.soft_labels}


def without_nesting(world: World, patients: Patients) -> Comparison:
    """What the gate chooses by, without the price of judging the gate."""
    known = patients.labelled
    return Comparison(known.label[: known.shared], cross_validate(known, CANDIDATES, PLAN, world.seed))


def further(world: World, *, labelled: int | None = None, extra: Rows | None = None) -> Found:
    """Only some of the shared patients are labelled, or the target has `extra` ones that the source does not know."""
    learnt = world.pretrained()
    told = world.new(learnt, "score")
    shared = world.patients(through_channel(learnt.given("score")))
    patients = world.patients(shared.given, extra)
    patients.label[labelled : world.shared if labelled else 0] = np.nan
    found = judged(world, patients, told, without_nesting(world, patients))
    if extra is not None:
        found |= {f"{name}, shared": world.test_auc(world.predicted(name, shared, told)) for name in CANDIDATES}
    return found


def tuned(world: World) -> Found:
    """Split training from the source's trunk, and from random weights, beside the transferred model."""
    learnt = world.pretrained()
    patients = world.patients(through_channel(learnt.given("score")))
    found = {"transferred": world.test_auc(world.predicted("transferred", patients, world.new(learnt, "score")))}
    plan = replace(SPLIT, seed=world.seed)
    parts = split_rows(world.shared, plan.validation_share, plan.test_share, plan.seed, world.digest)
    columns, label = world.source
    trunk = pretrain_without(
        columns, label, np.concatenate([parts.validation, parts.test]), learnt.plan,
        party="source", private_seed=world.seed, identity=str(world.seed), folder=world.folder / "trunk",
    )  # fmt: skip
    shared = world.known[: world.shared]
    tables = {"target": take(world.data.target, shared), "source": take(world.data.source, shared)}
    ends = dict(zip(("source", "target"), channels(), strict=True))
    options = {
        party: {
            "party": party, "job_digest": "1" * 64, "alignment_digest": world.digest, "private_seed": world.seed,
            "checkpoints": Checkpoints(world.folder / party, party=party),
        }
        for party in ends
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(train_passive, ends["source"], tables["source"], plan, trunk=trunk, **options["source"])
        channel = {"source": ends["target"]}
        active = train_active(channel, tables["target"], world.data.label[shared], plan, **options["target"])
        passive = going.result()
    scratch = train_central(
        tables, world.data.label[shared], plan,
        active="target", private_seeds=dict.fromkeys(tables, world.seed), parts=parts,
    )  # fmt: skip  # which is split training bit for bit
    networks = {"tuned": ComposedNetwork(active.model, {"source": passive.model}), "from scratch": scratch.network}
    encoders = {"tuned": passive.encoder, "from scratch": TabularEncoder.fit(tables["source"], parts.train)}
    rows = active.encoder.transform(take(world.data.target, world.test), TEST)
    for name, network in networks.items():
        theirs = encoders[name].transform(take(world.data.source, world.test), TEST)
        network.eval()
        with torch.no_grad():
            found[name] = world.test_auc(network(rows, {"source": theirs}).numpy().astype(np.float64))
    return found


# --- below: the tables ------------------------------------------------------------------------------------------------

Line = Callable[[list[Found]], str]


def of(name: str) -> Line:
    """Median and range over the seeds that have it."""

    def line(found: list[Found]) -> str:
        values = [one[name] for one in found if name in one]
        return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else "-"

    return line


def less(name: str, other: str = "target") -> Line:
    """Median and range of paired differences over the seeds that have both."""

    def line(found: list[Found]) -> str:
        values = differences(found, name, other)
        return f"{statistics.median(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})" if values else "-"

    return line


def differences(found: list[Found], name: str, other: str) -> list[float]:
    """Of the seeds that have both."""
    return [one[name] - one[other] for one in found if name in one]


def choices(found: list[Found]) -> str:
    """How often the gate chose what."""
    count = Counter(one["choice"] for one in found)
    return " / ".join(str(count[name]) for name in CANDIDATES)


def soft_labels(found: list[Found]) -> str:
    """From how many soft labels students learnt, and in how many seeds there was one."""
    sizes = {one["soft labels"] for one in found if "student" in one}
    return f"{min(sizes)}, {sum('student' in one for one in found)} seeds" if sizes else "-"


CANDIDATE_LINES = (
    ("target alone", of("target")),
    ("source alone", of("source")),
    ("transferred (score)", of("transferred")),
    ("  less target alone", less("transferred")),
)
GATE_LINES = (
    ("the gate's choice", of("gate")),
    ("  target / source / transferred", choices),
    ("  regret", of("regret")),
)
STUDENT_LINES = (
    ("distilled", of("student")),
    ("  soft labels", soft_labels),
    ("  less target alone", less("student")),
)
OVERLAP_LINES = (
    *CANDIDATE_LINES,
    *GATE_LINES,
    ("  nested cross-validation says", of("nested")),
    *STUDENT_LINES,
    ("transferred (embedding)", of("embedding")),
    ("  less target alone", less("embedding")),
    ("transferred (self-supervised)", of("self-supervised")),
    ("  less target alone", less("self-supervised")),
    ("transferred (score), validated", of("claim")),
    ("  the same, not out of fold", of("claim, not out of fold")),
    ("  which on test patients is", of("not out of fold")),
)
FURTHER_LINES = (
    *CANDIDATE_LINES,
    ("target alone, of the shared", of("target, shared")),
    ("transferred, of the shared", of("transferred, shared")),
    *GATE_LINES,
    *STUDENT_LINES,
)
TUNED_LINES = (
    ("transferred (score)", of("transferred")),
    ("split training from the trunk", of("tuned")),
    ("  less transferred", less("tuned", "transferred")),
    ("split training from scratch", of("from scratch")),
    ("  less transferred", less("from scratch", "transferred")),
)


def table(columns: Mapping[str, list[Found]], lines: Sequence[tuple[str, Line]]) -> None:
    """Print a column for each list of seeds."""
    print(f"\n{'':<31}" + "".join(f"{name:>26}" for name in columns))
    for name, line in lines:
        print(f"{name:<31}" + "".join(f"{line(found):>26}" for found in columns.values()))


def main() -> None:
    """Measure, print the tables, then one line of JSON."""
    torch.set_num_threads(1)
    start = time.monotonic()
    data = read()
    overlaps: dict[str, list[Found]] = {name: [] for name in OVERLAPS}
    more: dict[str, list[Found]] = {"20 %, a quarter labelled": [], "5 %, and 15 % of its own": []}
    large: dict[str, list[Found]] = {f"{count:,} shared": [] for count in TUNED}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            worlds = partial(World.of, data, seed, Path(folder))
            in_sample = worlds(0).in_sample()
            for name, count in OVERLAPS.items():
                overlaps[name].append(one(worlds(count), in_sample))
            few, many = OVERLAPS["5 %"], OVERLAPS["20 %"]
            more["20 %, a quarter labelled"].append(further(worlds(many), labelled=few))
            apart = worlds(few, without=many - few)
            more["5 %, and 15 % of its own"].append(further(apart, extra=apart.unknown))
            for count in TUNED:
                large[f"{count:,} shared"].append(tuned(worlds(count)))
        print(f"seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"\n{'QUICK: ' if QUICK else ''}{len(SEEDS)} seeds, {TEST:,} test patients; test AUC, median (range)")
    table(overlaps, OVERLAP_LINES)
    table(more, FURTHER_LINES)
    table(large, TUNED_LINES)
    medians = {name: statistics.median(differences(found, "transferred", "target")) for name, found in overlaps.items()}
    regrets = [statistics.median([one["regret"] for one in found]) for found in overlaps.values()]
    result = {
        "benchmark": "transfer",
        "quick": QUICK,
        "seeds": list(SEEDS),
        **{f"gain_{name.removesuffix(' %')}": round(value, 4) for name, value in medians.items()},
        "gate_regret_max": round(max(regrets), 4),
        "seconds": round(time.monotonic() - start),
        "raw": {name: rounded(found) for name, found in (overlaps | more | large).items()},
    }
    print(json.dumps(result))


def rounded(found: list[Found]) -> list[Found]:
    """Figures of every seed, short."""
    return [
        {name: round(value, 4) if isinstance(value, float) else value for name, value in one.items()} for one in found
    ]


if __name__ == "__main__":
    main()
