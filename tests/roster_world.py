"""A consortium of four members with fixed signing keys, and its roster with whatever signatures a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from isthmus.parties.certificate import make_certificate
from isthmus.parties.errors import InputError
from isthmus.parties.roster import Roster

NAMES = ("alder", "birch", "cedar", "hub")
KEYS = {
    name: ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    for name in (*NAMES, "mallory")
}
TLS = {name: make_certificate(400) for name in (*NAMES, "mallory", "relay", "other")}
UNTIL = (datetime.now(UTC) + timedelta(days=300)).date()


def member(name: str, **changes: Any) -> dict[str, Any]:
    public = KEYS[name].public_key().public_bytes_raw().hex()
    whole = {"role": "coordinator" if name == "hub" else "party", "key": public, "until": UNTIL.isoformat()}
    return {**whole, "certificate": TLS[name].certificate.decode(), **changes}


def content(**changes: Any) -> dict[str, Any]:
    whole = {
        "consortium": "hearts",
        "version": 1,
        "threshold": 2,
        "exchanges": {"relay": {"address": "relay.example.org:9443", "certificate": TLS["relay"].certificate.decode()}},
        "members": {name: member(name) for name in NAMES},
    }
    return {**whole, **changes}


def roster(*signers: str, **changes: Any) -> Roster:
    """A roster with these signatures over its canonical bytes."""
    made = Roster.model_validate(content(**changes))
    signatures = {name: KEYS[name].sign(made.canonical()).hex() for name in signers}
    return made.model_copy(update={"signatures": signatures})


def code(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value.code
