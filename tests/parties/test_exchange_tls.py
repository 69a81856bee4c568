from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.parties.certificate import Certificate, make_certificate
from isthmus.parties.network.exchange import METHOD, SERVICE
from isthmus.parties.network.tls import channel_options

from .relay_world import RelayWorld, Stream, eventually, frame, relay_world

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def world() -> Iterator[RelayWorld]:
    with relay_world() as made:
        yield made


def issued_by(member: Certificate) -> Certificate:
    """A certificate with a key of its own that a member's key has signed."""
    issuer = x509.load_pem_x509_certificate(member.certificate)
    signing = serialization.load_pem_private_key(member.key, password=None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a child")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("isthmus")]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Certificate(
        made.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, pkcs8, plain),
    )


def test_a_stranger_s_certificate_opens_nothing(world: RelayWorld) -> None:
    assert world.stream(make_certificate()).status()[0] is UNAVAILABLE
    assert world.connections() == 0


@pytest.mark.parametrize("shows", ["no certificate", "no TLS"])
def test_who_shows_no_certificate_opens_nothing(world: RelayWorld, shows: str) -> None:
    if shows == "no TLS":
        channel = grpc.insecure_channel(world.address)
    else:
        credentials = grpc.ssl_channel_credentials(world.own.certificate)
        channel = grpc.secure_channel(world.address, credentials, channel_options())
    with channel:
        assert Stream(channel, ()).status()[0] is UNAVAILABLE
    assert world.connections() == 0


def test_what_a_member_s_key_has_signed_is_not_that_member(world: RelayWorld) -> None:
    child = issued_by(world.certificates["lab"])
    chain = Certificate(child.certificate + world.certificates["lab"].certificate, child.key)
    for shown in (child, chain):
        assert world.stream(shown).status() == (DENIED, "unknown")
    assert world.connections() == 0


def test_a_member_believes_no_exchange_but_the_pinned_one(world: RelayWorld) -> None:
    own = world.certificates["lab"]
    pinned = make_certificate().certificate
    stream = Stream(world.channel(own, exchange=pinned), ())
    assert stream.status()[0] is UNAVAILABLE
    stream.channel.close()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_whom_the_roster_no_longer_admits_is_told_so_when_it_connects(world: RelayWorld, how: str) -> None:
    setattr(world, how, frozenset({"lab"}))
    witness = world.join("clinic")
    eventually(lambda: getattr(world.exchange._directory.admitted, how) == {"lab"})
    assert world.stream("lab").status() == (DENIED, how)
    assert witness.call.is_active()
    assert world.exchange.figures.refused[how] == 1


def test_an_expired_certificate_opens_nothing(world: RelayWorld) -> None:
    past = make_certificate(days=1, now=datetime.now(UTC) - timedelta(days=3))
    world.members["lab"] = past.certificate
    eventually(lambda: past.certificate in world.exchange._directory.admitted.members.values())
    assert world.stream(past).status()[0] is UNAVAILABLE  # TLS itself says no
    assert world.connections() == 0


def test_a_certificate_that_ends_while_its_stream_is_open_is_cut(world: RelayWorld) -> None:
    soon = make_certificate(days=1, now=datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=3))
    world.members["lab"] = soon.certificate
    eventually(lambda: soon.certificate in world.exchange._directory.admitted.members.values())
    lab, clinic = world.stream(soon).accepted(), world.join("clinic")
    lab.send(frame("lab", "clinic", b"in time"))
    assert clinic.receive() == b"in time"
    began = time.monotonic()
    assert lab.status() == (DENIED, "expired")
    assert time.monotonic() - began < 15
    assert clinic.call.is_active()


def test_a_new_member_is_taken_without_a_restart(world: RelayWorld) -> None:
    hospital = make_certificate()
    assert world.stream(hospital).status()[0] is UNAVAILABLE
    world.members["hospital"] = hospital.certificate
    eventually(lambda: "hospital" in world.exchange._directory.admitted.members)
    stream, lab = world.stream(hospital).accepted(), world.join("lab")
    stream.send(frame("hospital", "lab", b"new"))
    assert lab.receive() == b"new"


def test_an_exchange_without_members_takes_nobody(world: RelayWorld) -> None:
    lab = world.join("lab")
    world.members.clear()
    assert lab.status() == (DENIED, "unknown")
    assert world.stream("lab").status()[0] is UNAVAILABLE


def test_there_is_one_method_and_no_other(world: RelayWorld) -> None:
    with world.channel(world.certificates["lab"]) as channel:
        for path in (
            f"/{SERVICE}/Other",
            f"/other/{METHOD}",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ):
            call = channel.stream_stream(path)(iter(()), timeout=20)  # type: ignore[var-annotated]
            eventually(call.done)
            assert call.code() is grpc.StatusCode.UNIMPLEMENTED
