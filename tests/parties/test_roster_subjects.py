"""A member that copies the subject of another's certificate would lock it out of the exchange: no roster takes it."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from isthmus.parties.certificate import subject

from ..roster_world import NAMES, TLS, member, roster


def with_subject(text: str) -> str:
    """A certificate that is good but for its subject."""
    model, key = x509.load_pem_x509_certificate(TLS["alder"].certificate), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), model.serial_number)
    builder = builder.not_valid_before(model.not_valid_before_utc).not_valid_after(model.not_valid_after_utc)
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("change", ["{}", " {} ", "as upper", "two  spaces"])
def test_a_copied_subject_is_refused(change: str) -> None:
    (own,) = x509.load_pem_x509_certificate(TLS["alder"].certificate).subject
    text = str(own.value)
    copied = {"as upper": text.upper(), "two  spaces": text.replace(" ", "  ")}.get(change, change.format(text))
    members = {name: member(name) for name in NAMES}
    members["birch"] = member("birch", certificate=with_subject(copied))
    with pytest.raises(ValidationError, match="the same subject"):
        roster(members=members)


def test_other_subjects_are_taken_and_told_apart() -> None:
    members = {name: member(name) for name in NAMES}
    members["birch"] = member("birch", certificate=with_subject("birch"))
    assert roster(members=members).members["birch"].certificate == members["birch"]["certificate"]
    assert len({subject(made.certificate) for made in TLS.values()}) == len(TLS)
