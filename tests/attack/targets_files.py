"""The parsers of what a server or a stranger hands over, each as a `Target` of `attack_mutations`."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from target import ACCEPTED, PASSED_ON, Target

from isthmus.flows.jobs import load_job
from isthmus.flows.signed import read_job_file, write_signed
from isthmus.parties.certificate import make_certificate
from isthmus.parties.errors import InputError
from isthmus.parties.network.admission import RefusedError, introduction
from isthmus.parties.roster import Roster
from isthmus.parties.signature import verify
from isthmus.parties.starts import Start, sign_start

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_LAUGHS = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n + 1, n + 1, n, n) for n in range(97, 122))


def metadata() -> Target:
    """What a stream says of itself at the exchange. `PASSED_ON`: another legal room, lane or epoch."""
    genuine = [
        b"isthmus-version=1\nisthmus-room=0123456789abcdef0123456789abcdef\nisthmus-lane=fast\nisthmus-epoch=7",
        b"user-agent=grpc\nisthmus-epoch=123456789012345678\nisthmus-lane=bulk\nisthmus-version=1\n"
        b"isthmus-room=ffffffffffffffffffffffffffffffff",
    ]

    def attempt(data: bytes) -> str:
        pairs = [line.partition("=")[::2] for line in data.decode("latin-1").split("\n")]
        said = [(key, value.encode("latin-1") if key.endswith("-bin") else value) for key, value in pairs]
        introduction(said)
        facts = dict(said)
        legal = (
            all([key for key, _ in said].count(f"isthmus-{name}") == 1 for name in ("version", "room", "lane", "epoch"))
            and facts["isthmus-version"] == "1"
            and facts["isthmus-lane"] in ("fast", "bulk")
            and re.fullmatch("[0-9a-f]{32}", str(facts["isthmus-room"]))
            and re.fullmatch("[0-9]{1,18}", str(facts["isthmus-epoch"]))
        )
        return PASSED_ON if legal else ACCEPTED

    return Target(genuine, attempt, (RefusedError,), bombs=[genuine[0] + b"9" * 1_000_000])


def roster() -> Target:
    """A roster that 2 of 3 members have to sign. `PASSED_ON`: it reads, and the signatures refuse it."""
    folder = Path(tempfile.mkdtemp(prefix="isthmus-attack-"))
    keys = {name: Ed25519PrivateKey.generate() for name in ("insurer", "lab", "registry")}
    until = date.today() + timedelta(days=300)
    members = {
        name: {
            "role": "party",
            "key": key.public_key().public_bytes_raw().hex(),
            "certificate": make_certificate().certificate.decode(),
            "until": until,
        }
        for name, key in keys.items()
    }
    exchanges = {"north": {"address": "127.0.0.1:9443", "certificate": make_certificate().certificate.decode()}}
    content = {"consortium": "north", "version": 3, "threshold": 2, "exchanges": exchanges, "members": members}
    unsigned = Roster.model_validate(content)
    signatures = {name: key.sign(unsigned.canonical()).hex() for name, key in keys.items()}
    signed = unsigned.model_copy(update={"signatures": signatures})
    path = folder / "roster.yaml"
    signed.write(path)
    genuine = path.read_bytes()

    def attempt(data: bytes) -> str:
        path.write_bytes(data)
        found = Roster.read(path)
        if found.digest() == signed.digest():
            return PASSED_ON  # another way to write the same
        try:
            found.check_follows(signed)
        except InputError:
            pass
        else:
            return ACCEPTED
        try:
            found.check_complete()
        except InputError:
            return PASSED_ON
        return ACCEPTED

    bombs = [
        b"[" * (1 << 20),
        b"[" + b"a," * ((1 << 19) - 1),
        b"a: &a [x, x]\nb: &b [*a, *a]\n"
        + b"".join(b"%c: &%c [*%c, *%c]\n" % (n + 1, n + 1, n, n) for n in range(98, 120)),
        b"- " + b"9" * 1_000_000,
        b"x" * (2 << 20),
        b"!!python/object/apply:os.system [true]\n",
    ]
    return Target([genuine], attempt, (InputError,), bombs=bombs)


def _signed_start(job: str, kind: str) -> tuple[Start, bytes]:
    key = Ed25519PrivateKey.generate()
    identity: Any = SimpleNamespace(name="insurer", sign=key.sign)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    start = sign_start(identity, "north", job, kind, until=until, runs=3)
    return start, key.public_key().public_bytes_raw()


def start() -> Target:
    """A start as JSON. `PASSED_ON`: it reads, and its signature is none; or it says the same in other words."""
    signed, public = _signed_start("ab" * 32, "vertical")
    genuine = [signed.model_dump_json().encode(), signed.model_dump_json(indent=1).encode()]

    def attempt(data: bytes) -> str:
        found = Start.model_validate_json(data)
        if found.digest() == signed.digest():
            return PASSED_ON
        good = verify(public, bytes.fromhex(found.signature), found.signed_bytes())
        return ACCEPTED if good else PASSED_ON

    bombs = [b"[" * 1_000_000, b'{"consortium": "' + b"a" * 1_000_000 + b'"}', b'{"runs": ' + b"9" * 1_000_000 + b"}"]
    return Target(genuine, attempt, (ValidationError,), bombs=bombs)


def job_file() -> Target:
    """A signed job file. `PASSED_ON`: as of `start`, or a plain job, which no consortium starts."""
    folder = Path(tempfile.mkdtemp(prefix="isthmus-attack-"))
    job = load_job(_EXAMPLES / "vertical.yaml")
    signed, public = _signed_start(job.digest(), job.kind)
    path = folder / "signed.yaml"
    write_signed(path, job, signed)
    genuine = path.read_bytes()

    def attempt(data: bytes) -> str:
        path.write_bytes(data)
        found, word = read_job_file(path)
        if word is None or (found.digest(), word.digest()) == (job.digest(), signed.digest()):
            return PASSED_ON
        good = verify(public, bytes.fromhex(word.signature), word.signed_bytes())
        return ACCEPTED if good and word.job == found.digest() else PASSED_ON

    return Target([genuine], attempt, (InputError,), bombs=[_LAUGHS, b"job: {}\nstart: " + b"[" * 100_000])
