"""Alignment of one active party with one or more passive ones, over its channels to each: a star.

The active party A runs the pairwise protocol with each passive party k, one after the other; the others are kept
waiting. Then (`Step.COMMON`):

::

    1  A→k  whether more parties take part; if none do, the pairwise alignment is the result
    2  A→k  whether the patients that all share are enough for A's floor, and only if they are, their number
    3  k→A  whether they are enough for k's floor
    4  A→k  whether they are enough for all, and only if they are, the positions of the common patients within the
            pairwise alignment of k, in the common order (that of A's alignment with its first peer), and one hash a
            party
    5  k→A  the digest of it all, after k has found the hash of its own part among those of step 4

**Who learns what**: A learns its overlap with each passive party, and so who is in all of them. A passive party
learns its overlap with A, which of these are shared by all, and their number; nothing about the overlaps of others.
(The ring, to come, hides the pairwise overlaps from all parties.)

**Adversary** and **papers**: those of `pairwise`. In particular A, which says which patients are common, is taken at
its word. A floor judges each pairwise overlap and the common one; a party that pads its set lifts the former over any
floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError, IsthmusError, PolicyRefusal
from ..parties.network.beats import speaking
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from ..parties.table import Identifier
from .alignment import Alignment, common_digest, common_leaf
from .dialogue import OnProgress, await_step, await_verdict
from .linkage import Passes
from .pairwise import align_as_initiator, align_as_responder


def align_active(
    channels: Mapping[str, Channel],
    identifiers: Mapping[str, Identifier],
    passes: Passes,
    *,
    floor: int,
    job_digest: str,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> Alignment:
    """Align the active party's rows with those of all passive parties, over the channels to them.

    With several of them, `on_progress` counts the passes of all. Other arguments and errors:
    `pairwise.align_as_initiator`.
    """
    links = list(channels.values())
    pairwise: list[Alignment] = []
    with ExitStack() as all_waiting:
        waiting = [all_waiting.enter_context(ExitStack()) for _ in links]
        for link, stack in zip(links[1:], waiting[1:], strict=True):
            stack.enter_context(speaking(link, Topic.ALIGN, then=Step.POINTS))
        for link, stack in zip(links, waiting, strict=True):
            stack.close()
            pairwise.append(
                align_as_initiator(
                    link,
                    identifiers,
                    passes,
                    floor=floor,
                    job_digest=job_digest,
                    executor=executor,
                    on_progress=_counted_on(on_progress, len(pairwise), len(links)),
                )
            )
            link.send(Topic.ALIGN, Step.COMMON, {"more": len(links) > 1})  # 1
            if len(links) > 1:
                stack.enter_context(speaking(link, Topic.ALIGN, then=Step.COMMON))
    return _give_common(links, pairwise, floor, job_digest) if len(links) > 1 else pairwise[0]


def align_passive(
    channel: Channel,
    identifiers: Mapping[str, Identifier],
    passes: Passes,
    *,
    floor: int,
    job_digest: str,
    executor: Executor | None = None,
    on_progress: OnProgress | None = None,
) -> Alignment:
    """Align a passive party's rows with those of the active party, and through it with all others.

    Arguments and errors: `pairwise.align_as_initiator`.
    """
    pairwise = align_as_responder(
        channel,
        identifiers,
        passes,
        floor=floor,
        job_digest=job_digest,
        executor=executor,
        on_progress=on_progress,
    )
    more = await_step(channel, Step.COMMON, more=bool).fields["more"]  # 1
    return _take_common(channel, pairwise, floor, job_digest) if more else pairwise


def _give_common(links: Sequence[Channel], pairwise: Sequence[Alignment], floor: int, job_digest: str) -> Alignment:
    """Steps 2 to 5 at the active party."""
    shared = np.logical_and.reduce([np.isin(pairwise[0].rows, each.rows) for each in pairwise])
    rows = pairwise[0].rows[shared]
    enough = len(rows) >= _needed(floor)
    for link in links:
        link.send(Topic.ALIGN, Step.COMMON, {"enough": True, "size": len(rows)} if enough else {"enough": False})  # 2
    if not enough or not len(rows):
        raise _refusal(floor)
    willing = [link for link in links if await_verdict(link, Step.COMMON) is not None]  # 3
    if len(willing) < len(links):
        for link in willing:
            link.send(Topic.ALIGN, Step.COMMON, {"enough": False})
        raise PolicyRefusal("policy.too_few")
    positions = [_positions_of(rows, each.rows) for each in pairwise]
    leaves = [common_leaf(each.digest, places) for each, places in zip(pairwise, positions, strict=True)]
    for link, places in zip(links, positions, strict=True):
        link.send(Topic.ALIGN, Step.COMMON, {"enough": True, "leaves": leaves}, {"positions": places})  # 4
    digest = common_digest(job_digest, leaves)
    for link in links:
        if await_step(link, Step.COMMON, digest=str).fields["digest"] != digest:  # 5
            raise link.refuse(Topic.ALIGN, "the peer holds another alignment")
    return Alignment(rows, digest, tuple(counts for each in pairwise for counts in each.passes))


def _take_common(channel: Channel, pairwise: Alignment, floor: int, job_digest: str) -> Alignment:
    """Steps 2 to 5 at a passive party."""
    verdict = await_verdict(channel, Step.COMMON, size=int)  # 2
    if verdict is None:
        raise PolicyRefusal("policy.too_few")
    size = verdict.fields["size"]
    if not 0 <= size <= len(pairwise.rows):
        raise channel.refuse(Topic.ALIGN, "the common intersection is larger than ours")
    if not size:
        raise _refusal(floor)
    channel.send(Topic.ALIGN, Step.COMMON, {"enough": size >= floor})  # 3
    if size < floor:
        raise PolicyRefusal("policy.too_few")
    message = await_verdict(channel, Step.COMMON, "positions", leaves=list)  # 4
    if message is None:
        raise PolicyRefusal("policy.too_few")
    positions, leaves = message.arrays["positions"], message.fields["leaves"]
    if positions.dtype != np.dtype("<u4") or positions.shape != (size,) or positions.max() >= len(pairwise.rows):
        raise channel.refuse(Topic.ALIGN, "the positions are not those of our alignment")
    if len(np.unique(positions)) != size:
        raise channel.refuse(Topic.ALIGN, "a position is repeated")
    if not all(isinstance(leaf, str) for leaf in leaves) or common_leaf(pairwise.digest, positions) not in leaves:
        raise channel.refuse(Topic.ALIGN, "the common alignment does not hold our part")
    digest = common_digest(job_digest, leaves)
    channel.send(Topic.ALIGN, Step.COMMON, {"digest": digest})  # 5
    return Alignment(pairwise.rows[positions], digest, pairwise.passes)


def _needed(floor: int) -> int:
    """Where any overlap will do, none at all is said openly: it is no secret that is worth a refusal."""
    return floor if floor > 1 else 0


def _refusal(floor: int) -> IsthmusError:
    return PolicyRefusal("policy.too_few") if _needed(floor) else InputError("align.none")


def _positions_of(rows: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.uint32]:
    order = np.argsort(among)
    return order[np.searchsorted(among, rows, sorter=order)].astype(np.uint32)


def _counted_on(told: OnProgress | None, place: int, parties: int) -> OnProgress | None:
    """Number the passes with the party at `place` among those with all parties."""
    if told is None:
        return None

    def tell(number: int, passes: int, done: int, total: int) -> None:
        told(place * passes + number, parties * passes, done, total)

    return tell
