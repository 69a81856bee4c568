"""A link whose way fails, or whose exchange refuses it; and the way through an HTTP proxy."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from isthmus.parties.certificate import make_certificate
from isthmus.parties.network import lane as lane_module
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.frame import MAX_FRAME_NBYTES
from isthmus.parties.network.link import Link, LinkEnd
from isthmus.parties.network.message import Topic

from .cut_proxy import CutProxy
from .exchange_world import World, content, frame, put, wait_until

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@pytest.fixture
def world(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for variable in PROXY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    members = dict(shared_world.certificates)
    yield shared_world
    shared_world.close_links()
    if shared_world.exchange is None:
        shared_world.start()
    shared_world.admit(members)


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead way is noticed within 2 s instead of 19."""
    quick = (("grpc.keepalive_time_ms", 1000), ("grpc.http2.ping_timeout_ms", 1000))
    monkeypatch.setattr(lane_module, "_OPTIONS", quick)


def closed(end: LinkEnd) -> str:
    """The code with which an end is over for good."""
    with pytest.raises(CarrierClosedError) as caught:
        end.receive(20)
    with pytest.raises(CarrierClosedError) as again:
        put(end, frame("lab", "clinic"))
    assert again.value.code == caught.value.code
    return caught.value.code


def late(end: LinkEnd) -> str:
    """The code of a deadline that passes now."""
    with pytest.raises(CarrierTimeoutError) as caught:
        end.receive(0)
    return caught.value.code


# --- an exchange that goes and comes ----------------------------------------------------------------------------------


def test_an_exchange_that_starts_late_is_found(world: World) -> None:
    world.stop()
    told: list[bool] = []
    link = world.link("lab", wait=False, on_state=told.append)
    end = link.end("clinic")
    wait_until(lambda: told == [False])
    assert late(end) == "exchange.down"
    put(end, frame("lab", "clinic", b"lost"))
    world.start()
    wait_until(lambda: told == [False, True])
    clinic = world.link("clinic").end("lab")
    put(end, frame("lab", "clinic", b"arrives"))
    assert content(clinic.receive(5)) == b"arrives"


def test_a_restart_of_the_exchange_loses_frames_and_repeats_none_and_is_told(world: World) -> None:
    told: list[bool] = []
    lab, clinic = world.link("lab", on_state=told.append).end("clinic"), world.link("clinic").end("lab")
    reconnected: list[str] = []
    lab.on_reconnect = lambda: reconnected.append(threading.current_thread().name)
    put(lab, frame("lab", "clinic", b"before"))
    assert content(clinic.receive(5)) == b"before"
    wait_until(lambda: told == [True])
    reconnected.clear()  # the first time counts as well, and may come after the end was made

    world.stop()
    wait_until(lambda: lab.trouble == clinic.trouble == "exchange.down")
    put(lab, frame("lab", "clinic", b"while it is down"))
    assert late(clinic) == "exchange.down"
    world.start()
    wait_until(lambda: lab.trouble == clinic.trouble == "peer.deadline")
    put(lab, frame("lab", "clinic", b"after"))
    assert content(clinic.receive(5)) == b"after"
    assert late(clinic) == "peer.deadline"
    wait_until(lambda: told == [True, False, True] and len(reconnected) == 2)  # once a lane
    assert set(reconnected) == {"link-news"}


def test_the_owner_may_send_from_on_reconnect(world: World) -> None:
    world.stop()
    lab = world.link("lab", wait=False).end("clinic")
    clinic = world.link("clinic", wait=False).end("lab")
    wait_until(lambda: lab.trouble == "exchange.down")
    both = threading.Event()
    clinic.on_reconnect = lambda: both.set() if clinic.trouble == "peer.deadline" else None
    world.start()
    assert both.wait(20)
    lab.on_reconnect = lambda: put(lab, frame("lab", "clinic", b"again"))
    world.stop()
    wait_until(lambda: lab.trouble == clinic.trouble == "exchange.down")
    world.start()

    def arrives() -> bool:
        with contextlib.suppress(CarrierTimeoutError):
            return content(clinic.receive(0.1)) == b"again"
        lab.on_reconnect()  # the clinic may have come back later
        return False

    wait_until(arrives)


