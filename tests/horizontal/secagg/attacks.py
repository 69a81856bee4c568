"""A coordinator under secure aggregation that does what it likes, and how the parties then end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isthmus.parties.errors import IsthmusError
from isthmus.parties.network.message import Step, Topic

TOPIC, TIMEOUT_S = Topic.TRAIN, 30.0
Fields = dict[str, Any]
Change = Callable[[Fields], None]


def on(step: Step, change: Change) -> Callable[[Step, Fields], None]:
    """Change the fields of one step's messages before they are sent."""

    def before(sent: Step, fields: Fields) -> None:
        if sent is step:
            change(fields)

    return before


def attack(world: Any, step: Step, change: Change, *, victims: int = 1) -> dict[str, Any]:
    """How the parties end when the coordinator changes what it sends to the first of them."""
    session = world.session()
    for name in world.names[:victims]:
        session.channels[name].before = on(step, change)
    session.sum(world.values(), deadline_s=5.0)
    for name in world.names[:victims]:
        assert not session.received(name, Step.UNMASK)
    return dict(session.close())


def refusal(found: Any, code: str, **facts: Any) -> None:
    assert isinstance(found, IsthmusError), found
    assert found.code == code, (found, found.detail)
    assert {name: found.facts.get(name) for name in facts} == facts
