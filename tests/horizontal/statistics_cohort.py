"""Rows of several kinds at some parties, and statistics of them in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isthmus.horizontal.counting import OwnRows
from isthmus.horizontal.findings import NumberSummary, StatisticsResult
from isthmus.horizontal.members import Members
from isthmus.horizontal.request import CountTable, Curve, Grouping, StatisticsRequest
from isthmus.horizontal.schema import ColumnSpec
from isthmus.horizontal.statistics import collect, standardise
from isthmus.horizontal.statistics_party import StatisticsParty
from isthmus.horizontal.summing import PlainGathering, PlainGiving
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Topic
from isthmus.parties.table import Column

JOB = "1" * 64
REGIONS = ("coast", "hills", "valley")
COLUMNS = (
    ColumnSpec("age", "number"),
    ColumnSpec("crea", "number"),
    ColumnSpec("flag", "number"),
    ColumnSpec("sex", "category", ("f", "m")),
    ColumnSpec("region", "category", REGIONS),
)
REQUEST = StatisticsRequest(
    COLUMNS,
    tables=(
        CountTable("age by region", (Grouping("age", (40.0, 65.0, 80.0)), Grouping("region"))),
        CountTable("sex by region", (Grouping("sex"), Grouping("region"))),
    ),
    curves=(Curve("survival", "time", "death", until=200.0, by=("sex", "region")),),
    floor=1,
)


@dataclass
class Cohort:
    """Pooled rows, and which party each belongs to."""

    frame: pd.DataFrame
    owner: np.ndarray[Any, Any]

    def part(self, party: int) -> pd.DataFrame:
        return self.frame[self.owner == party]


def make_cohort(rows: int = 900, parties: int = 3, seed: int = 1, *, gaps: bool = True) -> Cohort:
    """Columns of several kinds, differently distributed at each party."""
    generator = np.random.default_rng(seed)
    owner = generator.integers(0, parties, rows)
    frame = pd.DataFrame(
        {
            "age": np.round(generator.normal(60 + 3 * owner, 12)),
            "crea": np.exp(generator.normal(0.1 * owner, 0.7)),
            "flag": (generator.random(rows) < 0.02).astype(float),
            "sex": generator.choice(["f", "m"], rows),
            "region": generator.choice([*REGIONS, "elsewhere"], rows, p=[0.5, 0.3, 0.17, 0.03]),
            "time": np.ceil(generator.exponential(90, rows)).clip(1, 200),
            "death": generator.integers(0, 2, rows).astype(float),
        }
    )
    if gaps:
        frame.loc[generator.random(rows) < 0.05, "crea"] = np.nan
        frame.loc[generator.random(rows) < 0.02, "region"] = None
        frame.loc[:1, "age"] = np.nan
    return Cohort(frame, owner)


def columns_of(frame: pd.DataFrame, specs: Sequence[ColumnSpec]) -> list[Column]:
    found = []
    for spec in specs:
        values = frame[spec.name]
        if spec.kind == "number":
            found.append(Column(spec.name, "number", values.to_numpy(dtype=np.float64)))
        else:
            texts = np.array([None if pd.isna(value) else value for value in values], dtype=object)
            found.append(Column(spec.name, "category", texts))
    return found


def rows_of(frame: pd.DataFrame, request: StatisticsRequest, party: str) -> OwnRows:
    times = {one.name: (frame[one.duration].to_numpy(), frame[one.event].to_numpy()) for one in request.curves}
    return OwnRows(request, columns_of(frame, request.columns), times, len(frame), party=party)


def run(
    cohort: Cohort,
    request: StatisticsRequest,
    *,
    floor: int | None = None,
    standards: bool = False,
    quorum: int | None = None,
    requests: Mapping[str, StatisticsRequest] | None = None,
    floors: Mapping[str, int] | None = None,
    absent: Sequence[str] = (),
    deadline_s: float = 20.0,
    ways: Callable[[list[str]], tuple[Any, Callable[[str, Channel], Any]]] | None = None,
) -> dict[str, Any]:
    """Run C and all parties in threads: what each returns or raises."""
    names = [f"party{number}" for number in range(int(cohort.owner.max()) + 1)]
    ours, theirs = {}, {}
    for name in names:
        left, right = memory_pair()
        ours[name] = Channel(left, me="coordinator", peer=name, log=CountingLog(), timeout_s=20.0)
        theirs[name] = Channel(right, me=name, peer="coordinator", log=CountingLog(), timeout_s=20.0)
    gathering, giving = ways(names) if ways else (PlainGathering(), lambda _, one: PlainGiving(one, Topic.STATISTICS))
    found: dict[str, Any] = {}

    def coordinate() -> Any:
        ask = standardise if standards else collect
        return ask(
            Members(ours), gathering, request, job_digest=JOB, attempt=1, floor=floor or request.floor, quorum=quorum,
            deadline_s=deadline_s,
        )  # fmt: skip

    def take_part(name: str) -> Any:
        if name in absent:
            return theirs[name].close()
        mine = (requests or {}).get(name, request)
        rows = rows_of(cohort.part(names.index(name)), mine, name)
        own = (floors or {}).get(name, 1)
        party = StatisticsParty(
            theirs[name],
            giving(name, theirs[name]),
            mine,
            rows,
            parties=names,
            job_digest=JOB,
            attempt=1,
            floor=own,
            dataset="d",
        )
        return party.standardisation() if standards else party.run()

    def side(name: str, what: Callable[[], Any], channels: Sequence[Channel]) -> None:
        try:
            found[name] = what()
        except Exception as failure:
            found[name] = failure
            for channel in channels:
                channel.close()

    threads = [threading.Thread(target=side, args=("coordinator", coordinate, list(ours.values())), daemon=True)]
    for name in names:
        one = threading.Thread(target=side, args=(name, lambda name=name: take_part(name), [theirs[name]]), daemon=True)
        threads.append(one)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive(), "a side hangs"
    for channel in (*ours.values(), *theirs.values()):
        channel.close()
    return found


def number(result: StatisticsResult, name: str) -> NumberSummary:
    return next(one for one in result.numbers if one.name == name)
