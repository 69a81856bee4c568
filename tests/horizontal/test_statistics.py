"""Statistics over parties in threads: equal to pandas on the pooled rows, and nothing below the floor."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isthmus.horizontal.findings import StatisticsResult
from isthmus.horizontal.request import StatisticsRequest
from isthmus.horizontal.schema import ColumnSpec
from isthmus.horizontal.statistics import standards_request
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.errors import InputError, PeerFailure

from .statistics_cohort import COLUMNS, REGIONS, REQUEST, Cohort, columns_of, make_cohort, number, run


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
