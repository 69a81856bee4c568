"""Which rows are the same patient: private set intersection.

`linkage` turns identifiers into keys, pass by pass; `cipher` enciphers keys so that the order of two parties' secrets
does not matter; `pairwise` is the protocol between two parties, `star` that of one active party with several passive
ones. What comes out is an `Alignment`: the positions of a party's own rows, in an order that all parties share, and a
digest of it.

`matching` compares enciphered values, `dialogue` is how two sides talk at the same time. Each protocol's docstring
numbers its messages and says who learns what.
"""

from __future__ import annotations

from .alignment import Alignment, PassCounts
from .linkage import unreadable_dates
from .pairwise import align_as_initiator, align_as_responder
from .star import align_active, align_passive

__all__ = [
    "Alignment",
    "PassCounts",
    "align_active",
    "align_as_initiator",
    "align_as_responder",
    "align_passive",
    "unreadable_dates",
]
