from __future__ import annotations

import secrets
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.parties.errors import InputError, InternalError
from isthmus.psi import cipher as module
from isthmus.psi.cipher import CHUNK, Cipher, MalformedPointsError, check_points

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


def whole(chunks):
    return np.concatenate(list(chunks))


def chunked(points):
    return [points[start : start + CHUNK] for start in range(0, len(points), CHUNK)]


def raised(points, secret):
    return whole(secret.encipher_again(chunked(points), len(points)))


@pytest.fixture
def points(executor):
    return whole(Cipher(executor).encipher([str(number) for number in range(20)]))


def test_two_ciphers_commute_and_keep_the_order(executor):
    keys = [str(number) for number in range(50)]
    a, b = Cipher(executor), Cipher(executor)
    left, right = raised(whole(a.encipher(keys)), b), raised(whole(b.encipher(keys)), a)
    assert left.dtype == np.uint8
    assert left.shape == (50, 33)
    assert np.array_equal(left, right)
    assert len(np.unique(left, axis=0)) == 50


def test_chunks_come_back_in_order_from_many_threads(executor):
    keys = [str(number) for number in range(2 * CHUNK + 7)]
    a = Cipher(executor)
    chunks = list(a.encipher(keys))
    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 7]
    middle = whole(a.encipher(keys[CHUNK - 2 : CHUNK + 2]))
    assert np.array_equal(middle, np.concatenate(chunks)[CHUNK - 2 : CHUNK + 2])


def test_every_cipher_has_a_key_of_its_own(executor):
    assert not np.array_equal(whole(Cipher(executor).encipher(["x"])), whole(Cipher(executor).encipher(["x"])))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=20, unique=True))
def test_any_text_can_be_enciphered(executor, keys):
    a, b = Cipher(executor), Cipher(executor)
    assert np.array_equal(raised(whole(a.encipher(keys)), b), raised(whole(b.encipher(keys)), a))


def test_an_erased_key_enciphers_nothing_more(executor):
    secret = Cipher(executor)
    list(secret.encipher(["x"]))
    secret.erase()
    with pytest.raises(InternalError):
        list(secret.encipher(["x"]))


def test_neither_the_cipher_nor_its_repr_shows_the_key(executor):
    secret = Cipher(executor)
    assert secret._key is not None
    assert len(secret._key) == 32
    assert secret._key.hex() not in repr(secret)
    secret.erase()
    assert secret._key is None


@pytest.mark.parametrize(
    ("x", "allowed"),
    [
        (PRIME - 1, True),
        (PRIME, False),
        (PRIME + 1, False),
        (2**256 - 1, False),
        (PRIME - 2**96, True),
        (PRIME + 2**96, False),
        (PRIME - 2**192, True),
        (PRIME - 2**192 + 2**64, True),
        (0, True),
    ],
)
def test_a_coordinate_has_to_be_below_the_prime(x, allowed):
    point = np.frombuffer(b"\x02" + x.to_bytes(32, "big"), dtype=np.uint8).reshape(1, 33)
    if allowed:
        check_points(point)
    else:
        with pytest.raises(MalformedPointsError, match="prime"):
            check_points(point)


@given(st.integers(0, 2**256 - 1))
def test_below_the_prime_is_judged_as_python_does(x):
    point = np.frombuffer(b"\x03" + x.to_bytes(32, "big"), dtype=np.uint8).reshape(1, 33)
    try:
        check_points(point)
    except MalformedPointsError:
        assert x >= PRIME
    else:
        assert x < PRIME


def off_curve(points):
    """Points with an x that has no y (found with Euler's criterion)."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    while True:
        x = secrets.randbelow(PRIME)
        if pow(x**3 - 3 * x + b, (PRIME - 1) // 2, PRIME) == PRIME - 1:
            spoiled = points.copy()
            spoiled[3, 1:] = np.frombuffer(x.to_bytes(32, "big"), dtype=np.uint8)
            return spoiled


def prefixed(points, prefix):
    spoiled = points.copy()
    spoiled[3, 0] = prefix
    return spoiled


def repeated(points, sign):
    spoiled = points.copy()
    spoiled[3] = spoiled[7]
    spoiled[3, 0] ^= sign
    return spoiled


SPOILED = {
    "a long point": lambda points: np.concatenate([points, points[:, :1]], axis=1),
    "a short point": lambda points: points[:, :-1],
    "other numbers": lambda points: points.astype("<u4"),
    "flat": lambda points: points.reshape(-1),
    "uncompressed": lambda points: prefixed(points, 4),
    "infinity": lambda points: prefixed(points, 0),
    "hybrid": lambda points: prefixed(points, 6),
    "off the curve": off_curve,
    "repeated": lambda points: repeated(points, 0),
    "negated": lambda points: repeated(points, 1),
    "one too few": lambda points: points[:-1],
    "one too many": lambda points: np.concatenate([points, points[:1] ^ [[1] + [0] * 32]]).astype(np.uint8),
    "none": lambda points: points[:0],
}


@pytest.mark.parametrize("name", SPOILED)
def test_points_that_no_honest_peer_sends_are_refused(executor, points, name):
    with pytest.raises(MalformedPointsError):
        list(Cipher(executor).encipher_again([SPOILED[name](points)], len(points)))


@pytest.mark.parametrize("sign", [0, 1])
def test_a_repeat_in_another_chunk_is_refused_before_the_last_chunk_is_answered(executor, sign):
    many = whole(Cipher(executor).encipher([str(number) for number in range(CHUNK + 5)]))
    many[-1] = many[0]
    many[-1, 0] ^= sign
    answered = []
    with pytest.raises(MalformedPointsError, match="repeated"):
        answered += Cipher(executor).encipher_again(chunked(many), len(many))
    assert sum(map(len, answered)) <= CHUNK


@pytest.mark.parametrize("count", [0, -1, module.MAX_ELEMENTS + 1])
def test_a_declared_size_out_of_bounds_is_refused_before_anything_is_reserved(executor, count):
    with pytest.raises(MalformedPointsError, match="out of bounds"):
        list(Cipher(executor).encipher_again([], count))


def test_native_code_never_sees_points_that_break_a_guard(executor, points, monkeypatch):
    secret = Cipher(executor)
    monkeypatch.setattr(secret, "_encipher_again_chunk", lambda chunk: pytest.fail("native code was reached"))
    for name, spoil in SPOILED.items():
        if name not in ("off the curve", "one too few"):
            with pytest.raises(MalformedPointsError):
                list(secret.encipher_again([spoil(points)], len(points)))


def test_a_machine_without_the_library_says_so(executor, monkeypatch):
    monkeypatch.setitem(sys.modules, "private_set_intersection.python", None)
    with pytest.raises(InputError) as refused:
        Cipher(executor)
    assert refused.value.code == "platform.no_psi"
