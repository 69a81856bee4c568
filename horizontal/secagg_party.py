"""A party's side of secure aggregation: steps 1, 3, 5, 6 and 8 of `secagg`, each in answer to an order.

Nothing is taken from an order that cannot be checked: what it says of other parties bears their signatures.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from ..parties.errors import PeerFailure, PolicyRefusal
from ..parties.identity import Identity, key_of
from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic
from ..parties.signature import verify
from . import shamir
from .fixed_point import Encoding
from .masks import KEY_NBYTES, KeyPair, Masks, derived, seal, unseal
from .members import send_vector
from .secagg import (
    FEWEST,
    PublicKeys,
    commitment,
    consent_statement,
    digest,
    offer_statement,
    pair_mask_use,
    require,
    roster_digest,
    self_mask_use,
    share_context,
    sum_digest,
    threshold,
)
from .secagg_memory import HeldSum, SumMemory
from .summing import Floats, Sum, order_of


@dataclass(frozen=True)
class _Own:
    """A party's part in one sum until its masked words have left. Its own secrets are nowhere else."""

    one: Sum
    id: bytes
    content: str
    words: Array
    sealing: KeyPair
    masking: KeyPair
    seed: bytes
    public: PublicKeys


@dataclass(frozen=True)
class _Roster:
    """U1 as this party has checked it, and what it has dealt to itself."""

    keys: Mapping[str, PublicKeys]
    digest: bytes
    kept: bytes


