"""A link that is up: frames to and from peers, what is dropped, what blocks, and its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.network import link as link_module
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.frame import MAX_FRAME_NBYTES, Kind
from isthmus.parties.network.lane import OUTBOX_NBYTES, Outbox
from isthmus.parties.network.message import Topic

from .cut_proxy import CutProxy
from .exchange_world import World, content, frame, put, wait_until


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    yield shared_world
    shared_world.close_links()


def never() -> bool:
    return False


def unexpected() -> None:
    raise AssertionError("blocked")


# --- to and from peers ------------------------------------------------------------------------------------------------


def test_frames_go_both_ways_and_arrive_as_they_were_sent(world: World) -> None:
    lab, clinic = world.pair()
    there, back = frame("lab", "clinic", b"there"), frame("clinic", "lab", b"back")
    lab.send(Topic.TRAIN, [memoryview(there)[:50], bytearray(there[50:])], 5, unexpected)
    assert clinic.receive(5) == there
    put(clinic, back)
    assert lab.receive(5) == back


def test_a_frame_of_the_largest_size_passes(world: World) -> None:
    lab, clinic = world.pair()
    whole = frame("lab", "clinic").ljust(MAX_FRAME_NBYTES, b"\7")
    put(lab, whole)
    assert clinic.receive(10) == whole


def test_each_lane_keeps_its_order_and_every_frame_arrives_once(world: World) -> None:
    lab, clinic = world.pair()
    for number in range(200):
        put(lab, frame("lab", "clinic", b"%d" % number), Topic.TRAIN if number % 2 else Topic.AGREE)
    came = [int(content(clinic.receive(5))) for _ in range(200)]
    assert [number for number in came if number % 2] == list(range(1, 200, 2))
    assert [number for number in came if not number % 2] == list(range(0, 200, 2))


@pytest.mark.parametrize(
    ("topic", "lane"),
    [(None, "fast"), (Topic.AGREE, "fast"), (Topic.SETUP, "fast")]
    + [(topic, "bulk") for topic in (Topic.ALIGN, Topic.STATISTICS, Topic.TRAIN, Topic.EVALUATE)],
)
def test_a_topic_has_its_lane(world: World, topic: Topic | None, lane: str) -> None:
    lab, clinic = world.pair()
    assert world.exchange is not None
    figures = world.exchange.figures.lanes
    before = {name: figures[name].frames for name in figures}
    put(lab, frame("lab", "clinic"), topic)
    clinic.receive(5)
    assert {name: figures[name].frames - before[name] for name in figures} == {"fast": 0, "bulk": 0} | {lane: 1}


def test_one_link_serves_several_peers_without_mixing_them_up(world: World) -> None:
    lab = world.link("lab")
    to_clinic, to_insurer = lab.end("clinic"), lab.end("insurer")
    clinic, insurer = world.link("clinic").end("lab"), world.link("insurer").end("lab")
    put(insurer, frame("insurer", "lab", b"from insurer"))
    put(clinic, frame("clinic", "lab", b"from clinic"))
    assert content(to_clinic.receive(5)) == b"from clinic"
    assert content(to_insurer.receive(5)) == b"from insurer"


def test_control_frames_go_to_the_callback_in_a_thread_of_the_link_and_never_to_receive(world: World) -> None:
    lab, clinic = world.pair()
    came: list[tuple[bytes, str]] = []
    clinic.on_control = lambda whole: came.append((content(whole), threading.current_thread().name))
    put(lab, frame("lab", "clinic", b"ack", Kind.CONTROL), None)
    put(lab, frame("lab", "clinic", b"hello", Kind.HELLO), None)
    assert content(clinic.receive(5)) == b"hello"
    assert came == [(b"ack", "link-fast")]


# --- what is dropped --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"junk",
        bytes(200),
        frame("insurer", "lab"),  # no end for it
        frame("clinic", "insurer"),  # for somebody else
        frame("clinic", "lab") + bytes(MAX_FRAME_NBYTES),
    ],
)
def test_what_is_no_frame_or_nobodys_is_dropped_and_counted(world: World, whole: bytes) -> None:
    link = world.link("lab")
    end = link.end("clinic")
    link.frame_came(link.lanes[0], whole)
    assert link.dropped == 1
    with pytest.raises(CarrierTimeoutError):
        end.receive(0)


@given(st.binary(max_size=300))
def test_no_bytes_from_the_exchange_make_the_link_fail(world_less_link: link_module.Link, whole: bytes) -> None:
    world_less_link.frame_came(world_less_link.lanes[0], whole)


@pytest.fixture(scope="module")
def world_less_link() -> Iterator[link_module.Link]:
    access = link_module.Access("127.0.0.1:9", b"", b"", b"")
    link = link_module.Link(access, me="lab", room="0" * 32, epoch=1)
    link.end("clinic")
    yield link
    link.close()


def test_two_threads_that_receive_both_keep_their_deadlines(world: World) -> None:
    link = world.link("lab")
    end, (_, bulk) = link.end("clinic"), link.lanes
    looked, done = [0, 0], threading.Event()

    def look(which: int) -> None:
        while not done.is_set():
            with contextlib.suppress(CarrierTimeoutError):
                end.receive(0.0002)
            looked[which] += 1

    threads = [threading.Thread(target=look, args=(which,), daemon=True) for which in range(len(looked))]
    for thread in threads:
        thread.start()
    for _ in range(150):
        end.take(bulk, frame("clinic", "lab"))
        one, other = looked
        wait_until(lambda: looked[0] > one + 1 and looked[1] > other + 1)  # noqa: B023
    done.set()
    for thread in threads:
        thread.join(10)


def test_a_peer_that_sends_more_than_the_inbox_holds_loses_frames_and_blocks_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "INBOX_NBYTES", 1000)
    link = world.link("lab")
    end, other = link.end("clinic"), link.end("insurer")
    for number in range(10):
        link.frame_came(link.lanes[number % 2], frame("clinic", "lab", b"%d" % number * 300))
    link.frame_came(link.lanes[0], frame("insurer", "lab", b"heard"))
    kept = 10 - link.dropped
    assert 1 <= kept <= 3
    assert [content(end.receive(0))[:1] for _ in range(kept)] == [b"%d" % number for number in range(kept)]
    assert content(other.receive(0)) == b"heard"
    link.frame_came(link.lanes[0], frame("clinic", "lab", b"again"))  # there is room again
    assert content(end.receive(0)) == b"again"


# --- deadlines and a full queue ---------------------------------------------------------------------------------------


def test_silence_of_a_peer_is_a_deadline_of_the_peer(world: World) -> None:
    lab, _ = world.pair()
    with pytest.raises(CarrierTimeoutError) as caught:
        lab.receive(0.05)
    assert caught.value.code == lab.trouble == "peer.deadline"


def test_a_send_blocks_while_the_exchange_takes_nothing_and_loses_and_repeats_nothing(world: World) -> None:
    with CutProxy(f"127.0.0.1:{world.port}", buffer_nbytes=1024 * 1024) as proxy:
        lab, clinic = world.pair(address=proxy.address)
        proxy.pause("up")
        blocked: list[int] = []
        sent = 0
        while not blocked:
            assert sent < 100
            whole = frame("lab", "clinic", b"%3d" % sent).ljust(MAX_FRAME_NBYTES, b"\0")
            try:
                lab.send(Topic.TRAIN, [whole], 0.3, lambda sent=sent: blocked.append(sent))  # type: ignore[misc]
                sent += 1
                time.sleep(0.02)  # for gRPC to take it
            except CarrierTimeoutError as failure:
                assert failure.code == "peer.deadline"
        assert blocked == [sent]
        proxy.resume()
        put(lab, frame("lab", "clinic", b"end"))
        came = [content(clinic.receive(20))[:3] for _ in range(sent + 1)]
        assert came == [b"%3d" % number for number in range(sent)] + [b"end"]


def test_an_outbox_takes_one_frame_of_any_size_and_then_what_fits() -> None:
    outbox = Outbox()
    outbox.put(bytes(OUTBOX_NBYTES + 1), 0, unexpected, never)
    blocked: list[None] = []
    with pytest.raises(CarrierTimeoutError):
        outbox.put(b"x", 0.01, lambda: blocked.append(None), never)
    assert len(blocked) == 1
    frames = outbox.frames()
    assert len(next(frames)) == OUTBOX_NBYTES + 1
    for _ in range(4):
        outbox.put(bytes(OUTBOX_NBYTES // 4), 0, unexpected, never)
    with pytest.raises(CarrierTimeoutError):
        outbox.put(b"x", 0, lambda: None, never)


def test_a_blocked_put_goes_on_when_there_is_room() -> None:
    outbox = Outbox()
    outbox.put(bytes(OUTBOX_NBYTES), 0, unexpected, never)
    frames = outbox.frames()
    timer = threading.Timer(0.05, lambda: next(frames))
    timer.start()
    outbox.put(b"x", 10, lambda: None, never)
    assert next(frames) == b"x"
    timer.join()


def test_an_outbox_that_ended_gives_what_is_in_and_drops_what_comes() -> None:
    outbox = Outbox()
    outbox.put(b"a", 0, unexpected, never)
    outbox.put(b"b", 0, unexpected, never)
    outbox.end()
    outbox.put(b"c", 0, unexpected, never)
    assert list(outbox.frames()) == [b"a", b"b"]


def test_the_end_of_a_stream_lets_a_blocked_put_go() -> None:
    outbox = Outbox()
    outbox.put(bytes(OUTBOX_NBYTES), 0, unexpected, never)
    timer = threading.Timer(0.05, outbox.end)
    timer.start()
    outbox.put(b"x", 10, lambda: None, never)
    assert list(outbox.frames()) == [bytes(OUTBOX_NBYTES)]
    timer.join()


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_sends_what_waits_and_is_quick(world: World) -> None:
    lab, clinic = world.link("lab"), world.link("clinic").end("lab")
    end = lab.end("clinic")
    for number in range(20):
        put(end, frame("lab", "clinic", b"%2d" % number).ljust(100_000, b"\0"))
    began = time.monotonic()
    lab.close()
    assert time.monotonic() - began < 5
    assert [content(clinic.receive(5))[:2] for _ in range(20)] == [b"%2d" % number for number in range(20)]
    lab.close()


def test_closing_is_quick_with_an_exchange_that_takes_nothing(world: World) -> None:
    with CutProxy(f"127.0.0.1:{world.port}", buffer_nbytes=1024 * 1024) as proxy:
        link = world.link("lab", address=proxy.address)
        end = link.end("clinic")
        proxy.pause()
        for _ in range(4):
            put(end, frame("lab", "clinic").ljust(MAX_FRAME_NBYTES, b"\0"))
        began = time.monotonic()
        link.close()
        assert time.monotonic() - began < 5


def test_closing_wakes_a_receive_and_leaves_no_thread(world: World) -> None:
    before = set(threading.enumerate())
    link = world.link("lab")
    end = link.end("clinic")
    codes: list[str] = []

    def receive() -> None:
        with pytest.raises(CarrierClosedError) as caught:
            end.receive(60)
        codes.append(caught.value.code)

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.05)
    link.close()
    thread.join(5)
    assert codes == ["peer.gone"]
    for call in (lambda: end.receive(1), lambda: put(end, frame("lab", "clinic"))):
        with pytest.raises(CarrierClosedError):
            call()
    wait_until(lambda: set(threading.enumerate()) <= before, 5)


def test_closing_an_end_wakes_its_blocked_send_and_leaves_the_link_to_others(world: World) -> None:
    with CutProxy(f"127.0.0.1:{world.port}", buffer_nbytes=1024 * 1024) as proxy:
        link = world.link("lab", address=proxy.address)
        end, other = link.end("clinic"), link.end("insurer")
        insurer = world.link("insurer").end("lab")
        proxy.pause("up")
        with pytest.raises(CarrierClosedError):
            while True:  # until the way is full; somebody then closes the end
                end.send(
                    Topic.TRAIN,
                    [frame("lab", "clinic").ljust(MAX_FRAME_NBYTES, b"\0")],
                    20,
                    lambda: threading.Timer(0.05, end.close).start(),
                )
        with pytest.raises(CarrierClosedError):
            end.receive(1)
        proxy.resume()
        put(other, frame("lab", "insurer", b"still here"))
        assert content(insurer.receive(10)) == b"still here"


def test_a_second_end_for_a_peer_closes_the_first(world: World) -> None:
    link = world.link("lab")
    first, second = link.end("clinic"), link.end("clinic")
    with pytest.raises(CarrierClosedError):
        first.receive(1)
    first.close()  # which takes nothing from the second
    put(world.link("clinic").end("lab"), frame("clinic", "lab", b"for the second"))
    assert content(second.receive(5)) == b"for the second"


def test_an_end_of_a_closed_link_is_closed(world: World) -> None:
    link = world.link("lab")
    link.close()
    with pytest.raises(CarrierClosedError):
        link.end("clinic").receive(1)


def test_what_arrived_before_the_end_is_still_received(world: World) -> None:
    link = world.link("lab")
    end = link.end("clinic")
    link.frame_came(link.lanes[0], frame("clinic", "lab", b"last"))
    link.close()
    assert content(end.receive(1)) == b"last"
    with pytest.raises(CarrierClosedError):
        end.receive(1)


def test_a_link_prints_nothing_even_where_nobody_answers_or_somebody_else_does(world: World) -> None:
    program = """
import time
from isthmus.parties.certificate import make_certificate
from isthmus.parties.network.link import Access, Link
import sys
own = make_certificate()
for address in sys.argv[1:]:
    link = Link(Access(address, own.certificate, own.certificate, own.key), me="lab", room="0" * 32, epoch=1)
    time.sleep(0.3)
    link.close()
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    command = [sys.executable, "-W", "error", "-c", program, "127.0.0.1:9", f"127.0.0.1:{world.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_link_does_not_show_its_key() -> None:
    assert "PLANTED" not in repr(link_module.Access("exchange:1", b"", b"", b"PLANTED"))


def test_what_a_callback_of_the_owner_raises_ends_the_link_instead_of_leaving_it_deaf(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unforeseen: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: unforeseen.append(raised.exc_type))
    lab, clinic = world.pair()

    def fail(whole: bytes) -> None:
        raise RuntimeError

    clinic.on_control = fail
    put(lab, frame("lab", "clinic", b"", Kind.CONTROL), None)
    with pytest.raises(CarrierClosedError):
        clinic.receive(10)
    wait_until(lambda: unforeseen == [RuntimeError])
