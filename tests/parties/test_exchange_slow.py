"""An exchange and members that do not take what is sent to them: they harm themselves alone."""

from __future__ import annotations

import time

import pytest

from isthmus.parties.network import connection

from .relay_world import ROOM, eventually, frame, relay_world

MIB = 1024 * 1024
UNREAD = {"reads": False, "lookahead_bytes": 65536, "bdp_probe": 0}


def test_a_stream_that_holds_its_senders_back_for_long_is_cut_and_they_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD_BACK_S", 0.5)
    with relay_world(outbox_nbytes=MIB) as world:
        hub, lab = world.join("insurer"), world.join("lab")
        world.join("clinic", **UNREAD)  # type: ignore[arg-type]
        for _ in range(20):
            hub.send(frame("insurer", "clinic", bytes(MIB - 200)))
        hub.send(frame("insurer", "lab", b"at last"))
        assert lab.receive() == b"at last"
        assert world.exchange.figures.refused["slow"] == 1
        eventually(lambda: world.waiting_nbytes() == 0)


def test_a_stream_that_takes_a_little_all_the_time_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD_BACK_S", 0.5)
    with relay_world(outbox_nbytes=MIB) as world:
        lab, clinic = world.join("lab"), world.join("clinic")
        payloads = [bytes([number]) * (MIB - 200) for number in range(40)]
        for payload in payloads:
            lab.send(frame("lab", "clinic", payload))
        for payload in payloads:
            assert clinic.receive() == payload
            time.sleep(0.04)


def test_what_waits_for_one_member_is_bounded_over_all_its_streams() -> None:
    with relay_world(outbox_nbytes=MIB) as world:
        rooms = [ROOM[:-1] + digit for digit in "0123456789abcdef"]
        for room in rooms:
            world.join("clinic", room=room, **UNREAD)  # type: ignore[arg-type]
            lab = world.join("lab", room=room)
            for _ in range(4):
                lab.send(frame("lab", "clinic", bytes(MIB // 2)))
        eventually(lambda: world.exchange.figures.dropped["full"] > 0)
        assert world.waiting_nbytes() < 6 * MIB
        lab, insurer = world.join("lab"), world.join("insurer")
        lab.send(frame("lab", "insurer", b"on"))
        assert insurer.receive() == b"on"
