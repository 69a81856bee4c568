"""A coordinator that somebody else has taken over: what it gets from parties that keep to their jobs."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.horizontal.members import Members
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Phase, Started


def test_a_coordinator_cannot_leave_a_party_out_of_a_sum(
    make_star: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of five suffice for the threshold; but the job names no quorum, so what is asked of four is refused."""
    star = make_star(tmp_path, ("north", "south", "east", "west", "mid"))
    refused: list[IsthmusError] = []
    offer = SecureGiving.offer

    def watched(giving: Any, *arguments: Any, **options: Any) -> None:
        try:
            offer(giving, *arguments, **options)
        except IsthmusError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(SecureGiving, "offer", watched)
    names = Members.names.fget
    monkeypatch.setattr(Members, "names", property(lambda self: names(self)[:4]))
    with pytest.raises(IsthmusError):
        star.run_inside()
    assert {error.code for error in refused} == {"secagg.too_few"}
    assert {(error.facts["count"], error.facts["allowed"]) for error in refused} == {(4, 5)}


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.TRAIN, Phase.EVALUATE])
def test_a_flow_cannot_command_what_no_policy_has_judged(star: Any, phase: Phase) -> None:
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(phases=(phase,))
    assert caught.value.code == "internal"
    assert not any(isinstance(event, Started) for _, event in star.journal.events)
