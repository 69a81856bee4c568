import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.network.session import (
    Handshake,
    IdentityError,
    NotForUsError,
    SessionError,
    VersionError,
)

from ..handshakes import BINDING, JOB, KEYS, PUBLIC, flipped, meet, pair, side

# --- whoever is in the middle -----------------------------------------------------------------------------------------


def test_somebody_in_the_middle_is_found_out_by_both() -> None:
    lower, higher = pair()
    as_higher = side("lab", "insurer", signer="eve", pinned=None)
    as_lower = side("insurer", "lab", signer="eve", pinned=None)
    as_higher.on_hello(lower.hello)
    answer = as_higher.on_auth(lower.on_hello(as_higher.hello) or b"")
    higher.on_hello(as_lower.hello)
    forged = as_lower.on_hello(higher.hello)
    with pytest.raises(IdentityError):
        lower.on_auth(answer or b"")
    with pytest.raises(IdentityError):
        higher.on_auth(forged or b"")
    assert lower.session is None and higher.session is None


def test_a_signature_taken_from_one_session_proves_nothing_in_another() -> None:
    taken: list[bytes] = []

    def sign(message: bytes) -> bytes:
        taken.append(KEYS["insurer"].sign(message))
        return taken[-1]

    def replay(_: bytes) -> bytes:
        return taken[0]

    names = {"me": "insurer", "peer": "lab", "binding": BINDING, "attempt": 1, "job": JOB}
    meet(Handshake(sign, PUBLIC["insurer"], peer_key=None, **names), side("lab", "insurer"))  # type: ignore[arg-type]
    thief, higher = Handshake(replay, PUBLIC["insurer"], peer_key=None, **names), side("lab", "insurer")  # type: ignore[arg-type]
    higher.on_hello(thief.hello)
    with pytest.raises(IdentityError):
        higher.on_auth(thief.on_hello(higher.hello) or b"")


def test_messages_sent_back_to_their_author_are_refused() -> None:
    lower, higher = pair()
    for one in (lower, higher):
        with pytest.raises(NotForUsError):
            one.on_hello(one.hello)
    dressed_up = lower.hello + higher.hello[len(lower.hello) :]  # our own X25519 key in a HELLO of the right length
    with pytest.raises(NotForUsError):
        lower.on_hello(dressed_up)
    auth = lower.on_hello(higher.hello) or b""
    for reflected in (auth, auth[-144:]):
        with pytest.raises(NotForUsError):
            lower.on_auth(reflected)
    higher.on_hello(lower.hello)
    answer = higher.on_auth(auth) or b""
    for reflected in (answer, auth[:1088] + answer):
        with pytest.raises(NotForUsError):
            higher.on_auth(reflected)
    lower.on_auth(answer)
    assert lower.session is not None


def test_a_change_of_any_byte_of_a_hello_ends_in_no_session() -> None:
    lower, higher = pair()
    auth = lower.on_hello(higher.hello)
    assert auth is not None
    for place in range(len(lower.hello)):
        try:
            higher.on_hello(flipped(lower.hello, place))
        except NotForUsError:
            continue
        with pytest.raises(NotForUsError):
            higher.on_auth(auth)
    for place in [*range(80), *range(80, len(higher.hello), 31)]:
        lower = side("insurer", "lab")
        higher.on_hello(lower.hello)
        try:
            auth = lower.on_hello(flipped(higher.hello, place))
        except NotForUsError:
            continue
        with pytest.raises(NotForUsError):
            higher.on_auth(auth or b"")
    assert higher.session is None
    meet(side("insurer", "lab"), higher)


def test_a_change_of_any_byte_of_an_auth_is_refused_and_the_true_one_still_counts() -> None:
    lower, higher = pair()
    auth = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    assert auth is not None
    for place in [*range(0, 1088, 37), *range(1088, len(auth))]:
        with pytest.raises(NotForUsError):
            higher.on_auth(flipped(auth, place))
    answer = higher.on_auth(auth)
    assert answer is not None
    for place in range(len(answer)):
        with pytest.raises(NotForUsError):
            lower.on_auth(flipped(answer, place))
    lower.on_auth(answer)
    assert lower.session is not None


@pytest.mark.parametrize(
    "point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"], ids=["zero", "one", "minus one"]
)
def test_a_key_of_small_order_is_refused_and_changes_nothing(point: bytes) -> None:
    lower, higher = pair()
    lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    for one, other in ((lower, higher), (higher, lower)):
        with pytest.raises(NotForUsError):
            one.on_hello(other.hello[:9] + point + other.hello[41:])
    meet(lower, higher)


def test_an_encapsulation_key_that_is_none_is_refused() -> None:
    lower, higher = pair()
    with pytest.raises(NotForUsError):
        lower.on_hello(higher.hello[:73] + b"\xff" * 1184)


def test_another_version_is_told_from_noise() -> None:
    lower, higher = pair()
    with pytest.raises(VersionError):
        lower.on_hello(b"\x02" + higher.hello[1:])


# --- anything at all --------------------------------------------------------------------------------------------------

MET = pair()
HELLOS = {"insurer": MET[0].hello, "lab": MET[1].hello}
AUTHS = {"insurer": MET[0].on_hello(MET[1].hello) or b""}
MET[1].on_hello(MET[0].hello)
AUTHS["lab"] = MET[1].on_auth(AUTHS["insurer"]) or b""
GENUINE = [*HELLOS.values(), *AUTHS.values()]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Two genuine payloads of other handshakes, cut, joined, lengthened or with bytes changed."""
    one, other = draw(st.sampled_from(GENUINE)), draw(st.sampled_from(GENUINE))
    cut = draw(st.integers(0, len(one)))
    payload = bytearray(one[:cut] + other[draw(st.sampled_from([cut, 0, len(other)])) :] + draw(st.binary(max_size=4)))
    for place in draw(st.lists(st.integers(0, 4096), max_size=4)):
        if payload:
            payload[place % len(payload)] ^= draw(st.integers(1, 255))
    return bytes(payload)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=1400) | mangled()), max_size=6), st.booleans())
def test_no_bytes_raise_anything_else_or_make_a_session(payloads: list[tuple[bool, bytes]], lower: bool) -> None:
    one = side("insurer", "lab") if lower else side("lab", "insurer")
    for is_hello, payload in payloads:
        try:
            one.on_hello(payload) if is_hello else one.on_auth(payload)
        except SessionError as failure:
            assert not isinstance(failure, IdentityError)
    assert one.session is None
