"""Founding a consortium: homes with keys, and the files that members hand to whoever keeps the roster.

What `isthmus init` does; `cli_consortium` prints what comes back. Nothing connects to anything: what is handed over is
public, travels by whatever way people like, and is compared by voice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from ..parties.certificate import expires, fingerprint, make_certificate
from ..parties.consortium import check_certificate
from ..parties.errors import InputError, disk_errors
from ..parties.files import PRIVATE, PUBLIC, is_open_to_others, make_private_folder, write_whole
from ..parties.home import IDENTITY_KEY_FILE, NAME_PATTERN, PARTY_FILE, PartyHome, read_certificate, read_private
from ..parties.identity import Identity
from ..parties.roster import TOLERANCE, Address, ExchangeEntry, Member, Name, Part
from ..parties.strict_yaml import part_of, read_part, yaml_text

Role = Literal["party", "coordinator"]
EXCHANGE_FILE = "exchange.yaml"
KEY_FILE, CERTIFICATE_FILE = "tls.key", "tls.crt"
METRICS = "127.0.0.1:9464"
_LONGER = timedelta(days=1) + TOLERANCE  # a certificate lasts until the last moment at which `until` is taken

PARTY = Template("""\
# What $name is, and what it allows. Nobody else writes this file. All is denied until it is written here.
name: $name
# data: $name.duckdb              # a DuckDB file in this folder, opened read-only; without it, SQL reads Parquet or CSV
# attach: {archive: old.duckdb}   # other databases by a short name, always read-only

datasets: {}
#  results:
#    sql: SELECT * FROM results
#    row_id: id                   # unique, never null, never leaves
#    identifiers:                 # what a linkage may use; jobs name these, not the columns
#      national_id: ssn
#      birth_date: {column: born, format: "%Y-%m-%d"}
#    types: {ward: category}      # number or category, where the SQL's own type does not say it
#    units: {weight: kg}

policy:                           # what is not allowed here is refused
  kinds: []                       # of job: vertical, horizontal, statistics, transfer, finetune
  purposes: []                    # word for word as in the job, such as [mortality risk at admission]
  peers: []                       # the members it works with
  starts: {}                      # who may start what, how often: {insurer: {vertical: 4 per day}}
  approve: []                     # kinds that wait for a person each time: `isthmus approve`
  signs: []                       # kinds that this member's own flows may have signed: whoever reaches its Prefect
                                  # server then starts such jobs in its name
  release: {}                     # by dataset; nothing of one that is not named
#    results:
#      columns: [age, weight]     # that may be features
#      labels: [died]             # that may be what is learnt
#      at_least: 100              # the smallest number of shared patients; without it nobody is linked
#      cohort: 10                 # the smallest group that a number may be told of; without it none is
#      may_learn_membership: []   # members that may learn which of their patients this party has too
  max_epochs: 0                   # the most that a job may ask for
  max_rounds: 0
  max_embedding: 0                # numbers that may tell of each shared patient; 1 is a score
  models: []                      # model classes of one's own that may run, by dotted path
  plain_updates: deny             # allow: the coordinator may see this party's own updates, unmasked
  publish: []                     # what the Prefect server and the report may be told: counts, metrics, curves
""")

COORDINATOR = Template("""\
# What $name is, and what it allows. It coordinates jobs and holds no data. All is denied until it is written here.
name: $name

policy:                           # what is not allowed here is refused
  kinds: []                       # of job: horizontal, statistics
  purposes: []                    # word for word as in the job, such as [mortality risk at admission]
  peers: []                       # the members it works with
  starts: {}                      # who may start what, how often: {insurer: {horizontal: 4 per day}}
  approve: []                     # kinds that wait for a person each time: `isthmus approve`
  signs: []                       # kinds that are signed in its name when they are started at its Prefect server:
                                  # whoever reaches that server then starts them, as far as `starts` of each party goes
  max_rounds: 0                   # the most that a job may ask for
  models: []                      # model classes of one's own that may run, by dotted path
  publish: []                     # what the Prefect server and the report may be told: counts, metrics, curves
