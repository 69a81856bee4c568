"""Private set intersection between two parties: which of my rows does the other one have, too?

The initiator A is the active party, the responder B a passive one. Each pass of linkage keys takes a fresh secret on
each side (a, b), an order of each side's set drawn from the operating system, and these messages (`Step`):

::

    0  A⇄B  POINTS   the size of each side's set; and whether any overlap will do for it (a floor of 1)
       A⇄B  POINTS   unless any will do for both: whether the smaller set is enough for each one's floor
    1  A⇄B  POINTS   H(x)^a in A's order, H(y)^b in B's order: 33-byte points, both sides at the same time
    2  B→A  DOUBLED  A's points enciphered again, H(x)^ab, cut to 16 bytes, in an order drawn from a seed only B knows
             A enciphers B's points again and compares: it learns the size of the intersection and no position
    3  A→B  SIZE     whether the size is enough for A's floor, and only if it is, the size
    4  B→A  SEED     whether it is enough for B's floor, and only if it is, the seed: A learns which of its rows match
    5  A→B  MATCHES  a bitmap over B's order, and each match's place in step 2: B learns which of its rows match
    6  A⇄B  MATCHES  after the last pass: the digest of the alignment, which each side has worked out for itself

The floors are judged on the first pass that runs; below one of them both stop and nothing more is said. Later passes
run over the rows that are left on both sides, and a size of 0 ends a pass after step 3. The common order is the
ascending order of the doubly enciphered values within a pass, passes one after the other.

**Who learns what**: both learn which of their rows the other one has, pass by pass, and the number of rows with which
the other one takes part in each pass. A stop at a floor tells both that the overlap is smaller than that floor; A then
knows the exact size as well (of a set that is not smaller than the floor), and nobody knows a position. Nothing is said
about rows that do not match.

**Adversary**: semi-honest. Both follow the steps and may keep all they see; telling a row from an enciphered key then
means solving the decisional Diffie-Hellman problem on P-256, with SHA-256 as a random oracle. A party that lies about
its set can ask after anyone: made-up identifiers match where the other side has them, and a set padded with rows that
are sure to match lifts the overlap over any floor. That has to be bounded outside of this protocol (how many
identifiers a day). What a peer sends is checked before native code sees it (`cipher`).

Values that are equal after the cut to 16 bytes, within one set, do not happen by chance (10⁻²⁵ for ten million
elements): they are taken for a broken protocol.

**Papers**: Meadows, "A more efficient cryptographic matchmaking protocol", S&P 1986; Huberman, Franklin and Hogg,
"Enhancing privacy and trust in electronic communities", EC 1999. Steps 2 to 4 put a commitment to an order in front
of the positions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..parties.errors import InputError, PolicyRefusal
from ..parties.network.beats import speaking
from ..parties.network.channel import Channel
from ..parties.network.message import Array, Step, Topic
from ..parties.table import Identifier
from .alignment import Alignment, PassCounts, pairwise_digest
from .cipher import CHUNK, MAX_ELEMENTS, Cipher, MalformedPointsError, thread_pool
from .dialogue import OnProgress, Progress, await_step, await_verdict
from .linkage import Linkage, Passes
from .matching import VALUE_NBYTES, Positions, ascending, has_repeats, match, permutation

_SEED_NBYTES = 32


def align_as_initiator(
    channel: Channel,
    identifiers: Mapping[str, Identifier],
    passes: Passes,
    *,
    floor: int,
    job_digest: str,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> Alignment:
    """The active party's side: it learns the size first.

    `floor` is the smallest intersection that this party accepts, at least 1. `executor` enciphers, with threads of
    this process (by default one a processor). `on_progress` is told (pass from 1, passes, elements done, elements of
    the pass) after every chunk, by two threads but never at the same time.

    Raises `InputError` ``align.no_keys`` or ``align.none``, `PolicyRefusal` ``policy.too_few``, `PeerFailure`. After a
    `PeerFailure` the channel may be closed.
    """
    return _align(_initiate, channel, identifiers, passes, floor, job_digest, executor, on_progress)


def align_as_responder(
    channel: Channel,
    identifiers: Mapping[str, Identifier],
    passes: Passes,
    *,
    floor: int,
    job_digest: str,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> Alignment:
    """The passive party's side. Arguments and errors are those of `align_as_initiator`."""
    return _align(_respond, channel, identifiers, passes, floor, job_digest, executor, on_progress)


