"""Members that flood: garbage at full speed, many connections, bulk that nobody reads, requests to send again.

The memory of the exchange and of the victim (this process) stays bounded, and another pair goes on.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import grpc
import numpy as np
from duel import Duel
from score import Score
from stage import Stage

from isthmus.parties.errors import IsthmusError
from isthmus.parties.network.channel import CarrierTimeoutError, Channel
from isthmus.parties.network.frame import MAX_FRAME_NBYTES, Header, Kind
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.network.resuming import _RESUME, ResumingCarrier
from tests.consortium import wait

EXCHANGE_MB = 700.0  # what one member may make the exchange hold
ROOM_MB = 100.0  # and what gRPC holds of its streams before anybody has read it: 8 MiB of window, several times
VICTIM_MB = 700.0  # the inboxes of a link (256) and a channel (64), and what is on its way
GARBAGE = Header(Kind.DATA, "lab", "clinic", b"x" * 16, 0, 3, 1000).pack()


def _mb(pid: int | str = "self", figure: str = "VmRSS") -> float:
    found = re.search(rf"^{figure}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


class Watch:
    """The highest memory of the exchange and of this process while it is open, above what it was before."""

    def __init__(self, pid: int) -> None:
        self._pids = {"exchange": str(pid), "victim": "self"}
        self._before = {who: _mb(pid) for who, pid in self._pids.items()}
        self.peak = dict.fromkeys(self._pids, 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for who, pid in self._pids.items():
                with contextlib.suppress(OSError):
                    self.peak[who] = max(self.peak[who], _mb(pid) - self._before[who])

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def judge(self, score: Score, exchange_mb: float = EXCHANGE_MB) -> None:
        score.got_through += (self.peak["exchange"] > exchange_mb) + (self.peak["victim"] > VICTIM_MB)
        score.told += f"; memory grew by {self.peak['exchange']:.0f} MB (exchange), {self.peak['victim']:.0f} (victim)"


@contextlib.contextmanager
def _writing(send: Callable[[int], None], seconds: float) -> Iterator[list[int]]:
    """An attacker that writes for a time, in a thread; how often it did."""
    count, until = [0], time.monotonic() + seconds

    def write() -> None:
        with contextlib.suppress(grpc.RpcError, ValueError):
            while time.monotonic() < until:
                send(count[0])
                count[0] += 1

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield count
    thread.join(seconds + 30)


def _paced(stream: Any, frame: bytes) -> Callable[[int], None]:
    """Write as fast as the stream takes it, and no faster: the attacker's own memory is not the target."""

    def send(_: int) -> None:
        while stream.unsent() > 8:
            time.sleep(0.001)
            if stream.call.done():
                raise ValueError("cut")
        stream.send(frame)

    return send


def garbage(stage: Stage, pid: int, seconds: float) -> Iterator[Score]:
    """Clinic writes garbage to lab in the run of insurer and lab; lab reads it, or has an end for it and does not."""
    for told, size, has_end in (
        ("1 MiB frames, which lab drops", MAX_FRAME_NBYTES - len(GARBAGE), False),
        ("1 MiB frames into an inbox that nobody reads", MAX_FRAME_NBYTES - len(GARBAGE), True),
        ("frames of a header alone", 0, True),
    ):
        score = Score(f"clinic floods lab at full speed: {told}", control=True)
        with Watch(pid) as watch:
            duel = Duel(stage, stage.real, count=30, timeout_s=60.0)
            link = duel.sides[1].channel._carrier._way._link  # type: ignore[attr-defined]
            if has_end:
                link.end("clinic")
            streams = [
                stage.stream("clinic", run=duel.run, lane=lane, address=stage.real).accepted()
                for lane in ("fast", "bulk")
            ]
            frame = GARBAGE + bytes(size)
            with (
                _writing(_paced(streams[0], frame), seconds) as fast,
                _writing(_paced(streams[1], frame), seconds) as bulk,
            ):
                time.sleep(0.5)
                duel.start().finish()
        score.tried = fast[0] + bulk[0]
        score.got_through = 0 if duel.went_well else 1
        score.outcomes[f"insurer and lab: {duel.ends}"] += 1
        score.told = f"{score.tried * len(frame) / 1e6:,.0f} MB sent"
        watch.judge(score)
        stage.hang_up()
        yield score


def connections(stage: Stage, pid: int) -> list[Score]:
    """Clinic opens more streams than a member may have; a stranger opens connections and says nothing."""
    many, silent = Score("clinic opens 100 streams"), Score("400 connections that never speak TLS")
    with Watch(pid) as watch:
        streams = [stage.stream("clinic", run=f"many-{number}") for number in range(100)]
        for stream in streams:
            stream.call.initial_metadata()
        time.sleep(2.0)  # a refusal's status may come a little behind its metadata
        ends = ["accepted" if stream.call.is_active() else stream.call.details() for stream in streams]
        many.tried = len(streams)
        many.outcomes.update(ends)
        many.got_through = max(0, ends.count("accepted") - 64)
        duel = Duel(stage, stage.real, count=9, timeout_s=60.0).start().finish()
    many.got_through += not duel.went_well
    many.control = ends.count("accepted") == 64
    many.told = f"insurer and lab meanwhile: {duel.ends}"
    watch.judge(many)
    stage.hang_up()
    with contextlib.ExitStack() as ends_with, Watch(pid) as watch:
        host, port = stage.real.split(":")
        for _ in range(400):
            ends_with.enter_context(socket.create_connection((host, int(port)), timeout=10))
            silent.tried += 1
        duel = Duel(stage, stage.real, count=9, timeout_s=60.0).start().finish()
        silent.got_through = 0 if duel.went_well else 1
        silent.told = f"insurer and lab meanwhile: {duel.ends}"
    watch.judge(silent)
    silent.control = True
    stage.hang_up()
    return [many, silent]


