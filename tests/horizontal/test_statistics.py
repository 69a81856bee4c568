"""Statistics over parties in threads: equal to pandas on the pooled rows, and nothing below the floor."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from isthmus.horizontal.counting import OwnRows
from isthmus.horizontal.findings import NumberSummary, StatisticsResult
from isthmus.horizontal.members import Members
from isthmus.horizontal.request import CountTable, Curve, Grouping, StatisticsRequest
from isthmus.horizontal.schema import ColumnSpec
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.statistics import collect, standardise, standards_request
from isthmus.horizontal.statistics_party import StatisticsParty
from isthmus.horizontal.summing import PlainGathering, PlainGiving
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.errors import InputError, PeerFailure
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Topic
from isthmus.parties.state import State
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


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return make_cohort()


@pytest.fixture(scope="module")
def open_result(cohort: Cohort) -> StatisticsResult:
    """With a floor of 1."""
    return run(cohort, REQUEST)["coordinator"]


@pytest.fixture(scope="module")
def result(cohort: Cohort) -> StatisticsResult:
    """With a floor of 5."""
    return run(cohort, replace(REQUEST, floor=5))["coordinator"]


def number(result: StatisticsResult, name: str) -> NumberSummary:
    return next(one for one in result.numbers if one.name == name)


@pytest.mark.parametrize("name", ["age", "crea", "flag"])
def test_without_a_floor_numbers_equal_pandas_on_the_pooled_rows(
    cohort: Cohort, open_result: StatisticsResult, name: str
) -> None:
    found, wanted = number(open_result, name), cohort.frame[name]
    assert (found.known, found.missing) == (wanted.count(), wanted.isna().sum())
    assert found.mean == pytest.approx(wanted.mean(), rel=1e-14)
    assert found.standard_deviation == pytest.approx(wanted.std(), rel=1e-12)
    assert found.mean_step == found.deviation_step == 0
    assert found.low >= wanted.min() and found.high <= wanted.max()
    width = max(one.high - one.low for one in found.histogram)
    assert found.low - width <= wanted.min() and found.high + width >= wanted.max()
    assert sum(one.count for one in found.histogram) == wanted.count()


@pytest.mark.parametrize("floor", [1, 5])
@pytest.mark.parametrize("name", ["age", "crea"])
def test_quantiles_lie_in_the_stated_bin(
    cohort: Cohort, open_result: StatisticsResult, result: StatisticsResult, name: str, floor: int
) -> None:
    for one in number(open_result if floor == 1 else result, name).quantiles:
        wanted = cohort.frame[name].quantile(one.probability)
        assert one.low <= wanted <= one.high
        assert one.low <= one.value <= one.high
        assert one.high - one.low < 0.15 * cohort.frame[name].std() * (1 if floor == 1 else 6)


@pytest.mark.parametrize("name", ["age", "crea", "flag"])
def test_with_a_floor_numbers_equal_pandas_to_within_the_stated_step(
    cohort: Cohort, result: StatisticsResult, name: str
) -> None:
    found, wanted = number(result, name), cohort.frame[name]
    assert abs(found.mean - wanted.mean()) <= found.mean_step / 2 + 1e-12
    assert abs(found.standard_deviation - wanted.std()) <= found.deviation_step / 2 + 1e-12
    assert found.mean_step < wanted.std() / 10
    assert (wanted <= found.low).sum() >= 5 and (wanted >= found.high).sum() >= 5
    if name == "crea":  # many missing values: there is nothing to hide
        assert (found.known, found.missing, found.mean_step) == (wanted.count(), wanted.isna().sum(), 0)
    else:
        assert found.known is None and found.missing is None and found.with_others is not None


def test_categories_equal_pandas(cohort: Cohort, open_result: StatisticsResult, result: StatisticsResult) -> None:
    for found in (open_result, result):
        sex, region = found.categories
        for category in (sex, region):
            wanted = cohort.frame[category.name].value_counts()
            assert category.counts == tuple(wanted[level] for level in category.levels)
        assert (region.other, region.missing) == (wanted["elsewhere"], cohort.frame["region"].isna().sum())
    assert sex.rest is None and sex.with_others in ("f", "m")


def test_without_a_floor_tables_and_margins_equal_pandas(cohort: Cohort, open_result: StatisticsResult) -> None:
    frame = cohort.frame.assign(
        age=pd.cut(cohort.frame["age"], [-np.inf, 40, 65, 80, np.inf], right=False, labels=False),
        region=cohort.frame["region"].where(cohort.frame["region"].isin(REGIONS)),
    )
    bands = ["below 40", "40 to 65", "65 to 80", "80 and above"]
    table = open_result.tables[0]
    assert table.columns == ("age", "region")
    assert len(table.cells) == 5 * 4 + 5 + 4 + 1  # four bands and missing, three regions and other
    for cell in table.cells:
        chosen = np.ones(len(frame), dtype=bool)
        if cell.groups[0] is not None:
            chosen &= (
                frame["age"].isna() if cell.groups[0] == "(missing)" else frame["age"] == bands.index(cell.groups[0])
            )
        if cell.groups[1] is not None:
            chosen &= frame["region"].isna() if cell.groups[1] == "(other)" else frame["region"] == cell.groups[1]
        assert cell.count == chosen.sum(), cell.groups


def test_no_count_below_the_floor_is_told(result: StatisticsResult) -> None:
    def counts(content: Any) -> Iterator[int]:
        if isinstance(content, dict):
            for key, value in content.items():
                if key in ("count", "known", "missing", "other", "rest", "patients", "events", "at_risk"):
                    yield from [value] if value is not None else []
                elif key == "counts":
                    yield from (one for one in value if one is not None)
                else:
                    yield from counts(value)
        elif isinstance(content, list | tuple):
            for one in content:
                yield from counts(one)

    found = list(counts(result.to_dict()))
    assert len(found) > 100 and min(found) >= 5
    steps = [step for curves in result.curves for stratum in curves.strata for step in stratum.steps]
    assert steps and all(step.censored == 0 or step.censored >= 5 for step in steps)


def test_parties_are_told_what_the_coordinator_returns(cohort: Cohort) -> None:
    found = run(cohort, replace(REQUEST, floor=5))
    assert all(one == found["coordinator"] for one in found.values())
    text = json.dumps(found["coordinator"].to_dict(), allow_nan=False)
    assert StatisticsResult.from_dict(json.loads(text)) == found["coordinator"]


def test_the_greatest_floor_holds_and_a_party_refuses_a_lower_one(cohort: Cohort) -> None:
    request = StatisticsRequest(COLUMNS[3:], floor=3)
    assert run(cohort, request, floor=20, floors={"party1": 20})["coordinator"].floor == 20
    found = run(cohort, request, floor=3, floors={"party1": 20})
    assert found["party1"].code == "policy.cohort"
    assert found["coordinator"].code == "rounds.quorum"


def test_a_party_with_another_request_refuses(cohort: Cohort) -> None:
    found = run(cohort, REQUEST, requests={"party2": replace(REQUEST, bins=256)})
    assert found["party2"].code == "job.not_agreed"
    assert isinstance(found["coordinator"], PeerFailure) and found["coordinator"].code == "rounds.quorum"


def test_with_a_quorum_the_sums_go_on_over_those_that_are_left(cohort: Cohort) -> None:
    found = run(cohort, REQUEST, quorum=2, absent=["party1"], deadline_s=5.0)["coordinator"]
    assert found.parties == ("party0", "party2")
    assert found.patients == (cohort.owner != 1).sum()


def test_fewer_patients_than_the_floor_are_not_told_of() -> None:
    found = run(make_cohort(12, seed=4), replace(REQUEST, floor=13))["coordinator"]
    assert found.patients is None
    assert all(one.mean is None and not one.histogram for one in found.numbers)
    assert all(count is None for one in found.categories for count in one.counts)
    assert not any(table.cells for table in found.tables)
    assert not any(stratum.steps for curves in found.curves for stratum in curves.strata)


def test_a_column_known_of_fewer_patients_than_the_floor_tells_nothing() -> None:
    cohort = make_cohort(200, seed=3)
    cohort.frame.loc[4:, "crea"] = np.nan
    found = number(run(cohort, replace(REQUEST, floor=5))["coordinator"], "crea")
    assert (found.known, found.missing, found.mean, found.standard_deviation) == (None, None, None, None)
    assert not found.histogram and all(one.value is None for one in found.quantiles)


def test_a_value_too_large_to_be_added_up_is_refused_by_name() -> None:
    cohort = make_cohort(200, seed=3)
    cohort.frame.loc[7, "crea"] = 1e300
    found = run(cohort, replace(REQUEST, floor=5))
    failures = [one for one in found.values() if isinstance(one, InputError)]
    assert [one.code for one in failures] == ["data.too_large"]
    assert failures[0].facts["column"] == "crea"


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_variance_is_right_whatever_the_scale(scale: float, offset: float) -> None:
    cohort = make_cohort(300, seed=5)
    cohort.frame["crea"] = (cohort.frame["crea"] + offset) * scale
    found = number(run(cohort, REQUEST)["coordinator"], "crea")
    assert found.mean == pytest.approx(cohort.frame["crea"].mean(), rel=1e-14)
    assert found.standard_deviation == pytest.approx(cohort.frame["crea"].std(), rel=1e-11)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_standardisation_equals_the_encoder_fitted_on_the_pooled_rows(seed: int) -> None:
    cohort = make_cohort(400, parties=4, seed=seed)
    cohort.frame["constant"] = 0.1
    cohort.frame["full"] = cohort.frame["time"]
    cohort.frame["empty"] = np.nan
    specs = (*COLUMNS, *(ColumnSpec(name, "number") for name in ("constant", "full", "empty")))
    request = standards_request(specs, floor=5)
    found = run(cohort, request, standards=True)
    pooled = columns_of(cohort.frame, [spec for spec in specs if spec.kind == "number"])
    wanted = TabularEncoder.fit(pooled, np.arange(len(cohort.frame))).numbers
    assert all(one == found["coordinator"] for one in found.values())
    for mine, theirs in itertools.zip_longest(found["coordinator"], wanted):
        assert (mine.name, mine.indicator) == (theirs.name, theirs.indicator)
        assert (mine.mean, mine.scale) == pytest.approx((theirs.mean, theirs.scale), rel=1e-9, abs=1e-12)


def test_standardisation_leaves_alone_what_fewer_than_the_floor_have() -> None:
    cohort = make_cohort(100, seed=2)
    cohort.frame.loc[4:, "crea"] = np.nan
    codes = run(cohort, standards_request(COLUMNS, floor=5), standards=True)["coordinator"]
    (crea,) = (code for code in codes if code.name == "crea")
    assert (crea.mean, crea.scale, crea.indicator) == (0.0, 1.0, True)


@dataclass
class Masked:
    """Secure sums between real homes; `run` says which run folder holds what a party keeps of them."""

    folder: Path
    run: str = "first"

    def __call__(self, names: list[str]) -> tuple[SecureGathering, Callable[[str, Channel], SecureGiving]]:
        for name in names:
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "party.yaml").write_text(f"name: {name}")
        homes = {name: PartyHome(self.folder / name) for name in names}
        identities = {name: Identity(home) for name, home in homes.items()}
        keys = {name: identity.public for name, identity in identities.items()}

        def giving(name: str, channel: Channel) -> SecureGiving:
            memory = SumMemory(self.folder / name / self.run, State(homes[name]), party=name)
            return SecureGiving(channel, Topic.STATISTICS, identities[name], keys, memory)

        return SecureGathering(self.folder / "coordinator" / self.run, party="coordinator"), giving


def test_masked_and_plain_sums_tell_the_same(cohort: Cohort, result: StatisticsResult, tmp_path: Path) -> None:
    request = replace(REQUEST, floor=5)
    found = run(cohort, request, ways=Masked(tmp_path))
    assert found["coordinator"] == result
    assert all(one == result for one in found.values())


def test_masked_sums_may_be_asked_again_over_the_same_parties_only(tmp_path: Path) -> None:
    cohort = make_cohort(400, parties=5, seed=2)
    request = replace(REQUEST, curves=(), tables=(), floor=5)
    first = run(cohort, request, ways=Masked(tmp_path))
    again = run(cohort, request, ways=Masked(tmp_path, "second"))
    assert again["coordinator"] == first["coordinator"]
    fewer = run(cohort, request, ways=Masked(tmp_path, "third"), absent=["party3"], quorum=4, deadline_s=5.0)
    assert {fewer[name].code for name in ("party0", "party1")} == {"secagg.repeated"}
    other_floor = run(
        cohort, replace(request, floor=9), ways=Masked(tmp_path, "fourth"), absent=["party3"], quorum=4, deadline_s=5.0
    )
    assert {other_floor[name].code for name in ("party0", "party1")} == {"secagg.repeated"}


def test_masked_standardisation_equals_the_plain_one(cohort: Cohort, tmp_path: Path) -> None:
    request = standards_request(COLUMNS, floor=5)
    plain, masked = run(cohort, request, standards=True), run(cohort, request, standards=True, ways=Masked(tmp_path))
    assert masked["coordinator"] == plain["coordinator"]


@pytest.mark.parametrize(("rows", "seed", "few"), [(60, 0, False), (60, 1, False), (250, 2, False), (250, 3, True)])
def test_nothing_that_is_kept_back_can_be_computed_from_the_whole_result(rows: int, seed: int, few: bool) -> None:
    """An attacker with the result alone: tables, margins, levels, histograms; programs over the unknown cells."""
    floor = 5
    cohort = make_cohort(rows, seed=seed)
    if few:
        cohort.frame.loc[3:, "age"] = np.nan
    result = run(cohort, replace(REQUEST, floor=floor))["coordinator"]
    unknown: dict[Any, int] = {}
    equal: list[dict[int, float]] = []
    known: list[float] = []

    def place(key: Any) -> int:
        return unknown.setdefault(key, len(unknown))

    def state(parts: Sequence[Any], total: Any, count: int | None) -> None:
        """That parts add up to a total, and what is told of it."""
        equal.append({place(part): 1.0 for part in parts} | {place(total): -1.0})
        known.append(0.0)
        if count is not None:
            equal.append({place(total): 1.0})
            known.append(float(count))

    for table in result.tables:
        groups = [
            list(dict.fromkeys(cell.groups[axis] for cell in table.cells if cell.groups[axis])) for axis in range(2)
        ]
        for cell in table.cells:
            fixed = [[group] if group else groups[axis] for axis, group in enumerate(cell.groups)]
            inner = [(table.name, one) for one in itertools.product(*fixed)]
            named = frozenset((c, g) for c, g in zip(table.columns, cell.groups, strict=True) if g)
            state(inner, named, cell.count)
    age = number(result, "age")
    bands = [group for group in dict.fromkeys(cell.groups[0] for cell in result.tables[0].cells) if group]
    edges = [-np.inf, 40.0, 65.0, 80.0, np.inf]
    for band, (low, high) in zip(bands, itertools.pairwise(edges), strict=False):
        inside = [one for one in age.histogram if (one.low or -np.inf) >= low and (one.high or np.inf) <= high]
        if inside:
            state([("bin", one.low, one.high) for one in inside], frozenset({("age", band)}), None)
    for one in age.histogram:
        state([("bin", one.low, one.high)], ("told bin", one.low, one.high), one.count)
    for category in result.categories:
        for level, count in zip(category.levels, category.counts, strict=True):
            state([frozenset({(category.name, level)})], ("level", category.name, level), count)
    matrix = np.zeros((len(equal), len(unknown)))
    for row, places in enumerate(equal):
        for at, sign in places.items():
            matrix[row, at] += sign
    hidden = [
        key
        for table in result.tables
        for cell in table.cells
        if cell.count is None
        for key in [frozenset((c, g) for c, g in zip(table.columns, cell.groups, strict=True) if g)]
    ]
    assert rows > 100 or hidden
    for key in hidden:
        ends = []
        for sign in (1.0, -1.0):
            direction = np.zeros(len(unknown))
            direction[unknown[key]] = sign
            found = linprog(direction, A_eq=matrix, b_eq=known, bounds=(0, None))
            assert found.status == 0, found.message
            ends.append(sign * found.fun)
        assert ends[1] - ends[0] >= floor - 1e-6, (key, ends)
