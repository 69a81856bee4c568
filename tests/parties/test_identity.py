"""A party's identity: one key for good, for its owner alone, whose signatures nobody else can make."""

from __future__ import annotations

import stat
import threading

import pytest

from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity, key_of, verify


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
    (home.folder / "identity.key").write_bytes(bytes.fromhex(private))
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


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_key_file_that_holds_something_else_is_named(home: PartyHome, content: bytes) -> None:
    (home.folder / "identity.key").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Identity(home)
    assert (caught.value.code, caught.value.facts["field"]) == ("home.invalid", "identity.key")


def test_a_key_that_is_not_pinned_is_named() -> None:
    assert key_of({"birch": b"key"}, "birch", party="lab") == b"key"
    with pytest.raises(InputError) as caught:
        key_of({"birch": b"key"}, "cedar", party="lab")
    assert (caught.value.code, caught.value.facts) == ("home.key_unknown", {"party": "lab", "peer": "cedar"})
