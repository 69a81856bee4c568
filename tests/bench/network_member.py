"""One member in `bench_network`: a process that does what it is told, a line of JSON at a time.

`isthmus` is the whole stack of a vault: `Channel` over `ResumingCarrier` over `Link`, with the keys of its home and the
roster that is pinned there, and the real ledger with its keyed digest. `plain` is `plain_relay.PlainEnd`. Messages hold
one array of float32.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from isthmus.parties.consortium import consortium_of
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.link import Access, Link
from isthmus.parties.network.message import Array, Step, Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.session import Binding, Handshake
from isthmus.parties.reach import room_of

RUN, JOB = "bench", "0" * 64
TIMEOUT_S = 120.0


class End(Protocol):
    """What both stacks can do."""

    def send(self, array: Array) -> None: ...
    def receive(self) -> Array: ...


class IsthmusEnd:
    """A channel to the peer. It connects when it is made; `keeps_ledger` or counts only."""

    def __init__(self, home: PartyHome, address: str, peer: str, attempt: int, *, keeps_ledger: bool = True) -> None:
        self.began = time.perf_counter()
        consortium = consortium_of(home)
        assert consortium is not None
        identity, binding = Identity(home), Binding(consortium.name, RUN)
        entry = consortium.exchange()
        access = Access(address, entry.certificate.encode(), home.tls_certificate(), home.tls_key())
        reached = threading.Event()
        self.link = Link(
            access, me=home.name, room=room_of(binding), epoch=attempt, on_state=lambda up: up and reached.set()
        )
        handshake = Handshake(
            identity.sign,
            identity.public,
            me=home.name,
            peer=peer,
            peer_key=consortium.key_of(peer),
            binding=binding,
            attempt=attempt,
            job=JOB,
        )
        carrier = ResumingCarrier(self.link.end(peer), handshake, me=home.name, peer=peer)
        log = Ledger(home).job(RUN, JOB) if keeps_ledger else CountingLog()
        self.channel = Channel(carrier, me=home.name, peer=peer, log=log, timeout_s=TIMEOUT_S)
        if not reached.wait(TIMEOUT_S):
            sys.exit("the exchange could not be reached")
        self.connect_s = time.perf_counter() - self.began

    def send(self, array: Array, topic: Topic = Topic.TRAIN) -> None:
        self.channel.send(topic, Step.FORWARD, {}, {"x": array})

    def receive(self, topic: Topic = Topic.TRAIN) -> Array:
        return self.channel.receive(topic, Step.FORWARD).arrays["x"]

    def close(self) -> None:
        self.channel.close()
        self.link.close()


class On:
    """One topic of a channel as an end of its own."""

    def __init__(self, end: IsthmusEnd, topic: Topic) -> None:
        self._end, self._topic = end, topic

    def send(self, array: Array) -> None:
        self._end.send(array, self._topic)

    def receive(self) -> Array:
        return self._end.receive(self._topic)


def values(nbytes: int) -> Array:
    """An array of float32 as training sends it."""
    return np.random.default_rng(1).standard_normal(nbytes // 4, dtype=np.float32)


def ping(end: End, *, count: int, nbytes: int) -> list[float]:
    """Seconds of each round trip."""
    array, times = values(nbytes), []
    for _ in range(count):
        began = time.perf_counter()
        end.send(array)
        end.receive()
        times.append(time.perf_counter() - began)
    return times


def echo(end: End, *, count: int) -> None:
    for _ in range(count):
        end.send(end.receive())


def pour(end: End, *, count: int, nbytes: int) -> float:
    """Seconds until the peer has said that it has all."""
    array = values(nbytes)
    began = time.perf_counter()
    for _ in range(count):
        end.send(array)
    end.receive()
    return time.perf_counter() - began


def drink(end: End, *, count: int) -> None:
    for _ in range(count):
        array = end.receive()
    end.send(array[:1].copy())


def both(*works: Any) -> list[Any]:
    """Do things at once, each in a thread of its own; what they gave."""
    given: list[Any] = [None] * len(works)

    def do(place: int) -> None:
        given[place] = works[place]()

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


class Member:
    """What a line may ask for, by the name of a method; what it gives is the answer."""

    def __init__(self, stack: str, home: PartyHome, address: str, peer: str, relay: Path) -> None:
        self._stack, self._home, self._address, self._peer, self._attempt = stack, home, address, peer, 0
        self._end: Any
        if stack == "isthmus":
            self.anew()
        else:
            from plain_relay import PlainEnd

            certificates = relay.read_bytes(), home.tls_certificate(), home.tls_key()
            self._end = PlainEnd(address, *certificates, me=home.name, peer=peer)

    def anew(self, *, keeps_ledger: bool = True) -> float:
        """Another link and channel; seconds from its beginning until the exchange has accepted both lanes."""
        if self._attempt:
            self._end.close()
        self._attempt += 1
        self._end = IsthmusEnd(self._home, self._address, self._peer, self._attempt, keeps_ledger=keeps_ledger)
        return self._end.connect_s

    def first(self) -> dict[str, float]:
        """Milliseconds from the first send until it is on its way, under a session, and until the answer is here."""
        array, began = values(1024), time.perf_counter()
        self._end.send(array)
        sent = time.perf_counter()
        self._end.receive()
        return {
            "session_ms": 1e3 * (sent - began),
            "answer_ms": 1e3 * (time.perf_counter() - began),
            "from_start_ms": 1e3 * (time.perf_counter() - self._end.began),
        }

    def ping(self, *, count: int, nbytes: int) -> dict[str, float]:
        times = ping(self._end, count=count, nbytes=nbytes)
        return {"median_ms": 1e3 * statistics.median(times), "per_s": 1 / statistics.median(times)}

    def echo(self, *, count: int) -> None:
        echo(self._end, count=count)

    def pour(self, *, count: int, nbytes: int) -> float:
        return count * nbytes / pour(self._end, count=count, nbytes=nbytes) / 1e6

    def drink(self, *, count: int) -> None:
        drink(self._end, count=count)

    def mixed_near(self, *, count: int, nbytes: int, small_nbytes: int) -> dict[str, float]:
        """Bulk on one topic, and until it is done round trips of a small message on another."""
        small, array, times, done = On(self._end, Topic.SETUP), values(small_nbytes), [], threading.Event()

        def bulk() -> float:
            rate = self.pour(count=count, nbytes=nbytes)
            done.set()
            return rate

        def smalls() -> None:
            while not done.is_set():
                began = time.perf_counter()
                small.send(array)
                small.receive()
                times.append(time.perf_counter() - began)
                time.sleep(0.005)
            small.send(array[:1])

        rate, _ = both(bulk, smalls)
        times.sort()
        return {
            "p50_ms": 1e3 * statistics.median(times),
            "p95_ms": 1e3 * times[int(0.95 * len(times))],
            "round_trips": len(times),
            "mb_per_s": rate,
        }

    def mixed_far(self, *, count: int) -> None:
        small = On(self._end, Topic.SETUP)

        def smalls() -> None:
            while len(array := small.receive()) > 1:
                small.send(array)

        both(lambda: self.drink(count=count), smalls)

    def send_many(self, *, count: int, nbytes: int) -> None:
        array = values(nbytes)
        for _ in range(count):
            self._end.send(array)

    def wait_then_receive(self, *, seconds: float, count: int) -> None:
        """Alive, but not receiving; then all of it."""
        time.sleep(seconds)
        for _ in range(count):
            self._end.receive()

    def stop(self) -> None:
        if self._stack == "isthmus":
            self._end.close()


def main(stack: str, home: str, address: str, peer: str, relay: str) -> None:
    """Do what each line says, until `stop`."""
    member = Member(stack, PartyHome(Path(home)), address, peer, Path(relay))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(member, name)(**arguments)), flush=True)
        if name == "stop":
            break
    sys.stdout.flush()
    os._exit(0)  # gRPC of the plain client would wait


if __name__ == "__main__":
    main(*sys.argv[1:])
