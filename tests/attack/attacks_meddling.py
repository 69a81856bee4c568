"""A hostile exchange that drops, repeats, delays, cuts, alters, invents and misroutes frames, in every position.

It holds the exchange's key and sees every frame. What each channel delivers is compared with what was sent.
"""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from duel import Duel
from hostile import Hostile, Seen, honest
from score import Score
from stage import Stage

from isthmus.parties.errors import IsthmusError
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.frame import HEADER_NBYTES, MAX_FRAME_NBYTES, Header, Kind
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.session import Binding
from isthmus.parties.reach import room_of

AT_ONCE = 6
Trick = Callable[[Seen, random.Random, list[Seen]], list[Seen]]


def _changed(seen: Seen, at: int, content: bytes) -> list[Seen]:
    frame = bytearray(seen.frame)
    frame[at : at + len(content)] = content
    return [seen.but(frame=bytes(frame))]


def _flip(seen: Seen, rng: random.Random, start: int, end: int) -> list[Seen]:
    at = rng.randrange(start, max(start + 1, min(end, len(seen.frame))))
    return _changed(seen, at, bytes([seen.frame[at] ^ 1 << rng.randrange(8)])) if at < len(seen.frame) else [seen]


def _sequence(seen: Seen, by: int) -> list[Seen]:
    (number,) = struct.unpack_from("<Q", seen.frame, 88)
    return _changed(seen, 88, struct.pack("<Q", (number + by) % 2**64))


def _swapped_names(seen: Seen) -> bytes:
    return seen.frame[:8] + seen.frame[40:72] + seen.frame[8:40] + seen.frame[72:]


def _invented(seen: Seen, rng: random.Random) -> list[Seen]:
    kind = rng.choice(list(Kind))
    source, destination = (seen.frame[part].rstrip(b"\0").decode() for part in (slice(40, 72), slice(8, 40)))
    header = Header(kind, destination, source, rng.randbytes(16), rng.randrange(9), rng.randrange(4), rng.randrange(99))
    sizes = {Kind.HELLO: (73, 73 + 1184), Kind.AUTH: (144, 144 + 1088)}.get(kind, (16, 65, 2000))
    return [seen.but(frame=header.pack() + rng.randbytes(rng.choice(sizes))), seen]


def _other_lane(seen: Seen) -> str:
    return "bulk" if seen.lane == "fast" else "fast"


def _with_a_channel_of(seen: Seen, rng: random.Random, past: list[Seen]) -> list[Seen]:
    """The frame of one topic under the channel id of another."""
    others = [each.frame[72:88] for each in past if len(each.frame) >= HEADER_NBYTES]
    return _changed(seen, 72, rng.choice(others)) if others else [seen]


TRICKS: dict[str, Trick] = {
    "dropped": lambda seen, rng, past: [],
    "repeated at once and later": lambda seen, rng, past: [seen, seen, seen.but(after_s=0.1)],
    "delayed, so that others overtake it": lambda seen, rng, past: [seen.but(after_s=rng.uniform(0.05, 0.6))],
    "truncated": lambda seen, rng, past: [seen.but(frame=seen.frame[: rng.randrange(len(seen.frame))])],
    "lengthened": lambda seen, rng, past: [seen.but(frame=seen.frame + rng.randbytes(rng.choice((1, 16, 500))))],
    "a bit of the payload flipped": lambda seen, rng, past: _flip(seen, rng, HEADER_NBYTES, 1 << 20),
    "a bit of the header flipped": lambda seen, rng, past: _flip(seen, rng, 0, HEADER_NBYTES),
    "channel ids exchanged between topics": _with_a_channel_of,
    "sequence bumped": lambda seen, rng, past: _sequence(seen, rng.choice((1, 2, 7, 2**63))),
    "sequence of an earlier frame": lambda seen, rng, past: _sequence(seen, -1),
    "FIRST and LAST changed": lambda seen, rng, past: _changed(seen, 2, bytes([seen.frame[2] ^ rng.choice((1, 2, 3))])),
    "total changed": lambda seen, rng, past: _changed(seen, 4, struct.pack("<I", rng.choice((0, 1, 10**7, 2**32 - 1)))),
    "an earlier frame behind it": lambda seen, rng, past: [seen, rng.choice(past)],
    "an earlier frame in its place": lambda seen, rng, past: [rng.choice(past)],
    "sent back to its sender, names exchanged": lambda seen, rng, past: [seen, seen.but(frame=_swapped_names(seen))],
    "lengthened beyond the largest frame": lambda seen, rng, past: [
        seen.but(frame=seen.frame.ljust(MAX_FRAME_NBYTES + 1, b"x")),
        seen,
    ],
    "moved to the other lane": lambda seen, rng, past: [seen.but(lane=_other_lane(seen))],
    "an invented frame of some kind in front": lambda seen, rng, past: _invented(seen, rng),
    "0 bytes, a header alone, 4 GiB - 1 announced": lambda seen, rng, past: [
        seen.but(frame=b""),
        seen.but(frame=seen.frame[:HEADER_NBYTES]),
        *_changed(seen, 4, b"\xff\xff\xff\xff"),
        seen,
    ],
}


