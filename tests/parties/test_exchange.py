from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from isthmus.parties.certificate import make_certificate
from isthmus.parties.errors import InputError
from isthmus.parties.network import connection
from isthmus.parties.network.exchange import Admitted, Exchange
from isthmus.parties.network.frame import HEADER_NBYTES, MAX_FRAME_NBYTES
from isthmus.parties.network.metrics import MetricsServer

from .relay_world import OTHER_ROOM, RelayWorld, eventually, frame, relay_world

MIB = 1024 * 1024
INVALID = grpc.StatusCode.INVALID_ARGUMENT
DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
def world() -> Iterator[RelayWorld]:
    with relay_world() as made:
        yield made


# --- what passes ------------------------------------------------------------------------------------------------------


def test_frames_pass_both_ways_whole_and_in_order(world: RelayWorld) -> None:
    lab, clinic = world.join("lab"), world.join("clinic")
    payloads = [bytes([number % 256]) * size for number, size in enumerate([0, 1, 1000, 100_000, *range(300)])]
    for payload in payloads:
        lab.send(frame("lab", "clinic", payload))
        clinic.send(frame("clinic", "lab", payload[::-1]))
    assert [clinic.receive() for _ in payloads] == payloads
    assert [lab.receive() for _ in payloads] == payloads
    assert world.exchange.figures.lanes["fast"].frames == 2 * len(payloads)
    eventually(lambda: world.waiting_nbytes() == 0)


def test_a_frame_of_the_greatest_length_passes(world: RelayWorld) -> None:
    lab, clinic = world.join("lab"), world.join("clinic")
    whole = frame("lab", "clinic", b"x" * (MAX_FRAME_NBYTES - HEADER_NBYTES))
    lab.send(whole)
    assert clinic.receive() == whole[HEADER_NBYTES:]


def test_rooms_and_lanes_do_not_mix(world: RelayWorld) -> None:
    senders = {place: world.join("lab", room=place[0], lane=place[1]) for place in _places()}
    receivers = {place: world.join("clinic", room=place[0], lane=place[1]) for place in _places()}
    for place, sender in senders.items():
        sender.send(frame("lab", "clinic", repr(place).encode()))
    for place, receiver in receivers.items():
        assert receiver.receive() == repr(place).encode()
    assert all(receiver.silent() for receiver in receivers.values())


def _places() -> list[tuple[str, str]]:
    return [(room, lane) for room in ("0" * 32, OTHER_ROOM) for lane in ("fast", "bulk")]


def test_what_is_for_a_member_that_is_not_here_is_dropped_and_counted(world: RelayWorld) -> None:
    lab = world.join("lab")
    world.join("clinic", room=OTHER_ROOM)  # and in another room is not here
    for _ in range(3):
        lab.send(frame("lab", "clinic", b"early"))
    eventually(lambda: world.exchange.figures.dropped["absent"] == 3)
    clinic = world.join("clinic")
    lab.send(frame("lab", "clinic", b"late"))
    assert clinic.receive() == b"late"


def test_a_frame_to_a_revoked_member_is_dropped_and_its_sender_stays(world: RelayWorld) -> None:
    lab, clinic = world.join("lab"), world.join("clinic")
    world.revoked = frozenset({"insurer"})
    world.members.pop("insurer")
    lab.send(frame("lab", "insurer"))
    lab.send(frame("lab", "clinic", b"on"))
    assert clinic.receive() == b"on"


# --- rules that a frame can break -------------------------------------------------------------------------------------


