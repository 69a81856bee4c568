"""The versions of a roster: drafts, what changes, signatures, acceptance. What `isthmus consortium` does.

A roster is one file that passes between the members. Whoever keeps it makes drafts; every member that agrees signs the
draft at its own home; each party and each exchange accepts it for itself (the rules: `parties.roster`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..parties.certificate import fingerprint
from ..parties.consortium import Consortium, accept, check_acceptable, check_certificate, pinned
from ..parties.errors import InputError
from ..parties.home import PIN_FILE, PartyHome, read_certificate, read_private
from ..parties.identity import Identity
from ..parties.roster import Roster
from ..parties.strict_yaml import part_of, read_part
from .founding import CERTIFICATE_FILE, KEY_FILE, ExchangeMemberFile, MemberFile, exchange_name


class Change(NamedTuple):
    """One difference between two rosters: what an entry was before, and is now; None where it is not there."""

    of: str  # roster, member or exchange
    name: str
    before: dict[str, str] | None
    after: dict[str, str] | None


def with_files(
    roster: Roster | None, files: Iterable[Path], *, name: str | None = None, threshold: int | None = None
) -> Roster:
    """A first roster out of the files that members handed over, or a draft of the next version with them.

    An entry of the same name is replaced; one that is revoked comes back only with a new key and a new certificate.
    Without a `threshold`, a first roster takes the majority of its members, a later one what it was. Raises
    `InputError` ``roster.missing``, ``roster.invalid`` and ``roster.revoked``.
    """
    content = (
        _draft(roster, threshold) if roster else {"consortium": name, "version": 1, "exchanges": {}, "members": {}}
    )
    for file in files:
        entry = _handed_over(file)
        public = entry.model_dump(mode="json", exclude={"name"})
        if isinstance(entry, MemberFile):
            before = roster.members.get(entry.name) if roster else None
            if before and before.revoked and (before.key == entry.key or before.certificate == entry.certificate):
                raise InputError("roster.revoked", where=file.name, party=content["consortium"], peer=entry.name)
            content["members"][entry.name] = public
        else:
            content["exchanges"][entry.name] = public
    if roster is None:
        content["threshold"] = threshold or len(content["members"]) // 2 + 1
    return part_of(Roster, content)


def without_member(roster: Roster, name: str, *, threshold: int | None = None, now: datetime | None = None) -> Roster:
    """A draft of the next version in which a member is revoked.

    Raises `InputError` ``roster.member_unknown``, ``roster.revoked``, and ``roster.invalid`` if fewer members than the
    threshold would be left.
    """
    if name not in roster.members:
        raise InputError("roster.member_unknown", party=roster.consortium, peer=name)
    if name in roster.revoked:
        raise InputError("roster.revoked", party=roster.consortium, peer=name)
    content = _draft(roster, threshold)
    content["members"][name]["revoked"] = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return part_of(Roster, content, where="--threshold")


def with_signature(roster: Roster, home: PartyHome) -> Roster:
    """The roster with a member's signature, once it is a later version than the accepted one and has its own keys.

    Raises `InputError` ``roster.older``, ``roster.member_unknown``, ``roster.key_differs`` and those of `pinned`.
    """
    home.identity_key()  # there, and not made now, where the home has accepted no roster yet
    identity, before, me = Identity(home), pinned(home.folder), home.name
    if before is not None:
        roster.check_later(before)
    own, old = roster.members.get(me), before.members.get(me) if before else None
    if own is None and old is None:
        raise InputError("roster.member_unknown", party=me, peer=me)
    if identity.public not in [member.public for member in (own, old) if member is not None]:
        raise InputError("roster.key_differs", party=me, field="identity key")
    if own is not None and own.revoked is None and own.public == identity.public:
        check_certificate(own.certificate.encode(), home.tls_certificate(), home.tls_key(), party=me)
    signatures = dict(sorted({**roster.signatures, me: identity.sign(roster.canonical()).hex()}.items()))
    return roster.model_copy(update={"signatures": signatures})


def accept_in(roster: Roster, folders: Sequence[Path], digest: str | None) -> dict[str, InputError | None]:
    """Pin a roster in every folder, of a party or an exchange, or in none.

    The first roster that a folder accepts has to hold its own keys. Returns for each name what of its own keys is not
    in a later one. Raises `InputError` as `check_acceptable` and `own_entry` do.
    """
    found: dict[str, InputError | None] = {}
    for folder in folders:
        check_acceptable(folder, roster, digest)
        found[folder.name] = own_entry(roster, folder)
        if (wrong := found[folder.name]) and not (folder / PIN_FILE).exists():
            raise wrong
    for folder in folders:
        accept(folder, roster, digest)
    return found


def own_entry(roster: Roster, folder: Path) -> InputError | None:
    """What is wrong between a roster and the keys in the folder of a party or an exchange; None if all is well.

    Raises `InputError` ``home.missing`` for a folder of neither, and what its own files give cause for.
    """
    name = exchange_name(folder)
    home = PartyHome(folder) if name is None else None
    try:
        if home is not None:
            Consortium(roster, home.name).check_self(home)
        elif name is not None:
            rostered = Consortium(roster, name).exchange(name).certificate.encode()
            own = read_certificate(folder / CERTIFICATE_FILE, name)
            check_certificate(rostered, own, read_private(folder / KEY_FILE, name), party=name)
    except InputError as error:
        return error
    return None


def changes(before: Roster | None, after: Roster) -> list[Change]:
    """What differs between two rosters, in the facts that people compare."""
    olds, news = facts_of(before) if before else {}, facts_of(after)
    return [
        Change(*entry, olds.get(entry), news.get(entry))
        for entry in [*olds, *(entry for entry in news if entry not in olds)]
        if olds.get(entry) != news.get(entry)
    ]


class Step(NamedTuple):
    """What a roster changes at those that have accepted the same one before it; None for those without any."""

    names: tuple[str, ...]
    before: Roster | None
    changes: list[Change]


def steps_to(roster: Roster, folders: Iterable[Path]) -> list[Step]:
    """What a roster changes for the folders of parties and exchanges, put together where it is the same.

    All of it is new to one that has accepted none, or none that can be believed.
    """
    found: dict[str | None, Step] = {}
    for folder in folders:
        before = _believed(folder)
        digest = before.digest() if before else None
        step = found.get(digest) or Step((), before, changes(before, roster))
        found[digest] = step._replace(names=(*step.names, folder.name))
    return list(found.values())


def facts_of(roster: Roster) -> dict[tuple[str, str], dict[str, str]]:
    """What people compare of a roster, by kind and name of the entry: fingerprints instead of certificates."""
    facts = {("roster", roster.consortium): {"version": str(roster.version), "threshold": str(roster.threshold)}}
    for of, entries in (("exchange", roster.exchanges), ("member", roster.members)):
        for name, entry in entries.items():
            public = entry.model_dump(mode="json", exclude_none=True)
            facts[of, name] = {**public, "certificate": fingerprint(public["certificate"].encode())}
    return facts


def _believed(folder: Path) -> Roster | None:
    try:
        return pinned(folder)
    except InputError:
        return None


# --- below: drafts ----------------------------------------------------------------------------------------------------


class _Either(BaseModel):
    address: Any = None


def _handed_over(file: Path) -> MemberFile | ExchangeMemberFile:
    of_exchange = read_part(_Either, file).address is not None
    return read_part(ExchangeMemberFile, file) if of_exchange else read_part(MemberFile, file)


def _draft(roster: Roster, threshold: int | None) -> dict[str, Any]:
    content = roster.model_dump(mode="json", exclude={"signatures"})
    return {**content, "version": roster.version + 1, "threshold": threshold or roster.threshold}