class Meddler:
    """The script of one run: one trick at some positions, or any trick at any position with a probability."""

    def __init__(self, seed: int, *, trick: str = "", at: int = -1, rate: float = 0.0) -> None:
        self.rng, self.trick, self.at, self.rate = random.Random(seed), trick, at, rate
        self.position = self.played = 0
        self.past: list[Seen] = []

    def __call__(self, seen: Seen) -> list[Seen]:
        self.past.append(seen)
        self.position += 1
        is_due = self.rng.random() < self.rate if self.at < 0 else self.position - 1 == self.at
        if not is_due:
            return [seen]
        self.played += 1
        return TRICKS[self.trick or self.rng.choice(list(TRICKS))](seen, self.rng, self.past)


def _play(stage: Stage, hostile: Hostile, meddlers: list[Meddler], score: Score) -> None:
    """One run a script; several at a time."""
    lock = threading.Lock()

    def one(meddler: Meddler) -> None:
        duel = Duel(stage, hostile.address)
        hostile.relay.scripts[room_of(Binding("hearts", duel.run))] = meddler
        duel.start().finish()
        with lock:
            score.tried += meddler.played
            score.got_through += duel.wrong
            score.outcomes["ended well" if duel.went_well else f"ended {duel.ends}"] += 1

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, meddlers))
    stage.hang_up()
    hostile.forget()


def in_every_position(stage: Stage, hostile: Hostile, quick: bool) -> Iterator[Score]:
    """Each trick alone, at each of the frames of a run: 30 or so, handshake, acknowledgements and goodbye included."""
    control = Duel(stage, hostile.address).start().finish()
    frames = len(hostile.forget())
    for number, trick in enumerate(TRICKS):
        positions = range(frames) if not quick else range(number % 5, frames, 8)
        score = Score(f"hostile exchange, at each frame of a run in turn: {trick}", control=control.went_well)
        meddlers = [Meddler(1000 * number + at, trick=trick, at=at) for at in positions]
        _play(stage, hostile, meddlers, score)
        yield score


def at_random(stage: Stage, hostile: Hostile, quick: bool) -> list[Score]:
    """Any trick at any frame, as often as every other frame, in many runs with seeds."""
    score = Score("hostile exchange, any of these at 2 to 50 frames of 100, at random")
    rates = (0.02, 0.1, 0.25, 0.5)
    runs = 16 if quick else 120
    _play(stage, hostile, [Meddler(seed, rate=rates[seed % len(rates)]) for seed in range(runs)], score)
    score.control = Duel(stage, hostile.address).start().finish().went_well
    return [score]


def an_insider_that_breaks_the_rules(stage: Stage, hostile: Hostile) -> list[Score]:
    """The peer itself, with the session's true keys: what it seals opens, but is not what the rules allow."""
    score = Score("a peer seals pieces that break the rules: totals, flags, sizes, gaps")
    cases = [
        ("total 4 GiB - 1", 3, 2**32 - 1, 10),
        ("total over the cap", 1, 256 * 1024 * 1024 + 1, 10),
        ("total above the piece", 3, 11, 10),
        ("total below the piece", 3, 9, 10),
        ("not FIRST", 2, 10, 10),
        ("FIRST, an empty piece of a large message", 1, 200 * 1024 * 1024, 0),
        ("neither, of nothing", 0, 0, 0),
        ("a message that is none", 3, 10, 10),
    ]
    hostile.relay.script = honest
    for name, flags, total, size in cases:
        run = f"insider-{name.replace(' ', '-')}"
        victim = stage.channel("lab", "insurer", run=run, address=hostile.address, timeout_s=20.0)
        link = stage.link("insurer", run=run, address=hostile.address)
        insider: ResumingCarrier = stage.carrier(link, "insurer", "lab", run=run)
        with ThreadPoolExecutor(2) as pool:
            listening = pool.submit(_end_of, victim)
            session = pool.submit(insider._meet, 20.0).result()
            sealer = session.sealer(Topic.TRAIN.value)
            header = Header(Kind.DATA, "lab", "insurer", sealer.channel, 0, flags, total).pack()
            insider._way.send(Topic.TRAIN, [sealer.seal(0, bytes(size), header)], 5.0, lambda: None)
            end = listening.result()
        score.tried += 1
        score.got_through += end not in ("peer.protocol", "peer.deadline")
        score.outcomes[f"{name}: {end}"] += 1
    score.control = Duel(stage, hostile.address).start().finish().went_well
    stage.hang_up()
    return [score]


def _end_of(channel: Channel) -> str:
    """How a member ends that waits for a message."""
    try:
        channel.receive(Topic.TRAIN, Step.FORWARD, timeout_s=6.0)
    except IsthmusError as failure:
        return failure.code
    return "taken"


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage, Hostile(stage) as hostile:
        yield from in_every_position(stage, hostile, quick)
        yield from at_random(stage, hostile, quick)
        yield from an_insider_that_breaks_the_rules(stage, hostile)