def test_a_forged_source_ends_the_stream_and_reaches_nobody(world: RelayWorld) -> None:
    lab, clinic, insurer = world.join("lab"), world.join("clinic"), world.join("insurer")
    lab.send(frame("insurer", "clinic", b"forged"))
    assert lab.status() == (INVALID, "source")
    insurer.send(frame("insurer", "clinic", b"its own"))
    assert clinic.receive() == b"its own"
    assert clinic.silent()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"short",
        frame("lab", "clinic")[:-1],
        frame("lab", "stranger"),
        frame("lab", "lab"),
        frame("lab", "clinic", bytes(MAX_FRAME_NBYTES)),
    ],
    ids=["empty", "short", "a byte short", "to a stranger", "to oneself", "too long"],
)
def test_a_frame_that_breaks_a_rule_ends_its_stream_alone(world: RelayWorld, broken: bytes) -> None:
    lab, clinic, bulk = world.join("lab"), world.join("clinic", lane="bulk"), world.join("lab", lane="bulk")
    lab.send(broken)
    assert lab.status() == (INVALID, "frame")
    bulk.send(frame("lab", "clinic", b"on"))
    assert clinic.receive() == b"on"


def test_a_frame_that_grpc_itself_refuses_ends_its_stream_alone(world: RelayWorld) -> None:
    large = world.join("lab", max_send_message_length=8 * MIB)
    clinic, bulk = world.join("clinic", lane="bulk"), world.join("lab", lane="bulk")
    large.send(frame("lab", "clinic", bytes(3 * MIB)))
    assert large.status()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    bulk.send(frame("lab", "clinic", b"on"))
    assert clinic.receive() == b"on"
    eventually(lambda: world.connections() == 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "2"},
        {"version": ""},
        {"room": "0" * 31},
        {"room": "0" * 31 + "G"},
        {"room": "0" * 31 + "A"},
        {"lane": "slow"},
        {"epoch": "-1"},
        {"epoch": "1.5"},
        {"epoch": ""},
        {"epoch": "9" * 19},
    ],
    ids=str,
)
def test_metadata_that_is_not_as_agreed_is_refused(world: RelayWorld, changed: dict[str, str]) -> None:
    assert world.stream("lab", changed=changed).status() == (INVALID, "metadata")
    assert world.connections() == 0


# --- who is connected -------------------------------------------------------------------------------------------------


def test_an_older_epoch_is_fenced_and_the_newer_one_goes_on(world: RelayWorld) -> None:
    clinic = world.join("clinic")
    newer = world.join("lab", epoch=2)
    assert world.stream("lab", epoch=1).status() == (grpc.StatusCode.FAILED_PRECONDITION, "fenced")
    newer.send(frame("lab", "clinic", b"newer"))
    assert clinic.receive() == b"newer"


@pytest.mark.parametrize("epoch", [7, 8])
def test_an_equal_or_newer_epoch_replaces_the_stream_before(world: RelayWorld, epoch: int) -> None:
    clinic, older = world.join("clinic"), world.join("lab", epoch=7)
    newer = world.join("lab", epoch=epoch)
    assert older.status() == (grpc.StatusCode.ABORTED, "replaced")
    clinic.send(frame("clinic", "lab", b"for the newer"))
    assert newer.receive() == b"for the newer"
    assert older.silent()
    assert world.connections() == 2


def test_many_that_replace_one_another_at_once_leave_the_last_and_no_trace(
    world: RelayWorld, caplog: pytest.LogCaptureFixture
) -> None:
    clinic = world.join("clinic")
    streams = [world.stream("lab", epoch=epoch) for epoch in range(30)]
    for stream in streams[:-1]:
        code, word = stream.status()
        assert (code, word) in {(grpc.StatusCode.ABORTED, "replaced"), (grpc.StatusCode.FAILED_PRECONDITION, "fenced")}
    streams[-1].accepted().send(frame("lab", "clinic", b"the last"))
    assert clinic.receive() == b"the last"
    eventually(lambda: world.exchange._handled["lab"] == 1)
    streams[-1].leave()
    eventually(lambda: world.exchange._handled["lab"] == 0)
    assert world.connections() == 1
    assert "failed" not in caplog.text


def test_epochs_of_another_room_or_lane_do_not_fence(world: RelayWorld) -> None:
    first = world.join("lab", epoch=9)
    world.join("lab", epoch=1, lane="bulk")
    world.join("lab", epoch=1, room=OTHER_ROOM)
    assert first.call.is_active()


