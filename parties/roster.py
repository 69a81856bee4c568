"""The roster: who is in a consortium and by which keys, in one file that its own members sign.

1. Every member makes its keys at home and hands over the public half (`isthmus init`).
2. Whoever keeps the roster puts the halves together. Each member that agrees signs the canonical bytes with Ed25519.
3. With the signatures of `threshold` of its own members, not revoked, a roster is complete. A member that has pinned
   none yet compares the digest with another member, by voice, and pins it (`consortium`).
4. A later version follows a pinned one when `threshold` of the **pinned** version's members, by their keys there and
   not revoked there, have signed it, and when it is complete by itself. Versions only rise.

Who learns what: members and exchanges see the whole roster; it holds nothing secret. Adversary: whoever carries the
file (its keeper, the mail, a server) may alter, hold back or replay it, and fewer than `threshold` members may help.
They can keep a member at the version that it has pinned, and nothing else. Signatures have no date, so validity does
not bind them: members whose time is over can still sign the version that renews them. Signature: RFC 8032.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from .certificate import TLS_NAME, expires, fingerprint, subject
from .errors import InputError
from .files import write_whole
from .home import NAME_PATTERN
from .signature import is_everybodys, verify
from .strict_yaml import read_part, yaml_text

TOLERANCE = timedelta(days=1)  # clocks differ; and `until` is a day, wherever in the world it ends
_CONTEXT = b"isthmus roster v1\n"
_HEADER = """\
# The roster of an isthmus consortium: its members and exchanges with the keys that all others believe. Nothing in it is
# secret. Do not edit a signed one: every change breaks its signatures. `isthmus consortium --help` says how it changes.
"""


def _day(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return date.fromisoformat(value)
    if type(value) is date:
        return value
    raise ValueError("this has to be a day such as 2027-01-31")


def _moment(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", value):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is UTC and not value.microsecond:
        return value
    raise ValueError("this has to be a time such as 2027-01-31T12:00:00Z")


def _moment_text(value: datetime) -> str:
    return value.replace(tzinfo=None).isoformat() + "Z"


def _pinnable(text: str) -> str:
    """One self-signed certificate over P-256 for `TLS_NAME` alone, as PEM and nothing around it."""
    try:
        certificate = x509.load_pem_x509_certificate(text.encode("ascii"))
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        if text.strip() != pem.strip():
            raise ValueError("something stands around it")
        certificate.verify_directly_issued_by(certificate)
        key = certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound) as failure:
        raise ValueError("this is not one self-signed certificate in PEM form") from failure
    except x509.DuplicateExtension as failure:
        raise ValueError("this certificate says a thing twice") from failure
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key of this certificate is not ECDSA over P-256")
    if list(names) != [x509.DNSName(TLS_NAME)]:
        raise ValueError(f"the only name of this certificate has to be DNS:{TLS_NAME}")
    return pem


def _address(value: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,39}\]):(\d{1,5})", value)
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError("this has to be HOST:PORT, such as exchange.example.org:9443")
    return value


def _own_key(value: str) -> str:
    if is_everybodys(bytes.fromhex(value)):
        raise ValueError("anybody can sign under this key")
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), AfterValidator(_own_key)]
Certified = Annotated[str, AfterValidator(_pinnable)]
Address = Annotated[str, AfterValidator(_address)]
Day = Annotated[date, BeforeValidator(_day)]
Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(_moment_text)]


class Part(BaseModel):
    """A part of a roster: no other fields than these, and none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(Part):
    """What all others believe of one member. `key` is its Ed25519 key in hex, `certificate` its TLS certificate."""

    role: Literal["party", "coordinator"]
    key: Key
    certificate: Certified
    until: Day
    revoked: Moment | None = None

    @model_validator(mode="after")
    def _certified_until_then(self) -> Member:
        if self.until > expires(self.certificate.encode()).date():
            raise ValueError("`until` is later than the end of the certificate")
        return self

    @property
    def public(self) -> bytes:
        """The raw Ed25519 key, 32 bytes."""
        return bytes.fromhex(self.key)

    def expired(self, now: datetime) -> bool:
        """Whether the day `until` (UTC) and the day of tolerance after it are over."""
        # This way round: there is no day after the calendar's last one.
        return now - timedelta(days=1) - TOLERANCE >= datetime.combine(self.until, time(), UTC)