def test_a_way_that_is_cut_is_made_anew_and_no_frame_comes_twice(world: World) -> None:
    with CutProxy(f"127.0.0.1:{world.port}") as proxy:
        lab, clinic = world.pair(address=proxy.address)
        came: list[int] = []
        for tens in range(0, 80, 20):
            for number in range(tens, tens + 20):
                put(lab, frame("lab", "clinic", b"%d" % number).ljust(20_000, b" "))
            proxy.cut()
            wait_until(lambda: lab.trouble == "exchange.down")
            wait_until(lambda: lab.trouble == "peer.deadline")
        put(lab, frame("lab", "clinic", b"80"))
        while 80 not in came:
            came.append(int(content(clinic.receive(10))))
        assert came == sorted(set(came))


# --- partitions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_a_short_partition_loses_nothing(world: World, direction: str | None) -> None:
    with CutProxy(f"127.0.0.1:{world.port}") as proxy:
        lab, clinic = world.pair(address=proxy.address)
        proxy.pause(direction)  # type: ignore[arg-type]
        for number in range(10):
            put(lab, frame("lab", "clinic", b"%d" % number))
            put(clinic, frame("clinic", "lab", b"%d" % number))
        threading.Timer(0.5, proxy.resume).start()
        for end in (lab, clinic):
            assert [int(content(end.receive(10))) for _ in range(10)] == list(range(10))
        assert lab.trouble == "peer.deadline"


@pytest.mark.usefixtures("quick_pings")
@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_a_way_that_is_dead_without_a_word_is_noticed_and_made_anew(world: World, direction: str | None) -> None:
    with CutProxy(f"127.0.0.1:{world.port}") as proxy:
        lab, clinic = world.pair(address=proxy.address)
        proxy.pause(direction)  # type: ignore[arg-type]
        wait_until(lambda: lab.trouble == "exchange.down", 10)
        proxy.resume()
        wait_until(lambda: lab.trouble == "peer.deadline")
        put(lab, frame("lab", "clinic", b"after"))
        assert content(clinic.receive(10)) == b"after"


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_newer_process_takes_over_and_the_older_ends(world: World) -> None:
    older = world.link("lab", epoch=1).end("clinic")
    newer = world.link("lab", epoch=2).end("clinic")
    assert closed(older) == "exchange.fenced"
    put(world.link("clinic").end("lab"), frame("clinic", "lab", b"for the newer"))
    assert content(newer.receive(5)) == b"for the newer"


def test_an_older_process_is_not_let_in_beside_a_newer_one(world: World) -> None:
    newer = world.link("lab", epoch=2).end("clinic")
    assert closed(world.link("lab", epoch=1, wait=False).end("clinic")) == "exchange.fenced"
    assert newer.trouble == "peer.deadline"


def test_an_earlier_try_of_ones_own_that_comes_late_does_not_end_the_link(world: World) -> None:
    lab, clinic = world.pair()
    changed = threading.Event()
    lab.on_reconnect = changed.set
    with world.stream("lab", "bulk", epoch=1):
        assert changed.wait(20)
    wait_until(lambda: lab.trouble == "peer.deadline")
    put(lab, frame("lab", "clinic", b"goes on"))
    assert content(clinic.receive(5)) == b"goes on"


def test_two_processes_of_one_epoch_do_not_take_turns_for_ever(world: World) -> None:
    links = [world.link("lab", epoch=3, wait=False) for _ in range(2)]
    wait_until(lambda: sorted((link.ended or "") for link in links) == ["", "exchange.fenced"])
    (left,) = (link for link in links if not link.ended)
    wait_until(lambda: left.trouble is None)


def revoke(world: World) -> None:
    world.admit(world.certificates, frozenset({"lab"}))


def forget(world: World) -> None:
    world.admit({name: own for name, own in world.certificates.items() if name != "lab"})


@pytest.mark.parametrize(("change", "code"), [(revoke, "exchange.revoked"), (forget, "exchange.refused")])
def test_a_member_that_is_struck_off_is_cut_for_good(world: World, change: Callable[[World], None], code: str) -> None:
    link = world.link("lab")
    change(world)
    assert closed(link.end("clinic")) == link.trouble == code


def test_a_revoked_member_is_not_let_in(world: World) -> None:
    world.admit(world.certificates, frozenset({"lab"}))
    assert closed(world.link("lab", wait=False).end("clinic")) == "exchange.revoked"


def test_a_certificate_that_expires_ends_the_link(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2.5) - timedelta(days=1)
    world.admit({**world.certificates, "lab": make_certificate(1, now=soon)})
    end = world.link("lab", wait=False).end("clinic")
    wait_until(lambda: end.trouble == "exchange.expired")  # cut by the exchange, or never let in by TLS