@dataclass(frozen=True)
class _Pass:
    """What one side holds at the beginning of a pass. `rows` and `keys` are in the order in which they are sent."""

    channel: Channel
    cipher: Cipher
    rows: Positions
    keys: list[str]
    peer_size: int
    needed: int  # the smallest size that this side accepts in this pass
    progress: Progress

    def send_points(self) -> None:
        """Send our points, enciphered once."""
        points = self.progress.over(self.cipher.encipher(self.keys))
        self.channel.send_chunks(Topic.ALIGN, Step.POINTS, points)

    def peer_values(self) -> Array:
        """The peer's points, received, enciphered again and cut: (peer_size, 16), in the peer's order."""
        points = self.channel.receive_chunks(Topic.ALIGN, Step.POINTS)
        try:
            chunks = self.progress.over(self.cipher.encipher_again(points, self.peer_size))
            return _distinct(self.channel, np.concatenate([chunk[:, 1 : 1 + VALUE_NBYTES] for chunk in chunks]))
        except MalformedPointsError as failure:
            raise self.channel.refuse(Topic.ALIGN, str(failure)) from failure


@dataclass(frozen=True)
class _Matches:
    """The outcome of a pass in the common order: our rows (matched,) and the doubly enciphered values (matched, 16)."""

    rows: Positions
    values: Array


_NO_MATCHES = _Matches(np.empty(0, np.int64), np.empty((0, VALUE_NBYTES), np.uint8))


def _align(
    run_pass: Callable[[_Pass], _Matches],
    channel: Channel,
    identifiers: Mapping[str, Identifier],
    passes: Passes,
    floor: int,
    job_digest: str,
    executor: Executor | None,
    on_progress: OnProgress | None,
) -> Alignment:
    """What both sides do round the steps of a pass."""
    with speaking(channel, Topic.ALIGN, then=Step.POINTS):
        linkage = Linkage(identifiers, passes)
        if not linkage.has_keys():
            raise InputError("align.no_keys", party=channel.me)
    unmatched = np.arange(linkage.rows, dtype=np.int64)
    matches: list[tuple[int, _Matches]] = []
    counts: list[PassCounts] = []
    judged = any_will_do = False
    with ExitStack() as stack:
        pool = executor or stack.enter_context(thread_pool())
        for number in range(1, len(passes) + 1):
            with speaking(channel, Topic.ALIGN, then=Step.POINTS):
                keys = linkage.keys(number, unmatched)
            size = len(keys.keys)
            peer_size, any_will_do = _exchange_sizes(channel, number, size, floor)
            needed = 0 if judged or any_will_do else floor
            found = _NO_MATCHES
            if size and peer_size:
                if needed:
                    _judge_sizes(channel, min(size, peer_size), needed)
                order = permutation(secrets.token_bytes(_SEED_NBYTES), size)
                cipher = Cipher(pool)
                try:
                    found = run_pass(
                        _Pass(
                            channel,
                            cipher,
                            rows=keys.rows[order],
                            keys=[keys.keys[place] for place in order.tolist()],
                            peer_size=peer_size,
                            needed=needed,
                            progress=Progress(number, len(passes), size + peer_size, on_progress),
                        )
                    )
                finally:
                    cipher.erase()
                judged = True
            unmatched = np.setdiff1d(unmatched, found.rows, assume_unique=True)
            matches.append((number, found))
            counts.append(PassCounts(number, keys.null, keys.repeated, size, len(found.rows)))
    rows = np.concatenate([found.rows for _, found in matches])
    if not len(rows):
        raise InputError("align.none") if any_will_do else PolicyRefusal("policy.too_few")
    digest = pairwise_digest(job_digest, ((number, found.values) for number, found in matches))
    channel.send(Topic.ALIGN, Step.MATCHES, {"digest": digest})
    if await_step(channel, Step.MATCHES, digest=str).fields["digest"] != digest:
        raise channel.refuse(Topic.ALIGN, "the peer holds another alignment")
    return Alignment(rows, digest, tuple(counts))


def _exchange_sizes(channel: Channel, number: int, size: int, floor: int) -> tuple[int, bool]:
    """Step 0: the size of the peer's set, and whether any overlap will do for both."""
    channel.send(Topic.ALIGN, Step.POINTS, {"pass": number, "size": size, "any": floor <= 1})
    fields = await_step(channel, Step.POINTS, **{"pass": int, "size": int, "any": bool}).fields
    if fields["pass"] != number or not 0 <= fields["size"] <= MAX_ELEMENTS:
        raise channel.refuse(Topic.ALIGN, "the peer is in another pass, or its set is too large")
    return fields["size"], floor <= 1 and fields["any"]


def _judge_sizes(channel: Channel, most: int, floor: int) -> None:
    """Step 0: stop before a point leaves if not even a whole set in the other would be enough.

    Otherwise A could ask with a set of one after that one, and would read the answer off the size in step 3.
    """
    channel.send(Topic.ALIGN, Step.POINTS, {"enough": most >= floor})
    if await_verdict(channel, Step.POINTS) is None or most < floor:
        raise PolicyRefusal("policy.too_few")