class ExchangeEntry(Part):
    """Where an exchange listens, and by which certificate it is known."""

    address: Address
    certificate: Certified


class Roster(Part):
    """The members and exchanges of a consortium, in one version, with what its members signed."""

    consortium: Name
    version: Annotated[int, Field(strict=True, ge=1, lt=2**31)]
    threshold: Annotated[int, Field(strict=True, ge=1)]
    exchanges: dict[Name, ExchangeEntry] = Field(default_factory=dict)
    members: dict[Name, Member]
    signatures: dict[Name, Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _makes_sense(self) -> Roster:
        entries: list[Member | ExchangeEntry] = [*self.members.values(), *self.exchanges.values()]
        if twice := _twice(member.key for member in self.members.values()):
            raise ValueError(f"two members have the key {twice}")
        if twice := _twice(fingerprint(entry.certificate.encode()) for entry in entries):
            raise ValueError(f"two entries have the certificate {twice}")
        # TLS looks a trusted certificate up by its subject: whoever copies that of another locks the other out.
        if _twice(subject(entry.certificate.encode()) for entry in entries):
            raise ValueError("two entries have certificates of the same subject")
        if self.threshold > (allowed := len(self.members) - len(self.revoked)):
            raise ValueError(f"threshold is {self.threshold}, and members that are not revoked are {allowed}")
        return self

    @classmethod
    def read(cls, path: Path) -> Roster:
        """The roster in a file, whoever signed it. Raises `InputError` ``roster.missing`` and ``roster.invalid``."""
        return read_part(cls, path)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises `InputError` ``disk.full`` and ``disk.denied``."""
        content = self.model_dump(mode="json")
        for member in content["members"].values():
            if member["revoked"] is None:
                del member["revoked"]
        write_whole(path, (_HEADER + yaml_text(content)).encode())

    def canonical(self) -> bytes:
        """What members sign: everything but the signatures, as JSON in one form only."""
        content = self.model_dump(mode="json", exclude={"signatures"})
        return _CONTEXT + json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")

    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hex: what members compare, and pin."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def signers(self, by: Roster | None = None) -> tuple[str, ...]:
        """Members of the roster `by` (this one if none is given) whose signature is here and good, by their keys there.

        Members that are revoked there do not count.
        """
        signed, members = self.canonical(), (by or self).members
        return tuple(
            name
            for name, signature in sorted(self.signatures.items())
            if name in members and members[name].revoked is None
            if verify(members[name].public, bytes.fromhex(signature), signed)
        )

    def check_complete(self) -> None:
        """Raise `InputError` ``roster.signatures`` unless `threshold` of its own members have signed."""
        self._check_signers(self)

    def check_later(self, pinned: Roster) -> None:
        """Raise unless this is the pinned roster or a later version of it, whoever signed it.

        Raises `InputError` ``roster.older``, and ``roster.invalid`` for that of another consortium.
        """
        if self.consortium != pinned.consortium:
            problem = f"it is not that of '{pinned.consortium}'"
            raise InputError("roster.invalid", field="consortium", problem=problem)
        if self.version <= pinned.version and self.digest() != pinned.digest():
            raise InputError("roster.older", version=self.version, pinned=pinned.version)

    def check_follows(self, pinned: Roster) -> None:
        """Raise unless this roster may take the place of a pinned one, or is the same.

        Raises `InputError` as `check_later` does, and ``roster.signatures``.
        """
        self.check_later(pinned)
        if self.digest() != pinned.digest():
            self._check_signers(pinned)
        self.check_complete()

    @property
    def revoked(self) -> frozenset[str]:
        """The names of revoked members."""
        return frozenset(name for name, member in self.members.items() if member.revoked is not None)

    def _check_signers(self, by: Roster) -> None:
        have, need = len(self.signers(by)), by.threshold
        if have < need:
            raise InputError("roster.signatures", have=have, need=need, version=by.version)


def _twice(values: Iterable[str]) -> str:
    return next((value for value, count in Counter(values).items() if count > 1), "")
