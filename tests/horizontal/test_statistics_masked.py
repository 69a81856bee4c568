"""Statistics under secure aggregation tell what plain ones tell, and can be asked again over the same parties only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.horizontal.findings import StatisticsResult
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.statistics import standards_request
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.message import Topic
from isthmus.parties.state import State

from ..kept_open import kept_open, make_state
from .statistics_cohort import COLUMNS, REQUEST, make_cohort, run

Way = Callable[[list[str]], tuple[SecureGathering, Callable[[str, Channel], SecureGiving]]]


@pytest.fixture
def masked(tmp_path: Path) -> Iterator[Callable[[str], Way]]:
    """Secure sums between five real homes; `run` says which run folder holds what a party keeps of them."""
    homes = {}
    for name in (f"party{number}" for number in range(5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "party.yaml").write_text(f"name: {name}")
        make_state(tmp_path / name)
        homes[name] = PartyHome(tmp_path / name)
    identities = {name: Identity(home) for name, home in homes.items()}
    keys = {name: identity.public for name, identity in identities.items()}

    def way_of(run: str) -> Way:
        def giving(name: str, channel: Channel) -> SecureGiving:
            memory = SumMemory(tmp_path / name / run, State(homes[name]), party=name)
            return SecureGiving(channel, Topic.STATISTICS, identities[name], keys, memory)

        return lambda names: (SecureGathering(tmp_path / "coordinator" / run, party="coordinator"), giving)

    with kept_open(home.folder for home in homes.values()):
        yield way_of


def test_masked_and_plain_sums_tell_the_same(masked: Callable[[str], Way]) -> None:
    cohort, request = make_cohort(), replace(REQUEST, floor=5)
    plain, found = run(cohort, request)["coordinator"], run(cohort, request, ways=masked("first"))
    assert isinstance(plain, StatisticsResult)
    assert all(one == plain for one in found.values())


def test_masked_sums_may_be_asked_again_over_the_same_parties_only(masked: Callable[[str], Way]) -> None:
    cohort = make_cohort(400, parties=5, seed=2)
    request = replace(REQUEST, curves=(), tables=(), floor=5)
    first = run(cohort, request, ways=masked("first"))
    again = run(cohort, request, ways=masked("second"))
    assert again["coordinator"] == first["coordinator"]
    fewer = run(cohort, request, ways=masked("third"), absent=["party3"], quorum=4, deadline_s=5.0)
    assert {fewer[name].code for name in ("party0", "party1")} == {"secagg.repeated"}
    other_floor = run(
        cohort, replace(request, floor=9), ways=masked("fourth"), absent=["party3"], quorum=4, deadline_s=5.0
    )
    assert {other_floor[name].code for name in ("party0", "party1")} == {"secagg.repeated"}


def test_masked_standardisation_equals_the_plain_one(masked: Callable[[str], Way]) -> None:
    cohort, request = make_cohort(), standards_request(COLUMNS, floor=5)
    plain = run(cohort, request, standards=True)
    found = run(cohort, request, standards=True, ways=masked("first"))
    assert found["coordinator"] == plain["coordinator"]
