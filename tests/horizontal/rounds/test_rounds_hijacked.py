"""A coordinator that tells parties different things in a training under masks, so that one's update stands out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.members import Members
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.parties.errors import IsthmusError

VICTIM = "p0"
PLAN = RoundsPlan(rounds=3, batch_size=8, learning_rate=0.1)
TELLS: dict[str, Any] = {
    "more rows than there are": lambda fields: {**fields, "rows": fields["rows"] * 10**12},
    "that nothing is to be trained": lambda fields: {**fields, "train": False},
    "another round": lambda fields: {**fields, "round": fields["round"] + 1},
}


class _Seen(Exception):
    """The coordinator has what it wanted."""


@pytest.mark.parametrize("tell", TELLS.values(), ids=TELLS)
def test_parties_that_are_told_different_things_come_to_no_sum(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, tell: Any
) -> None:
    world = make_world(PLAN)
    tell_vector, gather, offer = Members.tell_vector, SecureGathering.gather, SecureGiving.offer
    offered: dict[str, Any] = {}
    seen: list[Any] = []

    def hijacked(
        self: Any, names: Any, topic: Any, step: Any, number: int, vector: Any, fields: Any, **options: Any
    ) -> None:
        if "rows" in fields and list(names) != [VICTIM]:
            fields = tell(fields)
        tell_vector(self, names, topic, step, number, vector, fields, **options)

    def noted(self: Any, one: Any, values: Any, encoding: Any, **options: Any) -> None:
        offered[self._me] = np.array(values)
        offer(self, one, values, encoding, **options)

    def watched(self: Any, members: Any, topic: Any, one: Any, size: int, *rest: Any, **options: Any) -> Any:
        found = gather(self, members, topic, one, size, *rest, **options)
        if size > 1:
            seen.append(found)
            raise _Seen
        return found

    monkeypatch.setattr(Members, "tell_vector", hijacked)
    monkeypatch.setattr(SecureGiving, "offer", noted)
    monkeypatch.setattr(SecureGathering, "gather", watched)
    world.run(secure=True, timeout_s=5.0)
    if seen and seen[0].survivors:
        size = PLAN.scope.layout(world.problems[VICTIM].module).size
        error = np.abs(seen[0].total[:size] - offered[VICTIM][:size]).max()
        print("the coordinator has the victim's update to within", error)
    assert not seen or seen[0].survivors == ()
    for name in world.parties:
        failure = world.failure(name)
        assert isinstance(failure, IsthmusError), failure