class SecureGiving:
    """The party's side with masks. `keys` are the public keys that the party has pinned for its peers.

    `fewest` is the quorum that the job names: a sum over fewer parties is refused, whoever was asked or is left. With
    ten parties, three of whom help the coordinator, a sum over two of these and one more would be that one's numbers.

    What `offer` and `handle` refuse, they raise: `PolicyRefusal` ``secagg.too_few``, ``secagg.repeated``,
    ``secagg.signature``, ``secagg.survivors`` and ``secagg.consent``; `PeerFailure` ``peer.shares`` and
    ``peer.protocol``; `InputError` ``home.key_unknown``, ``update.not_finite`` and ``update.too_large``.
    """

    steps = (Step.ROSTER, Step.INBOX, Step.SURVIVORS, Step.SIGNATURES)

    def __init__(
        self,
        channel: Channel,
        topic: Topic,
        identity: Identity,
        keys: Mapping[str, bytes],
        memory: SumMemory,
        *,
        fewest: int = FEWEST,
    ) -> None:
        self._fewest = max(fewest, FEWEST)
        self._channel, self._topic, self._identity, self._memory = channel, topic, identity, memory
        self._me = channel.me
        self._pinned = {**keys, self._me: identity.public}
        self._latest: tuple[int, int] | None = None  # attempt and number of the sum that was begun last
        self._own: _Own | None = None
        self._roster: _Roster | None = None
        self._held: HeldSum | None = None

    def offer(self, one: Sum, values: Floats, encoding: Encoding, *, data: str = "") -> None:
        """Step 1. What was held for the sum before is erased, so it can never be unmasked with this party's help."""
        me, parties = self._me, one.parties
        if me not in parties or len(set(parties)) < len(parties):
            raise self._channel.refuse(self._topic, "a sum without this party, or with one twice")
        require(len(parties), self._fewest)
        for name in parties:
            key_of(self._pinned, name, party=me)
        if self._latest is not None and (one.attempt, one.number) <= self._latest:
            raise self._channel.refuse(self._topic, "a sum that was begun before")
        content = digest("content", one.content, "" if one.strict else data).hex()
        if one.strict and self._memory.was_given(content):
            raise PolicyRefusal("secagg.repeated", party=me)
        words = encoding.encode(values, me)
        self._memory.forget(self._topic)
        self._latest, self._roster, self._held = (one.attempt, one.number), None, None
        sealing, masking, seed, name_of_sum = KeyPair(), KeyPair(), secrets.token_bytes(KEY_NBYTES), sum_digest(one)
        public = PublicKeys(sealing.public, masking.public, commitment(name_of_sum, me, seed))
        self._own = _Own(one, name_of_sum, content, words, sealing, masking, seed, public)
        signature = self._identity.sign(offer_statement(name_of_sum, me, public))
        self._send(Step.OFFER, one.number, {"keys": list(public), "signature": signature})

    def handle(self, order: Message) -> None:
        """Steps 3, 5, 6 and 8."""
        if type(order.fields.get("sum")) is not int:
            raise self._channel.refuse(self._topic, "an order without a number")
        act = {
            Step.ROSTER: self._deal,
            Step.INBOX: self._mask,
            Step.SURVIVORS: self._consent,
            Step.SIGNATURES: self._unmask,
        }
        act[order.step](order)

    def _deal(self, order: Message) -> None:
        """Steps 2 and 3: check everyone's keys, give everyone a share of ours."""
        own = self._current(order, due=self._roster is None)
        found = self._map(order, "roster")
        keys: dict[str, PublicKeys] = {}
        for name in order_of(list(found), own.one.parties):
            public = self._signed_keys(own, name, found[name])
            if public is None or (name == self._me and public != own.public):
                raise PolicyRefusal("secagg.signature", party=self._me, peer=name)
            keys[name] = public
        if len(keys) < len(found) or self._me not in keys:
            raise self._channel.refuse(self._topic, "a roster of other parties")
        require(len(keys), threshold(len(own.one.parties)))
        if len({key for public in keys.values() for key in public}) < 3 * len(keys):
            raise self._channel.refuse(self._topic, "a roster in which a key stands twice")
        points = {name: own.one.parties.index(name) + 1 for name in keys}
        allowed = threshold(len(own.one.parties))
        seeds = shamir.split(own.seed, list(points.values()), allowed)
        masks = shamir.split(own.masking.private, list(points.values()), allowed)
        shares = {name: seeds[point] + masks[point] for name, point in points.items()}
        roster = _Roster(keys, roster_digest(own.id, keys, own.one.parties), shares.pop(self._me))
        sealed = {}
        for name, share in shares.items():
            key, context = self._seal_of(own, roster, sender=self._me, receiver=name)
            sealed[name] = seal(key, share, context)
        self._roster = roster
        self._send(Step.SHARES, own.one.number, {"sealed": sealed})

    def _mask(self, order: Message) -> None:
        """Steps 4 and 5: open what the others dealt, write it down, and only then send the masked words."""
        own, roster, me = self._current(order, due=self._roster is not None), self._roster, self._me
        assert roster is not None
        sealed = self._map(order, "sealed")
        if me in sealed or not set(sealed) <= set(roster.keys):
            raise self._channel.refuse(self._topic, "an inbox of other parties")
        dealt = order_of([*sealed, me], own.one.parties)
        require(len(dealt), threshold(len(own.one.parties)))
        shares = {me: roster.kept}
        for name, box in sealed.items():
            key, context = self._seal_of(own, roster, sender=name, receiver=me)
            share = unseal(key, box, context) if isinstance(box, bytes) else None
            if share is None or len(share) != 2 * shamir.SHARE_NBYTES:
                raise PeerFailure("peer.shares", party=me, peer=name)
            shares[name] = share
        masks = [(derived(own.seed, *self_mask_use(own.id, me)), True)]
        masks += [(self._pair_key(own, roster, name), dealt.index(me) < dealt.index(name)) for name in sealed]
        self._held = HeldSum(
            own.id, own.content, own.one.strict, own.one.parties, roster.digest, dealt,
            seeds={name: shares[name][: shamir.SHARE_NBYTES] for name in dealt},
            keys={name: shares[name][shamir.SHARE_NBYTES :] for name in dealt},
        )  # fmt: skip
        self._memory.hold(self._topic, self._held)
        self._own = self._roster = None
        Masks(masks, own.words.dtype.str).apply(own.words)
        send_vector(self._channel, self._topic, Step.MASKED, own.one.number, own.words)

    def _consent(self, order: Message) -> None:
        """Step 6: one list of survivors for each sum. Without an answer of value where nothing is held of the sum."""
        held, number = self._held_of(order), order.fields["sum"]
        if held is None:
            self._send(Step.CONSENT, number, {})
            return
        listed = order.fields.get("survivors")
        survivors = order_of(listed, held.dealt) if isinstance(listed, list) else ()
        if list(survivors) != listed or self._me not in survivors or held.survivors not in (None, survivors):
            raise PolicyRefusal("secagg.survivors", party=self._me)
        require(len(survivors), max(threshold(len(held.asked)), self._fewest))
        if held.survivors is None:
            self._held = held = held.signed(survivors)
            self._memory.hold(self._topic, held)
        signature = self._identity.sign(consent_statement(held.one, held.roster, held.dealt, survivors))
        self._send(Step.CONSENT, number, {"signature": signature})

    def _unmask(self, order: Message) -> None:
        """Steps 7 and 8: if enough have signed the very same list, one share of each party."""
        held, me = self._held_of(order), self._me
        if held is None or held.survivors is None:
            raise self._channel.refuse(self._topic, "signatures that are not due")
        signatures, allowed = self._map(order, "signatures"), threshold(len(held.asked))
        statement = consent_statement(held.one, held.roster, held.dealt, held.survivors)
        count = 0
        for name in order_of(list(signatures), held.survivors):
            signature = signatures[name]
            count += isinstance(signature, bytes) and verify(self._key(name), signature, statement)
        if count < allowed:
            raise PolicyRefusal("secagg.consent", party=me, count=count, allowed=allowed)
        if not self._memory.may_give(held):
            raise PolicyRefusal("secagg.repeated", party=me)
        seeds = {name: held.seeds[name] for name in held.survivors}
        keys = {name: held.keys[name] for name in held.dealt if name not in held.survivors}
        self._send(Step.UNMASK, order.fields["sum"], {"seeds": seeds, "keys": keys})

    def _current(self, order: Message, *, due: bool) -> _Own:
        if self._own is None or order.fields["sum"] != self._own.one.number or not due:
            raise self._channel.refuse(self._topic, f"{order.step} is not due")
        return self._own

    def _held_of(self, order: Message) -> HeldSum | None:
        """What is held of the sum that an order names; from the run folder after a restart."""
        if self._held is None and self._own is None:
            self._held = self._memory.held(self._topic)
        return self._held if self._held is not None and order.fields.get("id") == self._held.one else None

    def _signed_keys(self, own: _Own, name: str, entry: object) -> PublicKeys | None:
        """An entry of the roster; None if its signature is not that of `name` for this sum."""
        match entry:
            case [*content, bytes(signature)] if (keys := PublicKeys.of(content)) is not None:
                statement = offer_statement(own.id, name, keys)
                return keys if verify(self._key(name), signature, statement) else None
        return None

    def _key(self, name: str) -> bytes:
        return key_of(self._pinned, name, party=self._me)

    def _seal_of(self, own: _Own, roster: _Roster, *, sender: str, receiver: str) -> tuple[bytes, bytes]:
        """The key and the context of what is sealed between this party and another."""
        peer = receiver if sender == self._me else sender
        secret = self._agreed(own.sealing, roster.keys[peer].sealing, peer)
        return derived(secret, "seal", own.id, sender, receiver), share_context(own.id, roster.digest, sender, receiver)

    def _pair_key(self, own: _Own, roster: _Roster, peer: str) -> bytes:
        secret = self._agreed(own.masking, roster.keys[peer].masking, peer)
        return derived(secret, *pair_mask_use(own.id, self._me, peer))

    def _agreed(self, pair: KeyPair, public: bytes, peer: str) -> bytes:
        try:
            return pair.agree(public)
        except ValueError as failure:  # a point of small order: its owner wants all to know the secret
            raise PeerFailure("peer.shares", party=self._me, peer=peer) from failure

    def _map(self, order: Message, field: str) -> dict[str, object]:
        content = order.fields.get(field)
        if not isinstance(content, dict):
            raise self._channel.refuse(self._topic, f"{order.step} without {field}")
        return content

    def _send(self, step: Step, number: int, fields: Mapping[str, object]) -> None:
        self._channel.send(self._topic, step, {"sum": number, **fields})
