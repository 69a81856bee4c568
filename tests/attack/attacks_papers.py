"""Rosters that somebody forged, altered or replayed, and files that somebody wrote to stop whoever reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from score import Score
from stage import MEMBERS, Stage

from isthmus.flows.signed import read_job_file
from isthmus.parties.certificate import make_certificate
from isthmus.parties.consortium import accept, pinned
from isthmus.parties.identity import Identity
from isthmus.parties.roster import Roster

NOW = datetime.now(UTC).replace(microsecond=0)
AT_ONCE_S = 20.0  # for a bomb to be refused, on a machine that is busy


def rosters(stage: Stage) -> list[Score]:
    """Whoever carries the file, fewer members than the threshold, and a member that was revoked."""
    score = Score("rosters that must not be accepted: signatures, rollback, swapped pins, other members' keys")
    folder, first = stage.world.homes / "lab", stage.roster
    keys = {name: Identity(stage.home(name)) for name in MEMBERS}
    mallory = Ed25519PrivateKey.generate()
    public = mallory.public_key().public_bytes_raw().hex()

    def signed(made: Roster, *signers: str, forged: tuple[str, ...] = ()) -> Roster:
        signatures = {name: keys[name].sign(made.canonical()).hex() for name in signers}
        signatures |= {name: mallory.sign(made.canonical()).hex() for name in forged}
        return made.model_copy(update={"signatures": signatures})

    def version(number: int, **changes: Any) -> Roster:
        return first.model_copy(update={"version": number, "signatures": {}, **changes})

    def with_key(name: str, **changes: Any) -> dict[str, Any]:
        return {**first.members, name: first.members[name].model_copy(update=changes)}

    stolen = with_key("clinic", key=public)
    extra = {f"new{number}": first.members["clinic"].model_copy(update=_fresh()) for number in range(3)}
    own = {name: member for name, member in with_key("lab", key=public).items() if name == "lab"} | extra
    second = version(2)
    cases: dict[str, tuple[Roster, str]] = {
        "unsigned": (second, "roster.signatures"),
        "one signature of two": (signed(second, "insurer"), "roster.signatures"),
        "signatures of no member": (signed(second, forged=("insurer", "lab", "mallory")), "roster.signatures"),
        "one true, the rest forged": (signed(second, "clinic", forged=("insurer", "lab")), "roster.signatures"),
        "one signature under three names": (_thrice(signed(second, "clinic")), "roster.signatures"),
        "signatures of another version": (_taken(version(3), signed(second, *MEMBERS)), "roster.signatures"),
        "signed by keys that it brings itself": (_by_itself(version(2, members=own), extra), "roster.signatures"),
        "a swapped key, signed by its new owner": (
            signed(version(2, members=stolen), "insurer", forged=("clinic",)),
            "roster.signatures",
        ),
        "threshold lowered to 1": (signed(version(2, threshold=1), "clinic"), "roster.signatures"),
        "same version, other content": (signed(version(1, members=stolen), *MEMBERS), "roster.older"),
        "another consortium": (signed(version(2, consortium="other"), *MEMBERS), "roster.invalid"),
        "edited after it was signed": (
            _taken(version(2, members=stolen), signed(second, *MEMBERS)),
            "roster.signatures",
        ),
    }
    for name, (made, code) in cases.items():
        digest = made.digest() if name != "same version, other content" else None
        score.refused(lambda made=made, digest=digest: accept(folder, made, digest), code)  # type: ignore[misc]
        score.outcomes[name] += 0
    accept(folder, signed(second, "insurer", "clinic"))
    found = pinned(folder)
    score.control = found is not None and found.version == 2
    revoked = with_key("clinic", revoked=NOW)
    accept(folder, signed(version(3, members=revoked), "insurer", "lab"))
    score.refused(lambda: accept(folder, first), "roster.older")
    score.refused(lambda: accept(folder, signed(second, *MEMBERS)), "roster.older")
    score.refused(
        lambda: accept(folder, signed(version(4), "clinic", "lab")), "roster.signatures"
    )  # to let it in again
    score.refused(lambda: accept(folder, signed(version(4), "lab")), "roster.signatures")
    for name in ("roster.yaml", "roster.pin"):
        kept = (folder / name).read_bytes()
        for old, new in ((b"127.0.0.1", b"127.0.0.2"), (b'"version": 3', b'"version": 2'), (b"party", b"coordinator")):
            if old in kept:
                (folder / name).write_bytes(kept.replace(old, new, 1))
                score.refused(lambda: pinned(folder), "roster.altered")
                (folder / name).write_bytes(kept)
    score.told = ", ".join(cases)
    return [score]


def _fresh() -> dict[str, str]:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    return {"key": key, "certificate": make_certificate().certificate.decode()}


def _thrice(made: Roster) -> Roster:
    signature = made.signatures["clinic"]
    return made.model_copy(update={"signatures": dict.fromkeys((*MEMBERS, "Clinic", "clinic2"), signature)})


def _taken(made: Roster, other: Roster) -> Roster:
    return made.model_copy(update={"signatures": other.signatures})


def _by_itself(made: Roster, extra: dict[str, Any]) -> Roster:
    return made.model_copy(update={"signatures": dict.fromkeys(extra, "0" * 128)})


def bombs(stage: Stage) -> list[Score]:
    """Files that are to fill a reader's memory, take its time, or make it fail with an exception of its own."""
    score = Score("YAML bombs, as a roster and as a job file: aliases, numbers, tags, nesting, names twice, 2 MB")
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
    texts = {
        "aliases of aliases": laughs,
        "an alias of itself": "a: &a [*a]",
        "merge keys": "a: &a {b: 1}\nc: {<<: *a}",
        "a name twice": (stage.consortium.roster).read_text() + "version: 1\n",
        "2 MB of comment": "#" * 2_000_000,
        "base 60, 400 KB": "version: " + "1:" * 200_000 + "1",
        "base 60 as a float": "version: " + "1:" * 400 + "1.0",
        "hexadecimal, 900 KB": "version: 0x" + "f" * 900_000,
        "nested 900,000 deep": "[" * 900_000,
        "nested maps": "{a: " * 100_000,
        **{
            f"tag {tag}": f"version: !!{tag} x"
            for tag in ("bool", "int", "float", "timestamp", "set", "omap", "binary")
        },
        "a python object": "version: !!python/object/apply:os.getcwd []",
        "a lone surrogate": 'consortium: "\\ud800"\nkind: vertical\nname: "\\ud800"',
        "zeros": "\0" * 1000,
        "not UTF-8": "\xff",
    }
    path, slowest = stage.folder / "bomb.yaml", 0.0
    for text in texts.values():
        path.write_bytes(text.encode("latin-1"))
        for read in (Roster.read, read_job_file):
            began = time.monotonic()
            score.refused(lambda read=read: read(path), "roster.invalid", "job.not_yaml", "job.invalid")  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
    score.got_through += slowest > AT_ONCE_S
    score.told = f"{', '.join(texts)}; the slowest took {slowest:.1f} s"
    score.control = Roster.read(stage.consortium.roster).version == 1
    return [score]


def copied_subject(stage: Stage) -> list[Score]:
    """Clinic hands in a certificate with the subject of lab's, by which TLS would look lab's up: lab would be out."""
    score = Score("a member's certificate under the subject of another's, which would lock the other out")
    roster = stage.roster
    lab = x509.load_pem_x509_certificate(roster.members["lab"].certificate.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateBuilder(lab.subject, lab.subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(lab.not_valid_before_utc).not_valid_after(lab.not_valid_after_utc)
    for extension in lab.extensions:
        made = made.add_extension(extension.value, extension.critical)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    content = roster.model_copy(update={"version": 2}).model_dump(mode="json", exclude_none=True)
    path = stage.folder / "copied.yaml"
    for name in ("clinic", "insurer"):
        members = {**content["members"], name: {**content["members"][name], "certificate": pem}}
        path.write_text(yaml.safe_dump({**content, "members": members}))
        score.refused(lambda: Roster.read(path), "roster.invalid")
    path.write_text(yaml.safe_dump(content))
    score.control = Roster.read(path).version == 2
    return [score]


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage:
        yield from bombs(stage)
        yield from copied_subject(stage)
        yield from rosters(stage)
