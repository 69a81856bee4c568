import hashlib
import hmac
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.parties.errors import InternalError
from isthmus.parties.network.session import (
    Binding,
    Handshake,
    IdentityError,
    NotForUsError,
)

from ..handshakes import BINDING, JOB, KEYS, OTHER_JOB, PUBLIC, meet, pair, side

NONCE = bytes(12)
LENGTHS = {"insurer": 1 + 8 + 32 + 32, "lab": 1 + 8 + 32 + 32 + 1184}  # "insurer" is the lower name


# --- by hand ----------------------------------------------------------------------------------------------------------


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def transcript_of(low_hello: bytes, high_hello: bytes, ciphertext: bytes) -> bytes:
    whole = b""
    for part in (
        b"isthmus session v1",
        b"north",
        b"readmission-1",
        b"insurer",
        b"lab",
        low_hello,
        high_hello,
        ciphertext,
    ):
        whole += struct.pack(">I", len(part)) + part
    return hashlib.sha256(whole).digest()


def directions_of(t: bytes, x25519: bytes, kem: bytes) -> tuple[bytes, bytes]:
    """HKDF written out: what the lower name seals with, and what the higher does."""
    extracted = hmac_sha256(t, x25519 + kem)
    upward = hmac_sha256(extracted, b"isthmus directions v1" + b"\x01")
    return upward, hmac_sha256(extracted, upward + b"isthmus directions v1" + b"\x02")


def key_of(direction: bytes, label: bytes) -> bytes:
    return hmac_sha256(direction, b"isthmus key v1 " + label + b"\x01")


def test_the_lower_name_does_what_a_higher_one_written_by_hand_expects() -> None:
    lower = side("insurer", "lab", attempt=7)
    agreement, kem = X25519PrivateKey.from_private_bytes(b"x" * 32), MLKEM768PrivateKey.from_seed_bytes(b"k" * 64)
    hello = b"\x01" + struct.pack(">Q", 3) + agreement.public_key().public_bytes_raw() + b"n" * 32
    hello += kem.public_key().public_bytes_raw()
    assert len(lower.hello) == LENGTHS["insurer"] and lower.hello[:9] == b"\x01" + struct.pack(">Q", 7)

    auth = lower.on_hello(hello)
    assert auth is not None and len(auth) == 1088 + 32 + 32 + 64 + 16
    t = transcript_of(lower.hello, hello, auth[:1088])
    x25519 = agreement.exchange(X25519PublicKey.from_public_bytes(lower.hello[9:41]))
    upward, downward = directions_of(t, x25519, kem.decapsulate(auth[:1088]))
    proof = AESGCM(key_of(upward, b"auth")).decrypt(NONCE, auth[1088:], None)
    assert proof[:64] == PUBLIC["insurer"] + bytes.fromhex(JOB)
    KEYS["insurer"].public_key().verify(proof[64:], b"isthmus auth v1" + b"\x00" + t + bytes.fromhex(JOB))

    job = bytes.fromhex(OTHER_JOB)
    mine = PUBLIC["lab"] + job + KEYS["lab"].sign(b"isthmus auth v1" + b"\x01" + t + job)
    assert lower.on_auth(AESGCM(key_of(downward, b"auth")).encrypt(NONCE, mine, None)) is None
    session = lower.session
    assert session is not None
    assert (session.peer_job, session.peer_attempt, session.peer_public) == (OTHER_JOB, 3, PUBLIC["lab"])

    key, header = key_of(upward, b"train"), b"h" * 96
    sealer = session.sealer("train")
    assert sealer.channel == hashlib.sha256(b"isthmus channel v1" + key).digest()[:16]
    frame = sealer.seal(5, b"gradients", header)
    assert frame[:96] == header
    assert AESGCM(key).decrypt(bytes(4) + struct.pack(">Q", 5), frame[96:], header) == b"gradients"


def test_the_higher_name_does_what_a_lower_one_written_by_hand_expects() -> None:
    higher = side("lab", "insurer")
    assert len(higher.hello) == LENGTHS["lab"]
    agreement = X25519PrivateKey.from_private_bytes(b"y" * 32)
    hello = b"\x01" + struct.pack(">Q", 2) + agreement.public_key().public_bytes_raw() + b"m" * 32
    assert higher.on_hello(hello) is None
    kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(higher.hello[73:]).encapsulate()
    t = transcript_of(hello, higher.hello, ciphertext)
    x25519 = agreement.exchange(X25519PublicKey.from_public_bytes(higher.hello[9:41]))
    upward, downward = directions_of(t, x25519, kem_secret)
    job = bytes.fromhex(JOB)
    mine = PUBLIC["insurer"] + job + KEYS["insurer"].sign(b"isthmus auth v1" + b"\x00" + t + job)
    answer = higher.on_auth(ciphertext + AESGCM(key_of(upward, b"auth")).encrypt(NONCE, mine, None))
    assert answer is not None and higher.session is not None
    proof = AESGCM(key_of(downward, b"auth")).decrypt(NONCE, answer, None)
    KEYS["lab"].public_key().verify(proof[64:], b"isthmus auth v1" + b"\x01" + t + job)
    key, header = key_of(upward, b"control"), b"h" * 96
    opener = higher.session.opener("control")
    assert opener.channel == hashlib.sha256(b"isthmus channel v1" + key).digest()[:16]
    sealed = AESGCM(key).encrypt(bytes(4) + struct.pack(">Q", 9), b"acknowledged", header)
    assert opener.open(9, header + sealed) == b"acknowledged"


# --- both sides -------------------------------------------------------------------------------------------------------