""")

EXCHANGE = Template("""\
# A relay between the members of a consortium, who connect out to it. It keeps nothing on disk and can read nothing.
name: $name
listen: 0.0.0.0:$port
metrics: $metrics           # for Prometheus, and /healthz; on this machine only
""")

_HANDED_OVER = "# What {name} hands to whoever keeps the roster. Nothing in it is secret; compare it by voice.\n"


class MemberFile(Member):
    """What a member hands over: its entry of the roster, with its name."""

    name: Name
    revoked: None = None


class ExchangeMemberFile(ExchangeEntry):
    """What whoever runs an exchange hands over."""

    name: Name


class Founded(NamedTuple):
    """What `isthmus init` leaves behind. People compare `key` (hex; an exchange has none) and `certificate`."""

    name: str
    role: str
    folder: Path
    key: str | None
    certificate: str  # its SHA-256 fingerprint
    until: str
    file: Path  # to hand over
    made: tuple[str, ...]  # the files that were not there before
    open_to_others: bool  # the folder, which was there before: others than its owner may enter it


def found_member(name: str, role: Role, homes: Path, *, days: int = 365, renew: bool = False) -> Founded:
    """Make a home with what is missing in it: party.yaml, which denies all, the keys, the certificate.

    It is for its owner alone, but a folder that is there keeps its mode. `renew` replaces the TLS key and certificate;
    the identity key stays. Raises `InputError` ``home.name``, those of `PartyHome` and `Identity` for what was there,
    ``home.key_mode``, ``disk.full`` and ``disk.denied``.
    """
    folder = homes / _checked(name)
    template = PARTY if role == "party" else COORDINATOR
    make_private_folder(folder)
    made = _make(folder / PARTY_FILE, lambda: template.substitute(name=name), PRIVATE)
    home = PartyHome(folder)
    made += () if (folder / IDENTITY_KEY_FILE).exists() else (IDENTITY_KEY_FILE,)
    home.make_identity_key()
    key = Identity(home).public.hex()
    made += _make_certificate(folder, days, renew)
    certificate = home.tls_certificate()
    until = (expires(certificate) - _LONGER).date().isoformat()
    public = {"name": name, "role": role, "key": key, "until": until, "certificate": certificate.decode("ascii")}
    file = _hand_over(folder, MemberFile, public)
    return Founded(name, role, folder, key, fingerprint(certificate), until, file, made, is_open_to_others(folder))


def found_exchange(name: str, address: str, folder: Path, *, days: int = 365, renew: bool = False) -> Founded:
    """Make an exchange's folder with what is missing in it: exchange.yaml, the TLS key and certificate.

    Raises `InputError` ``home.name``, ``roster.invalid``, ``home.key_mode``, ``disk.full`` and ``disk.denied``.
    """
    _checked(name)
    words = {"name": name, "port": address.rpartition(":")[2], "metrics": METRICS}
    if (there := exchange_name(folder)) not in (None, name):
        raise InputError("roster.invalid", where=EXCHANGE_FILE, field="name", problem=f"this folder is that of {there}")
    part_of(_Addressed, {"address": address}, where="--address")
    make_private_folder(folder)
    made = _make(folder / EXCHANGE_FILE, lambda: EXCHANGE.substitute(words))
    made += _make_certificate(folder, days, renew)
    certificate = (folder / CERTIFICATE_FILE).read_bytes()
    public = {"name": name, "address": address, "certificate": certificate.decode("ascii")}
    file = _hand_over(folder, ExchangeMemberFile, public)
    until = (expires(certificate) - _LONGER).date().isoformat()
    shared = is_open_to_others(folder)
    return Founded(name, "exchange", folder, None, fingerprint(certificate), until, file, made, shared)


def exchange_name(folder: Path) -> str | None:
    """The name of the exchange whose folder this is, or None. Raises `InputError` ``roster.invalid``."""
    return read_part(_Named, folder / EXCHANGE_FILE).name if (folder / EXCHANGE_FILE).is_file() else None


# --- below: files -----------------------------------------------------------------------------------------------------


class _Named(BaseModel):
    name: Name


class _Addressed(BaseModel):
    address: Address


def _checked(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN.rstrip("$"), name):
        raise InputError("home.name", name=ascii(name)[1:-1][:50])
    return name


def _make(path: Path, text: Callable[[], str], mode: int = PUBLIC) -> tuple[str, ...]:
    if path.exists():
        return ()
    write_whole(path, text().encode(), mode=mode)
    return (path.name,)


def _make_certificate(folder: Path, days: int, renew: bool) -> tuple[str, ...]:
    """Make the TLS key and certificate unless both are there; one alone is what a making cut short has left."""
    key, certificate = folder / KEY_FILE, folder / CERTIFICATE_FILE
    with disk_errors(folder.name):
        if not renew and key.is_file() and certificate.is_file():
            there = read_certificate(certificate, folder.name)
            check_certificate(there, there, read_private(key, folder.name), party=folder.name)
            return ()
    fresh = make_certificate(days + _LONGER.days)
    write_whole(key, fresh.key, mode=PRIVATE)
    write_whole(certificate, fresh.certificate)
    return (KEY_FILE, CERTIFICATE_FILE)


def _hand_over(folder: Path, kind: type[Part], public: dict[str, Any]) -> Path:
    file: Path = folder / f"{public['name']}.member.yaml"
    part_of(kind, public, where=CERTIFICATE_FILE)  # what nobody could take is not handed over
    write_whole(file, (_HANDED_OVER.format(name=public["name"]) + yaml_text(public)).encode())
    return file
