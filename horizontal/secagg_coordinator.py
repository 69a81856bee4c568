"""The coordinator's side of secure aggregation: steps 2, 4, 6, 7 and the unmasking of `secagg`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..parties.errors import PeerFailure
from ..parties.network.message import Array, Message, Step, Topic
from . import shamir
from .fixed_point import ENCODINGS, Encoding
from .masks import TAG_NBYTES, KeyPair, Masks, derived
from .members import Members
from .secagg import (
    FEWEST,
    SIGNATURE_NBYTES,
    PublicKeys,
    commitment,
    pair_mask_use,
    require,
    self_mask_use,
    sum_digest,
    threshold,
)
from .secagg_memory import Pending, PendingFile
from .summing import Gathered, Sum, order_of

SEALED_NBYTES = 2 * shamir.SHARE_NBYTES + TAG_NBYTES  # what one party seals for another


class SecureGathering:
    """The coordinator's side with masks; `folder` is its folder of the run, `party` its name.

    Raises `PolicyRefusal` ``secagg.too_few`` where fewer than three parties are asked, and `PeerFailure`
    ``peer.shares`` where the shares of a party do not give what it announced.
    """

    def __init__(self, folder: Path, *, party: str) -> None:
        self._file, self._party = PendingFile(folder, party=party), party

    def gather(
        self,
        members: Members,
        topic: Topic,
        one: Sum,
        size: int,
        encoding: Encoding,
        *,
        deadline_s: float,
        fewest: int = 1,
    ) -> Gathered:
        """Add up. Each step has `deadline_s`; whoever misses one is left out of the steps after it."""
        require(len(one.parties), FEWEST)
        self._file.erase(topic)
        allowed, nothing = max(fewest, threshold(len(one.parties))), Gathered(np.zeros(size), ())
        offers = members.hear(one.parties, topic, Step.OFFER, one.number, deadline=_until(deadline_s), accept=_is_offer)
        if len(offers) < allowed:
            return nothing
        roster = {name: [*offers[name].fields["keys"], offers[name].fields["signature"]] for name in offers}
        members.tell(offers, topic, Step.ROSTER, one.number, {"roster": roster})
        shares = members.hear(
            offers, topic, Step.SHARES, one.number, deadline=_until(deadline_s),
            accept=lambda name, message: _is_map_of(message, "sealed", set(offers) - {name}, SEALED_NBYTES),
        )  # fmt: skip
        if len(shares) < allowed:
            return nothing
        inboxes = {
            name: {other: shares[other].fields["sealed"][name] for other in shares if other != name} for name in shares
        }
        members.tell_each(
            {name: ({"sealed": inbox}, {}) for name, inbox in inboxes.items()}, topic, Step.INBOX, one.number
        )
        total: Array = np.zeros(encoding.words(size), dtype=encoding.dtype)
        survivors: list[str] = []
        for name, words in members.hear_vectors(
            shares, topic, Step.MASKED, one.number, len(total), encoding.dtype, deadline=_until(deadline_s)
        ):
            total += words
            survivors.append(name)
        if len(survivors) < allowed:
            return nothing
        keys = {name: PublicKeys(*roster[name][:-1]) for name in roster}
        dealt, left = order_of(list(shares), one.parties), order_of(survivors, one.parties)
        pending = Pending(one, size, encoding.name, keys, dealt, left, total)
        self._file.write(topic, pending)
        return self._unmasked(members, topic, one.number, pending, deadline_s)

    def pending(self, topic: Topic) -> Sum | None:
        """The sum that was added up last and perhaps never unmasked: C or too many parties were stopped in between.

        If its content is what the caller is about to ask for, `resume` is the only way to it: parties that have
        helped to unmask it will not do so for another sum over the same content.
        """
        found = self._file.read(topic)
        return found.one if found else None

    def resume(self, members: Members, topic: Topic, number: int, *, deadline_s: float) -> Gathered:
        """Go on with the pending sum, before any other sum of the topic is begun. `number` counts this exchange.

        Its survivors are those of then, and enough of them have to be there again. Without a pending sum, or with too
        few that still hold its shares, there are no survivors.
        """
        pending = self._file.read(topic)
        if pending is None:
            return Gathered(np.zeros(0), ())
        return self._unmasked(members, topic, number, pending, deadline_s)

    def forget(self, topic: Topic) -> None:
        """Erase the pending sum: the run is closed, or starts over."""
        self._file.erase(topic)

    def _unmasked(self, members: Members, topic: Topic, number: int, pending: Pending, deadline_s: float) -> Gathered:
        """Steps 6 to 8, then the sum itself."""
        one, nothing = pending.one, Gathered(np.zeros(pending.size), ())
        allowed, name_of_sum = threshold(len(one.parties)), sum_digest(one)
        asked = {"id": name_of_sum, "survivors": list(pending.survivors)}
        members.tell(pending.survivors, topic, Step.SURVIVORS, number, asked)
        consents = members.hear(
            pending.survivors, topic, Step.CONSENT, number, deadline=_until(deadline_s), accept=_is_consent
        )
        signatures = {name: m.fields["signature"] for name, m in consents.items() if "signature" in m.fields}
        if len(signatures) < allowed:
            return nothing
        members.tell(signatures, topic, Step.SIGNATURES, number, {"id": name_of_sum, "signatures": signatures})
        lost = [name for name in pending.dealt if name not in pending.survivors]
        answers = members.hear(
            signatures, topic, Step.UNMASK, number, deadline=_until(deadline_s),
            accept=lambda _, message: _is_map_of(message, "seeds", set(pending.survivors), shamir.SHARE_NBYTES)
            and _is_map_of(message, "keys", set(lost), shamir.SHARE_NBYTES),
        )  # fmt: skip
        if len(answers) < allowed:
            return nothing
        keys = self._masks(pending, name_of_sum, {name: answers[name] for name in list(answers)[:allowed]})
        encoding, words = ENCODINGS[pending.encoding], pending.words
        Masks(keys, encoding.dtype).apply(words)
        return Gathered(encoding.decode(words, pending.size), pending.survivors)

    def _masks(self, pending: Pending, one: bytes, answers: Mapping[str, Message]) -> list[tuple[bytes, bool]]:
        """The keys of all masks that are in the sum, each with whether to add it so that it is gone."""
        asked, roster = pending.one.parties, pending.roster
        places = {name: place for place, name in enumerate(asked)}
        combiner = shamir.Combiner([places[name] + 1 for name in answers])

        def combined(field: str, owner: str) -> bytes:
            secret = combiner.combine({places[name] + 1: m.fields[field][owner] for name, m in answers.items()})
            if secret is None:
                raise self._wrong_shares(owner)
            return secret

        keys = []
        for name in pending.survivors:
            seed = combined("seeds", name)
            if commitment(one, name, seed) != roster[name].commitment:
                raise self._wrong_shares(name)
            keys.append((derived(seed, *self_mask_use(one, name)), False))
        for lost in (name for name in pending.dealt if name not in pending.survivors):
            pair = KeyPair(combined("keys", lost))
            if pair.public != roster[lost].masking:
                raise self._wrong_shares(lost)
            for name in pending.survivors:
                secret = pair.agree(roster[name].masking)
                keys.append((derived(secret, *pair_mask_use(one, lost, name)), places[lost] < places[name]))
        return keys

    def _wrong_shares(self, owner: str) -> PeerFailure:
        return PeerFailure("peer.shares", party=self._party, peer=owner)


def _until(deadline_s: float) -> float:
    return time.monotonic() + deadline_s


def _is_offer(_: str, message: Message) -> bool:
    signature = message.fields.get("signature")
    return (
        PublicKeys.of(message.fields.get("keys")) is not None
        and isinstance(signature, bytes)
        and len(signature) == SIGNATURE_NBYTES
    )


def _is_consent(_: str, message: Message) -> bool:
    signature = message.fields.get("signature", bytes(SIGNATURE_NBYTES))
    return isinstance(signature, bytes) and len(signature) == SIGNATURE_NBYTES


def _is_map_of(message: Message, field: str, names: set[str], nbytes: int | None = None) -> bool:
    """Whether a field holds bytes for each of the names and for no other."""
    content = message.fields.get(field)
    return (
        isinstance(content, dict)
        and set(content) == names
        and all(isinstance(value, bytes) and nbytes in (None, len(value)) for value in content.values())
    )