def test_both_sides_come_to_the_same_keys_and_know_each_other() -> None:
    lower, higher = pair(attempt=4, job=OTHER_JOB)
    meet(lower, higher)
    assert lower.session and higher.session
    assert (higher.session.peer_attempt, higher.session.peer_public) == (4, PUBLIC["insurer"])
    for one, other in ((lower.session, higher.session), (higher.session, lower.session)):
        frame = one.sealer("align").seal(0, b"points", bytes(96))
        assert other.opener("align").open(0, frame) == b"points"
        assert one.sealer("align").channel == other.opener("align").channel


def test_members_with_different_jobs_still_meet_and_can_tell() -> None:
    lower, higher = pair(job=OTHER_JOB)
    meet(lower, higher)
    assert lower.session and higher.session
    assert (lower.session.peer_job, higher.session.peer_job) == (JOB, OTHER_JOB)


def test_every_key_is_another_one_by_direction_label_and_handshake() -> None:
    channels = []
    for _ in range(3):
        lower, higher = pair()
        meet(lower, higher)
        assert lower.session and higher.session
        channels += [s.sealer(label).channel for s in (lower.session, higher.session) for label in ("train", "control")]
    assert len(set(channels)) == 12


@pytest.mark.parametrize(
    "changes",
    [{"binding": Binding("south", "readmission-1")}, {"binding": Binding("north", "readmission-2")}],
    ids=["consortium", "run"],
)
def test_members_of_different_consortia_or_runs_do_not_meet(changes: dict[str, Binding]) -> None:
    lower, higher = pair(**changes)
    auth = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    assert auth is not None
    with pytest.raises(NotForUsError):
        higher.on_auth(auth)


def test_a_member_that_means_another_peer_is_not_met() -> None:
    lower, higher = side("insurer", "registry", pinned="lab"), side("lab", "insurer")
    auth = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    assert auth is not None
    with pytest.raises(NotForUsError):
        higher.on_auth(auth)


def test_a_trusted_way_takes_the_key_that_the_peer_proves_to_hold() -> None:
    lower, higher = side("insurer", "lab", pinned=None), side("lab", "insurer", signer="eve", pinned=None)
    meet(lower, higher)
    assert lower.session and lower.session.peer_public == PUBLIC["eve"]
    thief = Handshake(
        KEYS["eve"].sign, PUBLIC["lab"], me="lab", peer="insurer", peer_key=None, binding=BINDING, attempt=1, job=JOB
    )
    lower = side("insurer", "lab", pinned=None)
    thief.on_hello(lower.hello)
    answer = thief.on_auth(lower.on_hello(thief.hello) or b"")
    with pytest.raises(IdentityError):  # it shows a key that it does not hold
        lower.on_auth(answer or b"")


def test_a_handshake_is_between_two_names_over_a_whole_digest() -> None:
    for changes in ({"me": "lab"}, {"job": "ab"}, {"public": b"short"}):
        values = {"me": "insurer", "job": JOB, "public": PUBLIC["insurer"], **changes}
        with pytest.raises(InternalError):
            Handshake(KEYS["insurer"].sign, peer="lab", peer_key=None, binding=BINDING, attempt=1, **values)  # type: ignore[arg-type]


# --- what is lost, late or sent again ---------------------------------------------------------------------------------


def test_a_hello_that_comes_again_gives_the_same_auth_again() -> None:
    lower, higher = pair()
    auth = lower.on_hello(higher.hello)
    assert lower.on_hello(higher.hello) == auth
    meet(lower, higher)
    assert lower.on_hello(bytearray(higher.hello)) == auth
    answer = higher.on_hello(lower.hello)
    assert answer is not None and lower.on_auth(memoryview(answer)) is None


def test_a_peer_that_was_started_again_replaces_its_hello_until_the_session_is_there() -> None:
    lower, gone = pair()
    stale = lower.on_hello(gone.hello)
    higher = side("lab", "insurer", attempt=2)
    meet(lower, higher)
    assert lower.session and lower.session.peer_attempt == 2
    with pytest.raises(NotForUsError):
        side("lab", "insurer").on_auth(stale or b"")

    gone, higher = pair()
    higher.on_hello(gone.hello)
    stale = gone.on_hello(higher.hello)
    lower = side("insurer", "lab", attempt=2)
    auth = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    with pytest.raises(NotForUsError):
        higher.on_auth(stale or b"")
    answer = higher.on_auth(auth or b"")
    lower.on_auth(answer or b"")
    assert lower.session and higher.session and higher.session.peer_attempt == 2


def test_an_established_session_is_not_talked_out_of_it() -> None:
    lower, higher = pair()
    meet(lower, higher)
    session, another = lower.session, side("lab", "insurer", attempt=2)
    assert lower.on_hello(another.hello) is None and lower.on_hello(b"noise") is None
    another.on_hello(lower.hello)
    with pytest.raises(NotForUsError):
        lower.on_auth(bytes(144))
    assert lower.session is session


def test_an_auth_before_any_hello_is_not_due() -> None:
    lower, higher = pair()
    with pytest.raises(NotForUsError):
        higher.on_auth(lower.on_hello(higher.hello) or b"")
    with pytest.raises(NotForUsError):
        side("insurer", "lab").on_auth(bytes(144))


def test_ephemeral_secrets_are_dropped_once_the_session_is_there() -> None:
    for one in (sides := pair()):
        assert any(isinstance(value, X25519PrivateKey) for value in vars(one).values())
    meet(*sides)
    for one in sides:
        kinds = {type(value) for value in vars(one).values()}
        assert kinds.isdisjoint({X25519PrivateKey, MLKEM768PrivateKey})
        assert one._secret == b"" and one._keys is None
