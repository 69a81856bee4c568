"""TLS certificates that nobody but their owner has signed: members pin them in the roster, so no authority is needed.

The key is ECDSA over P-256, since gRPC's TLS takes no Ed25519. What a certificate proves is only who opened a
connection to an exchange; what passes between two vaults is sealed by the session's own keys.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TLS_NAME = "isthmus"  # of every certificate: a connection is matched by the certificate itself, not by its name
_CLOCKS_DIFFER = timedelta(days=1)


class Certificate(NamedTuple):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Certificate({fingerprint(self.certificate)!r})"  # a private key is for no log


def make_certificate(days: int = 365, *, now: datetime | None = None) -> Certificate:
    """A fresh key and its certificate, valid from a day ago, for clocks that differ, and for `days`."""
    began = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: TLS looks a trusted certificate up by its subject.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{TLS_NAME} {serial:x}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(began - _CLOCKS_DIFFER)
        .not_valid_after(began + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM), private)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate's DER, in hex: what people compare. Raises `ValueError` for anything else."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def subject(certificate: bytes) -> str:
    """The subject of a PEM certificate, equal for those that TLS takes for equal: case and spaces do not count.

    Raises `ValueError` for anything else.
    """
    name = x509.load_pem_x509_certificate(certificate).subject
    return repr([(part.oid.dotted_string, " ".join(str(part.value).lower().split())) for part in name])


def expires(certificate: bytes) -> datetime:
    """When a PEM certificate ends. Raises `ValueError` for anything else."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