def unread_by_a_colluding_member(stage: Stage, pid: int, rooms: int) -> list[Score]:
    """Clinic and lab collude: clinic writes, lab never reads, in many rooms at once."""
    score = Score(f"clinic writes to lab, who never reads, in {rooms} rooms at once: what the exchange holds")
    frame = GARBAGE + bytes(MAX_FRAME_NBYTES - len(GARBAGE))
    small = (("grpc.http2.lookahead_bytes", 65536),)
    with Watch(pid) as watch, contextlib.ExitStack() as writing:
        for number in range(rooms):
            run = f"unread-{number}"
            stage.stream("lab", run=run, reads=False, options=small).accepted()
            stream = stage.stream("clinic", run=run).accepted()
            counts = writing.enter_context(_writing(_paced(stream, frame), 12.0))
            score.told = str(counts)
        duel = Duel(stage, stage.real, count=9, timeout_s=60.0).start().finish()
    score.tried = rooms
    score.control = watch.peak["exchange"] > 50  # it did hold something
    score.got_through = 0 if duel.went_well else 1
    score.told = f"insurer and lab meanwhile: {duel.ends}"
    watch.judge(score, EXCHANGE_MB + ROOM_MB * rooms)
    stage.hang_up()
    return [score]


class BareWay:
    """A member's way to the exchange that reads its fast lane alone, and whatever it is told to write."""

    trouble = "peer.deadline"

    def __init__(self, fast: Any, bulk: Any) -> None:
        self.fast, self.bulk = fast, bulk
        self.on_control: Callable[[bytes], None] = lambda frame: None
        self.on_reconnect: Callable[[], None] = lambda: None

    def send(self, topic: Topic | None, buffers: Any, timeout_s: float, on_blocked: Any) -> None:
        self.fast.send(b"".join(buffers))

    def receive(self, timeout_s: float) -> bytes:
        try:
            return self.fast._in.get(timeout=max(0.0, timeout_s))  # type: ignore[no-any-return]
        except Empty:
            raise CarrierTimeoutError from None

    def close(self) -> None:
        pass


def asks_again_and_never_reads(stage: Stage, pid: int, seconds: float) -> list[Score]:
    """Clinic, one of two peers of insurer, never reads its bulk lane and asks for all of it again; lab waits, too."""
    score = Score("a peer never reads its bulk lane and asks for it again and again: is the other starved?")
    run = "stalled"
    fast = stage.stream("clinic", run=run, lane="fast").accepted()
    bulk = stage.stream("clinic", run=run, reads=False, options=(("grpc.http2.lookahead_bytes", 65536),)).accepted()
    evil = ResumingCarrier(
        BareWay(fast, bulk), stage.handshake("clinic", "insurer", run=run), me="clinic", peer="insurer"
    )
    link = stage.link("insurer", run=run)
    to_evil, to_lab = (
        Channel(stage.carrier(link, "insurer", peer, run=run), me="insurer", peer=peer, log=_NoLog(), timeout_s=60.0)
        for peer in ("clinic", "lab")
    )
    lab = stage.channel("lab", "insurer", run=run, timeout_s=60.0)
    came: list[float] = []
    over = threading.Event()

    def keep(work: Callable[[], object]) -> None:
        def loop() -> None:
            with contextlib.suppress(IsthmusError, ConnectionError, TimeoutError, ValueError):
                while not over.is_set():
                    work()

        threading.Thread(target=loop, daemon=True).start()

    array = np.zeros(1_000_000)
    keep(lambda: to_lab.send(Topic.TRAIN, Step.FORWARD, {}, {"items": array[:100_000]}))
    keep(lambda: (lab.receive(Topic.TRAIN, Step.FORWARD), came.append(time.monotonic())))
    wait(lambda: len(came) > 5, 60)
    score.control = True  # before the attack begins it does get through
    session = threading.Thread(target=lambda: evil._meet(60.0), daemon=True)
    session.start()
    keep(lambda: to_evil.send(Topic.TRAIN, Step.FORWARD, {}, {"items": array}))
    session.join(60)
    assert evil._session is not None

    def ask() -> None:
        evil._control(_RESUME)
        score.tried += 1
        over.wait(0.25)

    with Watch(pid) as watch:
        keep(ask)
        time.sleep(seconds)
        recent = [at for at in came if at > time.monotonic() - seconds / 3]
    over.set()
    score.got_through = int(not recent)
    score.told = f"in the last {seconds / 3:.0f} s of {seconds:.0f} s the other peer got {len(recent)} messages"
    watch.judge(score)
    evil.close()
    stage.hang_up()
    return [score]


class _NoLog:
    def open(self, peer: str, topic: Topic) -> Any:
        return self

    def add(self, buffers: Any) -> None:
        pass

    def close(self, streams: Any) -> None:
        pass


def run(quick: bool) -> Iterator[Score]:
    seconds = 6.0 if quick else 20.0
    with Stage().found() as stage:
        pid = stage.consortium.start_exchange().pid
        yield from asks_again_and_never_reads(stage, pid, 36.0 if quick else 60.0)
        yield from garbage(stage, pid, seconds)
        yield from connections(stage, pid)
        yield from unread_by_a_colluding_member(stage, pid, 8 if quick else 24)
