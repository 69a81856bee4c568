"""What a party or an exchange has accepted of its consortium: one version of the roster, pinned by its digest.

::

    lab/
      roster.yaml        the accepted roster (`roster`)
      roster.pin         its version and digest, as JSON
      roster.next.yaml   a later one, while it is being accepted
      roster.lock        held meanwhile

Nothing is believed at first sight: the first roster is pinned only against a digest that another member has read out.
A later one is pinned when enough members of the pinned one have signed it. Every load verifies everything again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import filelock
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_pem_x509_certificate
from pydantic import Field, ValidationError

from .certificate import fingerprint
from .errors import InputError, disk_errors
from .files import write_whole
from .home import NEXT_ROSTER_FILE, PIN_FILE, ROSTER_FILE, PartyHome
from .identity import Identity
from .roster import ExchangeEntry, Member, Part, Roster

LOCK_FILE = "roster.lock"
LOCK_TIMEOUT_S = 30.0
_PIN_MOST_NBYTES = 1000


class Consortium:
    """The consortium of one party, as its accepted roster says it. `me` is the party's own name."""

    def __init__(self, roster: Roster, me: str) -> None:
        self.roster, self.me = roster, me
        self.name, self.version, self.digest = roster.consortium, roster.version, roster.digest()

    def member(self, name: str) -> Member:
        """What the roster says of a member. Raises `InputError` ``roster.member_unknown``."""
        if name not in self.roster.members:
            raise InputError("roster.member_unknown", party=self.me, peer=name)
        return self.roster.members[name]

    def key_of(self, peer: str, now: datetime | None = None) -> bytes:
        """The Ed25519 key, 32 bytes, of a member that may take part now.

        Raises `InputError` ``roster.member_unknown``, ``roster.revoked`` and ``roster.expired``.
        """
        member = self.member(peer)
        if member.revoked is not None:
            raise InputError("roster.revoked", party=self.me, peer=peer)
        if member.expired(now or datetime.now(UTC)):
            raise InputError("roster.expired", party=self.me, peer=peer)
        return member.public

    def exchange(self, name: str | None = None) -> ExchangeEntry:
        """Where to connect to. Without a name, the only exchange. Raises `InputError` ``roster.exchange_unknown``."""
        exchanges = self.roster.exchanges
        if name is None and len(exchanges) == 1:
            return next(iter(exchanges.values()))
        if name is None or name not in exchanges:
            name = name or "(no name given)"
            raise InputError("roster.exchange_unknown", party=self.me, name=name, count=len(exchanges))
        return exchanges[name]

    def check_self(self, home: PartyHome, now: datetime | None = None) -> None:
        """Raise unless the home holds the keys that all others know of it, and it may take part now. Writes nothing.

        Raises `InputError` as `key_of` does, ``roster.key_differs``, and those of the home's key files.
        """
        home.identity_key()  # there, and not made now, where the home has accepted no roster yet
        if Identity(home).public != self.key_of(home.name, now):
            raise InputError("roster.key_differs", party=home.name, field="identity key")
        rostered = self.member(home.name).certificate.encode()
        check_certificate(rostered, home.tls_certificate(), home.tls_key(), party=home.name)


def consortium_of(home: PartyHome) -> Consortium | None:
    """The consortium that a home belongs to; None for one that has accepted no roster.

    Raises `InputError` as `pinned` does.
    """
    roster = pinned(home.folder)
    return None if roster is None else Consortium(roster, home.name)


def peer_keys(home: PartyHome, consortium: Consortium | None) -> dict[str, bytes]:
    """The Ed25519 keys that a home believes, by name: of its roster's members that may take part now.

    A home without a roster has them under `keys:` in its party.yaml.
    """
    if consortium is None:
        return {name: bytes.fromhex(key) for name, key in home.config.keys.items()}
    now = datetime.now(UTC)
    members = consortium.roster.members.items()
    return {name: member.public for name, member in members if member.revoked is None and not member.expired(now)}