def test_a_member_has_so_many_streams_and_no_more() -> None:
    with relay_world(connections_per_member=2) as world:
        first, _ = world.join("lab", room="1" * 32), world.join("lab", room="2" * 32)
        refused = world.stream("lab", room="3" * 32)
        assert refused.status() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "connections")
        world.join("clinic", room="3" * 32)  # others have their own
        world.join("lab", room="2" * 32)  # in the place of one that was there
        first.leave()
        eventually(lambda: world.connections() == 2)
        world.join("lab", room="3" * 32)


def test_streams_that_were_cut_and_never_read_their_end_count_until_they_are_gone() -> None:
    with relay_world(connections_per_member=2, outbox_nbytes=MIB) as world:
        flood = world.join("clinic")
        stuck = []
        for _ in range(4):
            stuck.append(world.join("lab", reads=False, lookahead_bytes=65536, bdp_probe=0))
            flood.send(frame("clinic", "lab", bytes(MIB - 200)))
            eventually(lambda: world.waiting_nbytes() > MIB - 200)
        refused = world.stream("lab")
        assert refused.status() == (grpc.StatusCode.RESOURCE_EXHAUSTED, "connections")
        for stream in stuck:
            stream.leave()
        eventually(lambda: world.exchange._handled["lab"] == 0)
        world.join("lab")


@pytest.mark.parametrize(
    ("change", "word"),
    [("revoked", "revoked"), ("expired", "expired"), ("gone", "unknown"), ("renewed", "unknown")],
)
def test_whoever_may_no_longer_be_here_is_cut_on_every_stream(world: RelayWorld, change: str, word: str) -> None:
    streams = [world.join("lab"), world.join("lab", lane="bulk"), world.join("lab", room=OTHER_ROOM)]
    clinic, insurer = world.join("clinic"), world.join("insurer")
    if change == "gone":
        del world.members["lab"]
    elif change == "renewed":
        world.members["lab"] = make_certificate().certificate
    else:
        setattr(world, change, frozenset({"lab"}))
    assert [stream.status() for stream in streams] == [(DENIED, word)] * 3
    clinic.send(frame("clinic", "insurer", b"on"))
    assert insurer.receive() == b"on"


def test_a_roster_that_cannot_be_read_leaves_the_one_before(
    world: RelayWorld, caplog: pytest.LogCaptureFixture
) -> None:
    lab, clinic = world.join("lab"), world.join("clinic")
    world.broken = True
    eventually(lambda: "the one before stays" in caplog.text)
    lab.send(frame("lab", "clinic", b"on"))
    assert clinic.receive() == b"on"
    world.broken, world.revoked = False, frozenset({"lab"})
    assert lab.status() == (DENIED, "revoked")


# --- who does not read, and who goes ----------------------------------------------------------------------------------


def test_a_receiver_that_never_reads_holds_its_sender_back_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD_BACK_S", 600.0)  # however slow this machine is
    with relay_world(outbox_nbytes=4 * MIB) as world:
        lab = world.join("lab", lane="bulk")
        sleeper = world.join("clinic", lane="bulk", reads=False, lookahead_bytes=65536, bdp_probe=0)
        payloads = [bytes([number]) * (MIB - 200) for number in range(40)]
        for payload in payloads:
            lab.send(frame("lab", "clinic", payload))
        eventually(lambda: world.waiting_nbytes() > 3 * MIB)
        peer, insurer = (
            world.join("lab", lane="bulk", room=OTHER_ROOM),
            world.join("insurer", lane="bulk", room=OTHER_ROOM),
        )
        for _ in range(50):
            peer.send(frame("lab", "insurer", b"x" * 10_000))
            assert insurer.receive() == b"x" * 10_000
        assert world.waiting_nbytes() <= 5 * MIB
        assert lab.unsent() > 0
        sleeper.read_on()
        assert [sleeper.receive() for _ in payloads] == payloads
        eventually(lambda: world.waiting_nbytes() == 0)  # the last is counted until its stream has taken it


