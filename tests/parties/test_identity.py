"""A party's identity: one key for good, for its owner alone, whose signatures nobody else can make."""

from __future__ import annotations

import base64
import pickle
import stat
import threading
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity, key_of
from isthmus.parties.signature import is_everybodys, verify


def write_key(home: PartyHome, content: bytes, mode: int = 0o600) -> None:
    path = home.folder / "identity.key"
    path.write_bytes(content)
    path.chmod(mode)


def test_a_home_has_one_key_for_good_which_its_owner_alone_can_read(home: PartyHome) -> None:
    first, second = Identity(home), Identity(PartyHome(home.folder))
    path = home.folder / "identity.key"
    assert (first.name, first.public) == ("lab", second.public)
    assert len(first.public) == len(path.read_bytes()) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.public != path.read_bytes()


def test_the_key_of_the_first_test_vector_of_rfc_8032_signs_as_it_says(home: PartyHome) -> None:
    private = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    write_key(home, bytes.fromhex(private))
    identity = Identity(home)
    assert identity.public.hex() == public
    assert identity.sign(b"").hex() == signature
    assert verify(bytes.fromhex(public), bytes.fromhex(signature), b"")


def test_a_signature_is_good_for_its_message_and_its_key_alone(home: PartyHome) -> None:
    identity = Identity(home)
    signature = identity.sign(b"a message")
    assert signature == identity.sign(b"a message")
    assert verify(identity.public, signature, b"a message")
    assert not verify(identity.public, signature, b"a message.")
    assert not verify(identity.public, signature[:-1] + bytes([signature[-1] ^ 1]), b"a message")
    assert not verify(bytes(reversed(identity.public)), signature, b"a message")


@pytest.mark.parametrize(("public", "signature"), [(b"", bytes(64)), (bytes(31), bytes(64)), (bytes(32), b"")])
def test_what_is_no_key_or_no_signature_verifies_nothing(public: bytes, signature: bytes) -> None:
    assert not verify(public, signature, b"a message")


def test_a_key_under_which_anybody_can_sign_verifies_nothing() -> None:
    everybodys = bytes([1, *bytes(31)])  # the neutral point: R = S·B is a signature of every message
    forged = bytes([1, *bytes(31)]) + bytes(32)
    Ed25519PublicKey.from_public_bytes(everybodys).verify(forged, b"any message")  # OpenSSL takes it
    assert not verify(everybodys, forged, b"any message")