def _initiate(side: _Pass) -> _Matches:
    channel, peer_size = side.channel, side.peer_size
    with speaking(channel, Topic.ALIGN, then=Step.SIZE, first=side.send_points):  # 1
        theirs = side.peer_values()
        ours = _receive_values(channel, len(side.keys))  # 2
        in_ours, in_theirs = match(ours, theirs)
    size = len(in_ours)
    if size < side.needed:
        channel.send(Topic.ALIGN, Step.SIZE, {"enough": False})
        raise PolicyRefusal("policy.too_few")
    channel.send(Topic.ALIGN, Step.SIZE, {"enough": True, "size": size})  # 3
    if not size:
        return _NO_MATCHES
    verdict = await_verdict(channel, Step.SEED, "seed")  # 4
    if verdict is None:
        raise PolicyRefusal("policy.too_few")
    seed = verdict.arrays["seed"]
    if seed.dtype != np.uint8 or seed.shape != (_SEED_NBYTES,):
        raise channel.refuse(Topic.ALIGN, "the seed is not 32 bytes")
    bitmap = np.zeros(peer_size, dtype=np.uint8)
    bitmap[in_theirs] = 1
    places = in_ours[np.argsort(in_theirs)].astype("<u4")
    channel.send(Topic.ALIGN, Step.MATCHES, arrays={"bitmap": np.packbits(bitmap), "places": places})  # 5
    return _Matches(side.rows[permutation(seed.tobytes(), len(ours))[in_ours]], ours[in_ours])


def _respond(side: _Pass) -> _Matches:
    channel, peer_size = side.channel, side.peer_size
    with speaking(channel, Topic.ALIGN, then=Step.DOUBLED, first=side.send_points):  # 1
        theirs = side.peer_values()
        seed = secrets.token_bytes(_SEED_NBYTES)
        theirs = theirs[permutation(seed, peer_size)]
    channel.send(Topic.ALIGN, Step.DOUBLED, {"size": peer_size})  # 2
    channel.send_chunks(
        Topic.ALIGN, Step.DOUBLED, (theirs[start : start + CHUNK] for start in range(0, peer_size, CHUNK))
    )
    verdict = await_verdict(channel, Step.SIZE, size=int)  # 3
    if verdict is None:
        raise PolicyRefusal("policy.too_few")
    size = verdict.fields["size"]
    if not 0 <= size <= min(peer_size, len(side.keys)):
        raise channel.refuse(Topic.ALIGN, "the intersection is larger than a set")
    if size < side.needed:
        channel.send(Topic.ALIGN, Step.SEED, {"enough": False})
        raise PolicyRefusal("policy.too_few")
    if not size:
        return _NO_MATCHES
    channel.send(Topic.ALIGN, Step.SEED, {"enough": True}, {"seed": np.frombuffer(seed, dtype=np.uint8)})  # 4
    message = await_step(channel, Step.MATCHES, "bitmap", "places")  # 5
    in_ours, places = _checked_matches(side, size, message.arrays["bitmap"], message.arrays["places"])
    values = theirs[places]
    order = ascending(values)
    return _Matches(side.rows[in_ours[order]], values[order])


def _receive_values(channel: Channel, size: int) -> Array:
    """Step 2 at A: its own values (size, 16), in the order that B has drawn."""
    if await_step(channel, Step.DOUBLED, size=int).fields["size"] != size:
        raise channel.refuse(Topic.ALIGN, "the peer enciphered another number of points")
    values = np.empty((size, VALUE_NBYTES), dtype=np.uint8)
    start = 0
    for chunk in channel.receive_chunks(Topic.ALIGN, Step.DOUBLED):
        if chunk.dtype != np.uint8 or chunk.shape != (min(CHUNK, size - start), VALUE_NBYTES) or not len(chunk):
            raise channel.refuse(Topic.ALIGN, "a chunk has another size than was declared")
        values[start : start + len(chunk)] = chunk
        start += len(chunk)
    if start != size:
        raise channel.refuse(Topic.ALIGN, "the peer enciphered another number of points")
    return _distinct(channel, values)


def _checked_matches(side: _Pass, size: int, bitmap: Array, places: Array) -> tuple[Positions, Positions]:
    """Step 5 at B: the positions of the matches in its own order and in the order of step 2, both (size,)."""
    length = len(side.keys)
    if bitmap.dtype != np.uint8 or bitmap.shape != (-(-length // 8),):
        raise side.channel.refuse(Topic.ALIGN, "the bitmap is not that of our set")
    in_ours = np.flatnonzero(np.unpackbits(bitmap))
    if len(in_ours) != size or in_ours[-1] >= length:
        raise side.channel.refuse(Topic.ALIGN, "the bitmap has another number of matches than was declared")
    if places.dtype != np.dtype("<u4") or places.shape != (size,) or places.max() >= side.peer_size:
        raise side.channel.refuse(Topic.ALIGN, "the places are not those of our list")
    if len(np.unique(places)) != size:
        raise side.channel.refuse(Topic.ALIGN, "a place is repeated")
    return in_ours, places.astype(np.int64)


def _distinct(channel: Channel, values: Array) -> Array:
    if has_repeats(values):
        raise channel.refuse(Topic.ALIGN, "two values of a set are equal")
    return values