@pytest.mark.parametrize("how", ["leaves", "is replaced", "is revoked"])
def test_a_sender_that_was_held_back_goes_on_when_its_receiver(how: str) -> None:
    with relay_world(outbox_nbytes=MIB) as world:
        lab, insurer = world.join("lab"), world.join("insurer")
        sleeper = world.join("clinic", reads=False, lookahead_bytes=65536, bdp_probe=0)
        for _ in range(20):
            lab.send(frame("lab", "clinic", bytes(MIB - 200)))
        eventually(lambda: world.waiting_nbytes() > MIB)
        lab.send(frame("lab", "insurer", b"at last"))
        if how == "leaves":
            sleeper.leave()
        elif how == "is replaced":
            world.join("clinic")
        else:
            world.revoked = frozenset({"clinic"})
        assert insurer.receive() == b"at last"


def test_a_sender_that_was_held_back_may_go_and_leaves_nothing() -> None:
    with relay_world(outbox_nbytes=MIB) as world:
        lab = world.join("lab")
        sleeper = world.join("clinic", reads=False, lookahead_bytes=65536, bdp_probe=0)
        for _ in range(20):
            lab.send(frame("lab", "clinic", bytes(MIB - 200)))
        eventually(lambda: world.waiting_nbytes() > MIB)
        lab.leave()
        eventually(lambda: world.connections() == 1)
        sleeper.leave()
        eventually(lambda: world.connections() == 0)
        assert world.waiting_nbytes() == 0


def test_a_member_that_goes_in_the_midst_of_a_frame_takes_nobody_with_it(world: RelayWorld) -> None:
    clinic, insurer = world.join("clinic"), world.join("insurer")
    for _ in range(5):
        lab = world.join("lab")
        for _ in range(10):
            lab.send(frame("lab", "clinic", bytes(MIB - 200)))
        lab.channel.close()
    insurer.send(frame("insurer", "clinic", b"on"))
    while (came := clinic.receive()) != b"on":
        assert came == bytes(MIB - 200)  # whole frames, or none
    eventually(lambda: world.connections() == 2)


def test_a_member_may_end_its_stream_in_good_order(world: RelayWorld) -> None:
    lab = world.join("lab")
    lab.finish()
    assert lab.status()[0] is grpc.StatusCode.OK
    assert world.connections() == 0


def test_frames_that_were_passed_on_stay_nowhere(tmp_path: Path) -> None:
    """900 frames of 64 KiB, 59 MB, through an exchange in a process of its own."""
    world = RelayWorld.__new__(RelayWorld)
    certificates = {name: make_certificate() for name in ("own", "lab", "clinic")}
    for name, own in certificates.items():
        (tmp_path / f"{name}.crt").write_bytes(own.certificate)
        (tmp_path / f"{name}.key").write_bytes(own.key)
    world.own, world.certificates, world._streams = certificates["own"], certificates, []
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        world.port = int(process.stdout.readline())
        lab, clinic = world.join("lab"), world.join("clinic")
        sizes = []
        for _ in range(3):
            for _ in range(300):
                lab.send(frame("lab", "clinic", bytes(65536)))
            for _ in range(300):
                clinic.receive()
            status = Path(f"/proc/{process.pid}/status")
            if not status.exists():  # only Linux tells
                return
            sizes.append(int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024)
        assert sizes[2] - sizes[0] < 25  # MiB
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            f"{name}.{kind}" for name in certificates for kind in ("crt", "key")
        )
    finally:
        for stream in world._streams:
            stream.finish()
            stream.call.cancel()
            stream.channel.close()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