def test_all_keys_of_small_order_are_known_whatever_their_sign() -> None:
    """Points (x, y) of -x² + y² = 1 + d·x²·y² over p = 2^255 - 19: the multiples of one whose order is 8."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def added(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        (x, y), (u, v) = one, other
        t = d * x * u * y * v % p
        return (x * v + u * y) * pow(1 + t, -1, p) % p, (y * v + x * u) * pow(1 - t, -1, p) % p

    # (√-1, 0) has order 4. A point of order 8 doubles to it or its negative: y² = -x² makes d·y⁴ + 2·y² - 1 = 0.
    i = pow(2, (p - 1) // 4, p)
    squares = [(-1 + sign * (_root(1 + d, p) or 0)) * pow(d, -1, p) % p for sign in (1, -1)]
    y = next(root for root in (_root(square, p) for square in squares) if root)
    points, point = set(), (0, 1)
    for _ in range(8):
        points.add(point)
        point = added(point, (y * i % p, y))
    assert (len(points), point) == (8, (0, 1))
    encoded = {y + extra * p for _, y in points for extra in (0, 1) if y + extra * p < 2**255}
    for y in encoded:
        for sign in (0, 1 << 255):
            assert is_everybodys((y | sign).to_bytes(32, "little"))
    assert len(encoded) == 7
    assert not is_everybodys(b"")


def _root(square: int, p: int) -> int | None:
    """A square root modulo p = 5 mod 8, if there is one."""
    root = pow(square, (p + 3) // 8, p)
    if (root * root - square) % p:
        root = root * pow(2, (p - 1) // 4, p) % p
    return root if (root * root - square) % p == 0 else None


def test_all_who_make_the_key_at_once_get_the_same(home: PartyHome) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(Identity(home).public)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert sorted(path.name for path in home.folder.iterdir()) == ["identity.key", "party.yaml"]


@pytest.mark.parametrize("left", ["roster.yaml", "roster.next.yaml", "roster.pin"])
def test_a_key_that_is_gone_is_not_replaced_where_others_know_it(home: PartyHome, left: str) -> None:
    (home.folder / left).write_text("")
    for use in (lambda: Identity(home), home.identity_key):
        with pytest.raises(InputError) as caught:
            use()
        assert (caught.value.code, caught.value.facts) == ("home.no_identity", {"party": "lab"})
    assert not (home.folder / "identity.key").exists()
    home.make_identity_key()
    assert Identity(home).public == Identity(home).public


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_key_file_that_holds_something_else_is_named(home: PartyHome, content: bytes) -> None:
    write_key(home, content)
    with pytest.raises(InputError) as caught:
        Identity(home)
    assert (caught.value.code, caught.value.facts["field"]) == ("home.invalid", "identity.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_key_that_others_can_reach_is_refused_and_the_cure_is_named(home: PartyHome, mode: int) -> None:
    write_key(home, bytes(range(32)), mode)
    with pytest.raises(InputError) as caught:
        Identity(home)
    assert (caught.value.code, caught.value.facts) == ("home.key_mode", {"party": "lab", "file": "identity.key"})
    assert "chmod 600 identity.key" in caught.value.next
    (home.folder / "identity.key").chmod(0o400)
    assert Identity(home).name == "lab"


@pytest.mark.parametrize("content", [bytes(range(160, 191)), bytes(range(160, 193))])
def test_a_key_of_another_length_is_in_no_trace_not_even_one_with_locals(home: PartyHome, content: bytes) -> None:
    write_key(home, content)
    with pytest.raises(InputError) as caught:
        home.identity_key()
    assert caught.tb.tb_next is not None  # our own frame holds the content
    shown = traceback.TracebackException(
        caught.type, caught.value, caught.tb.tb_next, capture_locals=True, lookup_lines=True
    )
    text = "".join(shown.format())
    assert "identity.key" in text
    assert repr(content)[2:40] not in text


def test_an_identity_shows_its_name_and_its_public_key_alone(home: PartyHome) -> None:
    write_key(home, private := bytes(range(160, 192)))
    identity = Identity(home)
    assert repr(identity) == f"Identity('lab', public='{identity.public.hex()}')"
    for text in (repr(identity), str(identity), f"{identity}", repr(vars(identity))):
        assert private.hex() not in text
        assert base64.b64encode(private).decode() not in text
        assert repr(private)[2:-1] not in text
    with pytest.raises(TypeError):
        pickle.dumps(identity)


def test_the_tls_key_and_certificate_come_from_the_home(home: PartyHome) -> None:
    for read in (home.tls_key, home.tls_certificate):
        with pytest.raises(InputError) as caught:
            read()
        assert (caught.value.code, caught.value.facts) == ("home.no_certificate", {"party": "lab"})
    home.tls_key_file.write_bytes(b"key")
    home.tls_certificate_file.write_bytes(b"certificate")
    home.tls_key_file.chmod(0o644)
    with pytest.raises(InputError) as caught:
        home.tls_key()
    assert (caught.value.code, caught.value.facts["file"]) == ("home.key_mode", "tls.key")
    home.tls_key_file.chmod(0o600)
    assert (home.tls_key(), home.tls_certificate()) == (b"key", b"certificate")


def test_a_key_that_is_not_pinned_is_named() -> None:
    assert key_of({"birch": b"key"}, "birch", party="lab") == b"key"
    with pytest.raises(InputError) as caught:
        key_of({"birch": b"key"}, "cedar", party="lab")
    assert (caught.value.code, caught.value.facts) == ("home.key_unknown", {"party": "lab", "peer": "cedar"})
