"""Shamir's secret sharing: enough shares give the secret, fewer say nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal import shamir
from isthmus.horizontal.shamir import PRIME, SHARE_NBYTES, Combiner, split


def _secret(value: int) -> bytes:
    return value.to_bytes(32)


def test_the_shares_of_a_polynomial_drawn_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """f(x) = 1234 + 166 x + 94 x², the example of Shamir's scheme in every textbook."""
    drawn: Iterator[int] = iter([94, 166])
    monkeypatch.setattr(shamir.secrets, "randbelow", lambda below: next(drawn))
    shares = split(_secret(1234), range(1, 7), 3)
    values = {point: int.from_bytes(share) for point, share in shares.items()}
    assert values == {1: 1494, 2: 1942, 3: 2578, 4: 3402, 5: 4414, 6: 5614}
    # Lagrange at 0 over the points 2, 4 and 5: 10/3 · 1942 - 5 · 3402 + 8/3 · 4414 = 1234
    assert Combiner([2, 4, 5]).combine(shares) == _secret(1234)


def test_the_field_is_a_prime_field_that_holds_every_secret() -> None:
    assert PRIME == 2**521 - 1  # the thirteenth Mersenne prime
    remainder = 4
    for _ in range(521 - 2):  # Lucas and Lehmer's test
        remainder = (remainder * remainder - 2) % PRIME
    assert remainder == 0
    assert (PRIME.bit_length() + 7) // 8 == SHARE_NBYTES


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, parties: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, parties))
    points = data.draw(st.lists(st.integers(1, 1000), min_size=parties, max_size=parties, unique=True))
    shares = split(secret, points, threshold)
    chosen = data.draw(st.permutations(points))[:threshold]
    assert Combiner(chosen).combine(shares) == secret
    assert {len(share) for share in shares.values()} == {SHARE_NBYTES}


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret_come_back(secret: bytes) -> None:
    shares = split(secret, [1, 2, 3, 4, 5], 4)
    for chosen in itertools.combinations(shares, 4):
        assert Combiner(chosen).combine(shares) == secret


def test_one_share_too_few_is_consistent_with_every_secret() -> None:
    """For each secret there is a polynomial through the shares that are known: so they say nothing."""
    shares = split(_secret(7), [1, 2, 3], 3)
    for wanted in (0, 7, 2**256 - 1):
        known = {1: shares[1], 2: shares[2]}
        # the value at 3 that makes it `wanted` at 0: 3 f(1) - 3 f(2) + f(3) = f(0)
        third = (wanted - 3 * int.from_bytes(known[1]) + 3 * int.from_bytes(known[2])) % PRIME
        assert Combiner([1, 2, 3]).combine({**known, 3: third.to_bytes(SHARE_NBYTES)}) == _secret(wanted)


def test_too_few_shares_and_a_wrong_share_give_no_secret() -> None:
    shares = split(_secret(7), [1, 2, 3, 4], 3)
    assert Combiner([1, 2]).combine(shares) is None  # of 521 bits, all but about 256 would have to be zeros
    assert Combiner([1, 2, 3]).combine({**shares, 2: shares[4]}) is None
    assert Combiner([1, 2, 3]).combine({**shares, 2: b"\xff" * SHARE_NBYTES}) is None


def test_the_same_secret_has_other_shares_each_time() -> None:
    first, second = (split(_secret(7), [1, 2, 3], 2) for _ in range(2))
    assert all(first[point] != second[point] for point in (1, 2, 3))


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [
        (bytes(31), [1, 2, 3], 2),
        (bytes(33), [1, 2, 3], 2),
        (bytes(32), [0, 1, 2], 2),  # the share at 0 is the secret
        (bytes(32), [1, 1, 2], 2),
        (bytes(32), [1, 2, 3], 4),
        (bytes(32), [1, 2, 3], 0),
        (bytes(32), [], 1),
    ],
)
def test_what_cannot_be_shared_is_refused(secret: bytes, points: list[int], threshold: int) -> None:
    with pytest.raises(ValueError, match="a secret of 32 bytes"):
        split(secret, points, threshold)