_SERVE = """
import asyncio, sys
from pathlib import Path
from isthmus.parties.network.exchange import Admitted, Exchange
folder = Path(sys.argv[1])
async def serve():
    members = {name: (folder / f"{name}.crt").read_bytes() for name in ("lab", "clinic")}
    own = {"certificate": (folder / "own.crt").read_bytes(), "key": (folder / "own.key").read_bytes()}
    exchange = Exchange(listen="127.0.0.1:0", admitted=lambda: Admitted(members), **own)
    print(await exchange.start(), flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""


# --- starting, stopping, telling --------------------------------------------------------------------------------------


def test_stopping_tells_every_stream_and_the_port_can_be_used_again(world: RelayWorld) -> None:
    lab = world.join("lab")
    world.run(lambda: world.exchange.stop(1.0))
    assert lab.status() == (grpc.StatusCode.UNAVAILABLE, "stopping")
    world.start()
    again, clinic = world.join("lab"), world.join("clinic")
    again.send(frame("lab", "clinic", b"on"))
    assert clinic.receive() == b"on"


def test_a_port_that_another_exchange_has_is_taken(world: RelayWorld) -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(_start(world.address))
    assert (caught.value.code, caught.value.facts) == ("exchange.port_taken", {"address": world.address})


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:port", "127.0.0.1:99999", "192.0.2.1:0", ""])
def test_an_address_that_this_machine_does_not_have_is_named(listen: str) -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(_start(listen))
    assert (caught.value.code, caught.value.facts["field"]) == ("exchange.invalid", "listen")


async def _start(listen: str) -> None:
    own = make_certificate()
    exchange = Exchange(listen=listen, certificate=own.certificate, key=own.key, admitted=lambda: Admitted({}))
    await exchange.start()


def test_serving_until_told_stops_then(world: RelayWorld) -> None:
    lab, told = world.join("lab"), threading.Event()

    async def serve() -> None:
        await world.exchange.serve_until(asyncio.to_thread(told.wait))

    serving = asyncio.run_coroutine_threadsafe(serve(), world.loop)
    assert lab.call.is_active()
    told.set()
    serving.result(20)
    assert lab.status() == (grpc.StatusCode.UNAVAILABLE, "stopping")
    world.start()


def test_metrics_count_what_happened_and_name_nobody(world: RelayWorld) -> None:
    lab, clinic = world.join("lab"), world.join("clinic")
    for _ in range(5):
        lab.send(frame("lab", "clinic", bytes(904)))
        clinic.receive()
    lab.send(frame("lab", "insurer"))
    assert world.stream("lab", epoch=0).status()[1] == "fenced"
    eventually(lambda: world.exchange.figures.dropped["absent"] == 1)
    server = MetricsServer("127.0.0.1:0", world.exchange.figures.registry, world.exchange.healthy)
    try:
        told = _get(server, "/metrics")
        assert 'isthmus_exchange_frames_total{lane="fast"} 5.0' in told
        assert 'isthmus_exchange_frame_bytes_total{lane="fast"} 5000.0' in told
        assert 'isthmus_exchange_connections{lane="fast"} 2.0' in told
        assert 'isthmus_exchange_connections{lane="bulk"} 0.0' in told
        assert 'isthmus_exchange_outbox_bytes{lane="fast"} 0.0' in told
        assert 'isthmus_exchange_dropped_total{reason="absent"} 1.0' in told
        assert 'isthmus_exchange_refused_total{reason="fenced"} 1.0' in told
        assert not any(name in told for name in ("clinic", "insurer", "0123456789abcdef"))
        assert _get(server, "/healthz") == "ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(server, "/")
    finally:
        server.close()


def test_an_exchange_whose_loop_hangs_is_not_well(world: RelayWorld) -> None:
    server = MetricsServer("127.0.0.1:0", world.exchange.figures.registry, lambda: False)
    try:
        with pytest.raises(urllib.error.HTTPError, match="503"):
            _get(server, "/healthz")
        assert world.exchange.healthy()
        world.exchange._checked_at -= 10
        assert not world.exchange.healthy()
    finally:
        server.close()


def _get(server: MetricsServer, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as failure:
        failure.close()
        raise


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "example.org:1", "9464", ":9464"])
def test_metrics_are_not_shown_to_other_machines(address: str, world: RelayWorld) -> None:
    with pytest.raises(InputError) as caught:
        MetricsServer(address, world.exchange.figures.registry, world.exchange.healthy)
    assert (caught.value.code, caught.value.facts["field"]) == ("exchange.invalid", "metrics")
    assert address in str(caught.value)


def test_the_port_of_metrics_may_be_taken_too(world: RelayWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError) as caught:
            MetricsServer(address, world.exchange.figures.registry, world.exchange.healthy)
    assert (caught.value.code, caught.value.facts) == ("exchange.port_taken", {"address": address})
