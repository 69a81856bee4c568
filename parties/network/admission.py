"""Who may use an exchange, and what a stream has to say when it opens. See `exchange` for the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import grpc
from cryptography import x509

from .frame import NAME_NBYTES
from .metrics import LANES

VERSION = "1"
_ROOM = re.compile(r"[0-9a-f]{32}")
_EPOCH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Admitted:
    """Who may use the exchange: members' certificates by name, PEM, and which of them may not, or no longer."""

    members: Mapping[str, bytes]
    revoked: frozenset[str] = frozenset()
    expired: frozenset[str] = frozenset()  # by the roster; a certificate's own end counts as well
    version: int | None = None  # of the roster, if there is one


class RefusedError(Exception):
    """Why a stream is not opened, or is cut: a status and the word that goes with it."""

    def __init__(self, code: grpc.StatusCode, word: str) -> None:
        super().__init__(word)
        self.code, self.word = code, word


def denied(word: str) -> RefusedError:
    """``revoked``, ``expired`` or ``unknown``: what the certificate says."""
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, word)


def invalid(word: str) -> RefusedError:
    """``metadata``, ``frame`` or ``source``: which rule the member broke."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, word)


class Directory:
    """`Admitted`, ready to be looked up. Raises `ValueError` for what is no certificate."""

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        self._names = {x509.load_pem_x509_certificate(pem): name for name, pem in admitted.members.items()}
        self.padded = frozenset(padded(name) for name in (*admitted.members, *admitted.revoked))

    def member(self, certificate: x509.Certificate) -> str:
        """Whose certificate this very one is, if it is valid now; raises `RefusedError`."""
        name = self._names.get(certificate)
        if name is None:
            raise denied("unknown")
        if name in self.admitted.revoked:
            raise denied("revoked")
        if name in self.admitted.expired or certificate.not_valid_after_utc < datetime.now(UTC):
            raise denied("expired")
        return name


class Introduction(NamedTuple):
    """What a stream says when it opens."""

    room: str
    lane: str
    epoch: int


def introduction(metadata: Iterable[tuple[str, str | bytes]]) -> Introduction:
    """Read a stream's metadata; raises `RefusedError`."""
    said = [(key, value) for key, value in metadata if key.startswith("isthmus-")]
    facts = {key: str(value) for key, value in said}
    room, lane, epoch = (facts.get(f"isthmus-{name}", "") for name in ("room", "lane", "epoch"))
    if len(said) != len(facts) or facts.get("isthmus-version") != VERSION or lane not in LANES:
        raise invalid("metadata")
    if not _ROOM.fullmatch(room) or not _EPOCH.fullmatch(epoch):
        raise invalid("metadata")
    return Introduction(room, lane, int(epoch))


def padded(name: str) -> bytes:
    """A member's name as frames hold it."""
    return name.encode("ascii").ljust(NAME_NBYTES, b"\0")
