"""Secure aggregation: the coordinator C learns a sum over parties k and no summand, even if some drop out on the way.

Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS), section 4 with the
complete graph and the variant against an active server. With n parties asked, at least t = ⌊2n/3⌋ + 1 must be left in
every step: of 3 none may drop out, of 5 one, of 10 three. U1 ⊇ U2 ⊇ U3 are those that were ready in time for a step.

::

    0  C→k  a request, which the caller sends: what to add up. It numbers the sum
    1  k→C  OFFER       two fresh X25519 public keys, one to seal with and one to mask with, and the digest of a fresh
                        seed b; signed over the sum and k's name with the key that the others have pinned
    2  C→k  ROSTER      U1's keys and signatures. k refuses a signature that is not the party's own, a foreign key in
                        its own name, a key that stands there twice
    3  k→C  SHARES      for each party of U1: Shamir shares of k's masking key and of b, sealed for that party
    4  C→k  INBOX       what U2 sealed for k. k writes it down, for the case that k or C is killed
    5  k→C  MASKED      k's words + PRG(b) ± PRG(secret of k and l) for all l of U2: added by the earlier one of the
                        two, taken away by the later one, so that these masks leave the sum of all
       C                adds them up (U3), writes that down
    6  C→k  SURVIVORS   U3. k refuses one that is no part of U2, is too small, or differs from the one it signed before
       k→C  CONSENT     k's signature over the sum, U1's keys, U2 and U3
    7  C→k  SIGNATURES  those of U3. k refuses fewer than t good ones
    8  k→C  UNMASK      shares of b for the parties of U3, of the masking key for those of U2 that are not in U3
       C                puts b and these keys together, checks them against OFFER, takes all masks away

**Who learns what**: C learns the sum over U3, who was ready for which step, and nothing else about the numbers. Parties
learn who takes part. The weights of a weighted mean are the caller's business: they travel inside the vector.

**Adversary**: C may do what it likes together with fewer than a third of the parties asked. Of a party's b and masking
key at most one can be put together, since t > 2n/3 of the parties signed one and the same U3; replayed keys of an
earlier sum are not in the roster that they signed. Those asked and those in U3 are never fewer than the quorum that a
party was made with. That they are parties of the job, and that all were told the same (`Sum.terms`), is for the caller
to see to. A party that lies about its own numbers is not found out (no robust aggregator works on masked numbers); one
that lies about shares makes the sum fail, and is named where that can be known.

**Repetition**: two sums over the same content with one party fewer give away that party. So a party keeps the digest of
every content that it helped to unmask, over all jobs, and helps no second time (`Sum.strict`). That holds against a
repetition of the same model. It cannot tell that a model was altered by a trifle in order to be asked again.

**Killed and started again**: what k holds since step 4 and what C holds since step 5 lies in their run folders
(`secagg_memory`). C goes on at step 6 with the old sum; k gives the very same shares as before, or none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..parties.errors import PolicyRefusal
from .masks import KEY_NBYTES, framed
from .summing import Sum

FEWEST = 3  # with two, each would learn the other's numbers from the sum
SIGNATURE_NBYTES = 64


def threshold(parties: int) -> int:
    """How many of the parties asked have to be left in every step: ⌊2n/3⌋ + 1."""
    return 2 * parties // 3 + 1


def require(count: int, allowed: int) -> None:
    """Raise `PolicyRefusal` ``secagg.too_few`` for fewer than are allowed."""
    if count < allowed:
        raise PolicyRefusal("secagg.too_few", count=count, allowed=allowed)


class PublicKeys(NamedTuple):
    """What a party announces for one sum: 32 bytes each."""

    sealing: bytes
    masking: bytes
    commitment: bytes  # the digest of the seed of its own mask

    @classmethod
    def of(cls, value: object) -> PublicKeys | None:
        """From a message; None if it is something else."""
        match value:
            case [bytes(sealing), bytes(masking), bytes(commitment)]:
                keys = cls(sealing, masking, commitment)
                return keys if all(len(key) == KEY_NBYTES for key in keys) else None
        return None


def digest(*parts: bytes | str) -> bytes:
    """SHA-256 of parts that cannot be mistaken for other parts."""
    return hashlib.sha256(framed("isthmus secagg 1", *parts)).digest()


def sum_digest(one: Sum) -> bytes:
    """What names one sum: whatever is signed, sealed or derived for it is bound to this."""
    rule = "strict" if one.strict else "repeatable"
    return digest("sum", one.job, str(one.attempt), str(one.number), one.content, one.terms, rule, *one.parties)


def commitment(one: bytes, party: str, seed: bytes) -> bytes:
    """The digest of a seed, which C checks what it puts together against."""
    return digest("seed", one, party, seed)


def offer_statement(one: bytes, party: str, keys: PublicKeys) -> bytes:
    """What a party signs with its keys."""
    return framed("isthmus secagg 1", "offer", one, party, *keys)


def roster_digest(one: bytes, roster: Mapping[str, PublicKeys], parties: Sequence[str]) -> bytes:
    """U1 with all keys, in the order of the parties asked."""
    return digest("roster", one, *(part for name in parties if name in roster for part in (name, *roster[name])))


def consent_statement(one: bytes, roster: bytes, dealt: Sequence[str], survivors: Sequence[str]) -> bytes:
    """What a party signs before it helps to unmask: the sum, U1's keys by their digest, U2 and U3."""
    return framed("isthmus secagg 1", "consent", one, roster, framed(*dealt), framed(*survivors))


def share_context(one: bytes, roster: bytes, sender: str, receiver: str) -> bytes:
    """What sealed shares are bound to."""
    return framed("share", one, roster, sender, receiver)


def self_mask_use(one: bytes, party: str) -> tuple[bytes | str, ...]:
    """What the key of a party's own mask is derived for."""
    return "self", one, party


def pair_mask_use(one: bytes, left: str, right: str) -> tuple[bytes | str, ...]:
    """What the key of the mask of two parties is derived for, whichever derives it."""
    return "pair", one, *sorted((left, right))