def test_a_certificate_that_has_expired_is_told_at_the_deadline(world: World) -> None:
    world.admit({**world.certificates, "lab": make_certificate(1, now=datetime.now(UTC) - timedelta(days=9))})
    end = world.link("lab", wait=False).end("clinic")
    wait_until(lambda: late(end) == "exchange.expired")


def test_a_certificate_that_the_exchange_does_not_know_is_told_at_the_deadline_and_tried_again(world: World) -> None:
    own = make_certificate()
    end = world.link("lab", own=own, wait=False).end("clinic")
    wait_until(lambda: late(end) == "exchange.refused")
    world.admit({**world.certificates, "lab": own})  # a new version of the roster
    wait_until(lambda: late(end) == "peer.deadline")


@pytest.mark.parametrize("pinned", [make_certificate(), make_certificate(1, now=datetime.now(UTC) - timedelta(days=9))])
def test_an_exchange_with_another_certificate_is_not_believed(world: World, pinned: tuple[bytes, bytes]) -> None:
    end = world.link("lab", exchange_certificate=pinned[0], wait=False).end("clinic")
    wait_until(lambda: late(end) == "exchange.certificate")


def test_an_exchange_with_an_expired_certificate_is_not_believed(world: World) -> None:
    expired = World(own=make_certificate(1, now=datetime.now(UTC) - timedelta(days=9)))
    try:
        end = expired.link("lab", wait=False).end("clinic")
        wait_until(lambda: late(end) == "exchange.certificate")
    finally:
        expired.close()


# --- through an HTTP proxy --------------------------------------------------------------------------------------------


class ConnectProxy:
    """Answers CONNECT with a tunnel, or with 407 if other credentials than `credentials` are shown."""

    def __init__(self, credentials: str = "") -> None:
        self.asked: list[str] = []  # "host:port credentials"
        self._wanted = credentials
        self._tunnels: list[CutProxy] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for tunnel in self._tunnels:
            tunnel.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head and (more := client.recv(4096)):
                head += more
            target = re.match(rb"CONNECT (\S+) HTTP/1", head)
            if target is None:
                client.close()
                continue
            said = re.search(rb"(?i)proxy-authorization: basic (\S+)", head)
            credentials = base64.b64decode(said[1]).decode() if said else ""
            self.asked.append(f"{target[1].decode()} {credentials}".strip())
            if credentials != self._wanted:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                client.close()
                continue
            tunnel = CutProxy(target[1].decode())
            self._tunnels.append(tunnel)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            tunnel.adopt(client)


@pytest.fixture
def connect_proxy() -> Iterator[Callable[..., ConnectProxy]]:
    made: list[ConnectProxy] = []

    def make(credentials: str = "") -> ConnectProxy:
        made.append(ConnectProxy(credentials))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.mark.parametrize("variable", ["https_proxy", "grpc_proxy", "http_proxy"])
def test_a_proxy_of_the_environment_is_asked_to_connect(
    world: World,
    connect_proxy: Callable[..., ConnectProxy],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    clinic = world.link("clinic").end("lab")
    proxy = connect_proxy()
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    lab = world.link("lab").end("clinic")
    put(lab, frame("lab", "clinic").ljust(MAX_FRAME_NBYTES, b"\1"), Topic.TRAIN)
    assert len(clinic.receive(10)) == MAX_FRAME_NBYTES
    assert proxy.asked == [f"127.0.0.1:{world.port}"] * 2  # once a lane


def test_credentials_in_the_proxys_address_are_shown_to_it(
    world: World, connect_proxy: Callable[..., ConnectProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = connect_proxy("vault:p@ss word")
    monkeypatch.setenv("https_proxy", f"http://vault:p%40ss%20word@{proxy.address}")
    world.link("lab")
    assert set(proxy.asked) == {f"127.0.0.1:{world.port} vault:p@ss word"}


def test_a_proxy_that_refuses_leaves_the_exchange_out_of_reach(
    world: World, connect_proxy: Callable[..., ConnectProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = connect_proxy("vault:secret")
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    end = world.link("lab", wait=False).end("clinic")
    wait_until(lambda: len(proxy.asked) >= 4)  # it goes on trying
    assert late(end) == "exchange.down"


@pytest.mark.parametrize("variable", ["no_proxy", "no_grpc_proxy"])
def test_a_host_that_is_excepted_is_reached_without_the_proxy(
    world: World, connect_proxy: Callable[..., ConnectProxy], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    proxy = connect_proxy()
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    monkeypatch.setenv(variable, "localhost,127.0.0.1")
    link: Link = world.link("lab")
    assert link.trouble is None
    assert proxy.asked == []
