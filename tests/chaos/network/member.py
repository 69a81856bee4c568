"""A member that sends a stream of chunks to another by an exchange, or receives it: a process of its own.

It says how far it is, and at its end one line of JSON: what came, its digest, and the memory that it took. ``--ping``
sends small messages on another topic meanwhile, and says how long each took to be answered; whoever receives answers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.parties.consortium import consortium_of
from isthmus.parties.errors import IsthmusError
from isthmus.parties.home import PartyHome
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.reach import ReachByExchange, RunWays

MIB = 1024 * 1024
CHUNK_NBYTES = 4 * MIB - 5  # not a multiple of what a frame holds
SAY_EVERY = 4 * MIB
PING_EVERY_S = 0.5


def chunks(nbytes: int) -> Iterator[np.ndarray[Any, Any]]:
    """Bytes of which no two stretches are the same, cut into chunks: the same at every call."""
    generator = np.random.default_rng(7)
    while nbytes > 0:
        size = min(nbytes, CHUNK_NBYTES)
        yield np.frombuffer(generator.bytes(size), np.uint8)
        nbytes -= size


def memory(field: str) -> int:
    """MiB of this process: ``VmHWM`` at most so far, ``VmRSS`` now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) // 1024
    raise AssertionError(field)


class Told:
    """Counts and digests what passes, and says how far it is."""

    def __init__(self) -> None:
        self.digest, self.nbytes, self.count = hashlib.sha256(), 0, 0

    def each(self, passing: Iterable[np.ndarray[Any, Any]], pace_s: float) -> Iterator[np.ndarray[Any, Any]]:
        for chunk in passing:
            yield chunk
            self.digest.update(chunk)
            before, self.nbytes, self.count = self.nbytes, self.nbytes + chunk.nbytes, self.count + 1
            if before // SAY_EVERY < self.nbytes // SAY_EVERY:
                print("at", self.nbytes // MIB, flush=True)
            time.sleep(pace_s)


def ping(channel: Channel, done: threading.Event, took: list[float]) -> None:
    number = 0
    while not done.wait(PING_EVERY_S):
        began = time.monotonic()
        channel.send(Topic.AGREE, Step.JOB, {"number": number})
        assert channel.receive(Topic.AGREE, Step.JOB).fields == {"number": number}
        took.append(time.monotonic() - began)
        number += 1
    channel.send(Topic.AGREE, Step.CLOSE)


def answer(channel: Channel) -> None:
    while (message := channel.receive(Topic.AGREE, Step.JOB, Step.CLOSE)).step is Step.JOB:
        channel.send(Topic.AGREE, Step.JOB, message.fields)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("does", choices=("send", "receive"))
    parser.add_argument("home", type=Path)
    parser.add_argument("peer")
    parser.add_argument("--address", help="of the exchange, if not the roster's")
    parser.add_argument("--attempt", type=int, default=1)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds that a receiver takes for a chunk")
    parser.add_argument("--ping", action="store_true")
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)

    def on_state(up: bool) -> None:
        print("reached" if up else "lost", flush=True)

    home = PartyHome(options.home)
    consortium = consortium_of(home)
    ways = RunWays(home, "transfer-1", "0" * 64, CountingLog(), options.timeout)
    reach = ReachByExchange(ways, (options.peer,), exchange=None, on_state=on_state)
    reach.address = options.address
    reach.check(consortium)
    channel = reach.open(options.attempt, consortium)[options.peer]
    told, took, done = Told(), list[float](), threading.Event()
    before = memory("VmRSS")
    beside: threading.Thread | None = None
    if options.ping:
        beside = threading.Thread(
            target=ping if options.does == "send" else answer,
            args=(channel, done, took) if options.does == "send" else (channel,),
            daemon=True,
        )
    try:
        if beside is not None:
            beside.start()
        began = time.monotonic()
        if options.does == "send":
            channel.send_chunks(Topic.ALIGN, Step.POINTS, told.each(chunks(options.mib * MIB), 0.0))
            handed_s = time.monotonic() - began
            receipt = channel.receive(Topic.ALIGN, Step.SIZE, timeout_s=10 * options.timeout).fields
            assert receipt == {"digest": told.digest.hexdigest(), "count": told.count}, "what arrived is not what left"
        else:
            for _ in told.each(channel.receive_chunks(Topic.ALIGN, Step.POINTS), options.pace):
                pass
            handed_s = time.monotonic() - began
            channel.send(Topic.ALIGN, Step.SIZE, {"digest": told.digest.hexdigest(), "count": told.count})
        done.set()
        if beside is not None:
            beside.join(60)
        channel.close(linger_s=options.timeout)
    except IsthmusError as failure:
        print(failure, flush=True)
        return failure.exit_code
    finally:
        reach.close()
    facts = {
        "nbytes": told.nbytes,
        "count": told.count,
        "digest": told.digest.hexdigest(),
        "seconds": round(handed_s, 1),
        "before_mib": before,
        "peak_mib": memory("VmHWM"),
        "slowest_ping_s": round(max(took), 3) if took else None,
        "pings": len(took),
        "refused": dict(channel._carrier.refused),  # type: ignore[attr-defined]
    }
    print(json.dumps(facts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