def pinned(folder: Path) -> Roster | None:
    """The roster that the party or the exchange of a folder has accepted; None if it has accepted none.

    A roster without a pin is not taken for none, whoever has removed the pin. Raises `InputError` ``roster.missing``,
    ``roster.invalid``, ``roster.altered`` and ``roster.signatures``.
    """
    if _read_pin(folder) is None:
        if not any((folder / name).exists() for name in (ROSTER_FILE, NEXT_ROSTER_FILE)):
            return None
        if _read_pin(folder) is None:  # the first one has not just been accepted either
            raise InputError("roster.altered", party=folder.name)
    failure = InputError("roster.altered", party=folder.name)
    # Another process may be in the midst of `accept`, or have died there: then the pin is that of the next file, which
    # may take its final name at any moment.
    for name in (ROSTER_FILE, NEXT_ROSTER_FILE, ROSTER_FILE):
        try:
            roster = Roster.read(folder / name)
        except InputError as error:
            failure = error if name == ROSTER_FILE else failure
            continue
        if _read_pin(folder) == _Pin(version=roster.version, digest=roster.digest()):
            roster.check_complete()
            return roster
        failure = InputError("roster.altered", party=folder.name)
    raise failure


def check_acceptable(folder: Path, roster: Roster, digest: str | None = None) -> None:
    """Raise unless the party or the exchange of a folder may accept a roster.

    `digest` is what another member has read out, whole; without an accepted roster there is no other way. Raises
    `InputError` ``roster.not_pinned``, ``roster.digest``, those of `Roster.check_follows` and those of `pinned`.
    """
    roster.check_complete()
    if digest is not None and "".join(digest.split()).lower() != roster.digest():
        raise InputError("roster.digest")
    pin = _read_pin(folder)
    if pin is None:
        if digest is None:
            raise InputError("roster.not_pinned", party=folder.name)
    elif pin.digest != roster.digest():
        before = pinned(folder)
        assert before is not None
        roster.check_follows(before)


def accept(folder: Path, roster: Roster, digest: str | None = None) -> None:
    """Pin a roster in the folder of a party or an exchange; whoever reads meanwhile finds the old one or the new one.

    Before the first one is pinned, whoever reads may be told ``roster.altered``. Raises `InputError` as
    `check_acceptable` does, ``roster.busy``, ``disk.full`` and ``disk.denied``.
    """
    with _alone(folder):
        check_acceptable(folder, roster, digest)
        # The pin is what decides. It is written once the roster is there beside the old one, which it then replaces.
        roster.write(folder / NEXT_ROSTER_FILE)
        pin = _Pin(version=roster.version, digest=roster.digest())
        write_whole(folder / PIN_FILE, pin.model_dump_json(indent=2).encode() + b"\n")
        (folder / NEXT_ROSTER_FILE).replace(folder / ROSTER_FILE)


def check_certificate(rostered: bytes, certificate: bytes, key: bytes, *, party: str) -> None:
    """Raise `InputError` ``roster.key_differs`` unless a certificate is the roster's and the private key is its key."""
    try:
        same = fingerprint(certificate) == fingerprint(rostered)
        public = serialization.load_pem_private_key(key, password=None).public_key()
        fits = public == load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        same = fits = False
    finally:
        del key  # a trace may show what a frame holds
    if not same or not fits:
        raise InputError("roster.key_differs", party=party, field="TLS key" if same else "TLS certificate")


# --- below: the pin ---------------------------------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other acceptances out: what one has checked against must be pinned still when it writes."""
    lock = filelock.FileLock(folder / LOCK_FILE)
    with disk_errors(folder.name):
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout as failure:
            raise InputError("roster.busy", party=folder.name, detail=str(failure)) from failure
    try:
        yield
    finally:
        lock.release()


class _Pin(Part):
    version: Annotated[int, Field(strict=True, ge=1)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _read_pin(folder: Path) -> _Pin | None:
    try:
        with (folder / PIN_FILE).open("rb") as file:
            return _Pin.model_validate_json(file.read(_PIN_MOST_NBYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as failure:
        raise InputError("roster.altered", party=folder.name, detail=str(failure)) from failure
