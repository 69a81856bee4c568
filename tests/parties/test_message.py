"""Messages: what goes in comes out, and what could not have gone in does not come out."""

from __future__ import annotations

import resource
import struct
import time
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isthmus.parties.network import message as module
from isthmus.parties.network.message import DTYPES, MalformedMessageError, Message, Step, Topic, decode, encode

SHORT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _frame(message: Message) -> bytearray:
    return bytearray().join(encode(message))


def _raw(header: bytes, body: bytes = b"") -> bytearray:
    start = struct.pack("<I", len(header)) + header
    return bytearray(start + bytes(-len(start) % 16) + body)


def _packed(
    table: Any = (), fields: Any = None, version: Any = 1, topic: Any = "train", step: Any = "forward"
) -> bytes:
    return msgpack.packb([version, topic, step, {} if fields is None else fields, list(table)])


def _refused(frame: bytes | bytearray) -> None:
    with pytest.raises(MalformedMessageError):
        decode(bytearray(frame))


def test_a_frame_is_laid_out_as_the_docstring_says() -> None:
    frame = _frame(Message(Topic.TRAIN, Step.EPOCH, {"a": 1}, {"x": np.array([1, 2, 3], dtype=np.uint8)}))
    header = msgpack.packb([1, "train", "epoch", {"a": 1}, [["x", "|u1", [3]]]])
    assert frame[:4] == struct.pack("<I", len(header))
    assert frame[4 : 4 + len(header)] == header
    start = (4 + len(header) + 15) // 16 * 16
    assert frame[start:] == bytes([1, 2, 3]) + bytes(13)


def test_a_message_without_arrays_is_its_header_alone() -> None:
    got = decode(_frame(Message(Topic.AGREE, Step.JOB, {"job": {"epochs": 3, "parties": ["a", None, 1.5, b"x"]}})))
    assert got == Message(Topic.AGREE, Step.JOB, {"job": {"epochs": 3, "parties": ["a", None, 1.5, b"x"]}}, {})


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 0), (0, 5), (2, 3), (2, 1, 3), (1, 2, 1, 2)])
def test_every_dtype_and_shape_comes_out_as_it_went_in(dtype: str, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    array = (np.arange(size) % 2).astype(dtype).reshape(shape)
    got = decode(_frame(Message(Topic.TRAIN, Step.FORWARD, {}, {"x": array}))).arrays["x"]
    assert (got.dtype, got.shape) == (np.dtype(dtype), shape)
    np.testing.assert_array_equal(got, array)


fields = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)  # fmt: skip
arrays = st.dictionaries(
    st.text(max_size=8),
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            elements={"allow_nan": False, "allow_infinity": False} if "f" in dtype else None,
        )
    ),
    max_size=5,
)
messages = st.builds(Message, st.sampled_from(Topic), st.sampled_from(Step), fields, arrays)


@SHORT
@given(messages)
def test_any_message_comes_out_as_it_went_in(message: Message) -> None:
    got = decode(_frame(message))
    assert (got.topic, got.step, got.fields) == (message.topic, message.step, message.fields)
    assert list(got.arrays) == list(message.arrays)
    for name, array in message.arrays.items():
        assert (got.arrays[name].dtype, got.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got.arrays[name], array)
        assert got.arrays[name].flags.writeable
        assert got.arrays[name].flags.aligned
        assert got.arrays[name].ctypes.data % 16 == 0 or not array.size


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.broadcast_to(np.float64(2), (3, 2)),
    ],
    ids=["transposed", "backwards", "fortran", "broadcast"],
)
def test_an_array_that_does_not_lie_in_one_piece_is_sent_all_the_same(array: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(
        decode(_frame(Message(Topic.TRAIN, Step.FORWARD, {}, {"x": array}))).arrays["x"], array
    )


UNSENDABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("NaN", {}, {"x": np.array([1.0, np.nan])}),
    ("infinity", {}, {"x": np.array([np.inf], dtype=np.float32)}),
    ("half infinity", {}, {"x": np.array([-np.inf], dtype=np.float16)}),
    ("NaN without dimensions", {}, {"x": np.array(np.nan)}),
    ("objects", {}, {"x": np.array([None, "a"], dtype=object)}),
    ("text", {}, {"x": np.array(["a"])}),
    ("complex", {}, {"x": np.array([1j])}),
    ("dates", {}, {"x": np.array(["2020-01-01"], dtype="datetime64[D]")}),
    ("big endian", {}, {"x": np.array([1.0], dtype=">f8")}),
    ("structured", {}, {"x": np.zeros(1, dtype=[("a", "<f8")])}),
    ("five dimensions", {}, {"x": np.zeros((1, 1, 1, 1, 1))}),
    ("65 arrays", {}, {str(number): np.zeros(1) for number in range(65)}),
    ("empty but huge", {}, {"x": np.zeros((0, 2**40))}),
    ("a name that is a number", {}, {1: np.zeros(1)}),  # type: ignore[dict-item]
    ("NaN field", {"a": float("nan")}, {}),
    ("infinite field", {"a": [{"b": float("inf")}]}, {}),
    ("number as key", {1: 2}, {}),  # type: ignore[dict-item]
    ("deep number as key", {"a": {1: 2}}, {}),
    ("array as field", {"a": np.zeros(1)}, {}),
    ("timestamp", {"a": msgpack.Timestamp(1)}, {}),
    ("extension", {"a": msgpack.ExtType(5, b"x")}, {}),
    ("object", {"a": object()}, {}),
    ("65 bits", {"a": 2**64}, {}),
    ("half a character", {"a": "\ud800"}, {}),
    ("large header", {"a": "x" * 2**20}, {}),
]


@pytest.mark.parametrize(("fields", "arrays"), [case[1:] for case in UNSENDABLE], ids=[case[0] for case in UNSENDABLE])
def test_what_the_receiver_would_refuse_is_not_sent(fields: dict[str, Any], arrays: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        encode(Message(Topic.TRAIN, Step.FORWARD, fields, arrays))


def test_a_field_that_is_nested_too_deeply_is_not_sent() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(MalformedMessageError):
        encode(Message(Topic.TRAIN, Step.FORWARD, {"a": deep}))


def test_a_message_that_is_too_large_is_neither_sent_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message(Topic.TRAIN, Step.FORWARD, {}, {"x": np.zeros(100), "y": np.zeros(100)})
    frame = _frame(message)
    monkeypatch.setattr(module, "MAX_NBYTES", 1600)
    with pytest.raises(MalformedMessageError):
        encode(message)
    _refused(frame)


EIGHT = np.arange(2.0).tobytes()  # 16 bytes
MALFORMED: list[tuple[str, bytes | bytearray]] = [
    ("nothing", b""),
    ("three bytes", b"\0\0\0"),
    ("no header", _raw(b"")),
    ("zeros", bytes(64)),
    ("header longer than the frame", struct.pack("<I", 100) + bytes(20)),
    ("header of 4 GiB", struct.pack("<I", 2**32 - 1) + bytes(100)),
    ("header beyond its cap", _raw(bytes(2**20 + 1))),
    ("not msgpack", _raw(b"\xc1\xc1")),
    ("a number for a header", _raw(msgpack.packb(1))),
    ("text for a header", _raw(msgpack.packb("abcde"))),
    ("four parts", _raw(msgpack.packb([1, "train", "forward", {}]))),
    ("six parts", _raw(msgpack.packb([1, "train", "forward", {}, [], []]))),
    ("bytes after the header", _raw(_packed() + b"\0")),
    ("another version", _raw(_packed(version=2))),
    ("a list for a version", _raw(_packed(version=[1]))),
    ("unknown topic", _raw(_packed(topic="gossip"))),
    ("unknown step", _raw(_packed(step="dance"))),
    ("a list for a topic", _raw(_packed(topic=["train"]))),
    ("bytes for a topic", _raw(_packed(topic=b"train"))),
    ("a list for fields", _raw(_packed(fields=[1]))),
    ("a map for a table", _raw(msgpack.packb([1, "train", "forward", {}, {}]))),
    ("key that is a number", _raw(_packed(fields={1: 2}))),
    ("key that is bytes", _raw(_packed(fields={b"a": 2}))),
    ("deep key that is bytes", _raw(_packed(fields={"a": [{b"a": 2}]}))),
    ("timestamp", _raw(_packed(fields={"a": msgpack.Timestamp(1, 2)}))),
    ("extension", _raw(_packed(fields={"a": msgpack.ExtType(5, b"x")}))),
    ("empty extension", _raw(_packed(fields={"a": msgpack.ExtType(5, b"")}))),
    ("NaN in a field", _raw(_packed(fields={"a": float("nan")}))),
    ("infinity in a field", _raw(_packed(fields={"a": [float("-inf")]}))),
    ("text that is no UTF-8", _raw(_packed().replace(b"train", b"tr\xffin"))),
    ("5,000 keys", _raw(_packed(fields={str(number): 1 for number in range(5000)}))),
    ("deep nesting", _raw(b"\x91" * 100_000 + b"\x01")),
    ("65 arrays", _raw(_packed([[str(number), "|u1", [0]] for number in range(65)]))),
    ("entry of two", _raw(_packed([["x", "<f8"]]), EIGHT)),
    ("entry that is a map", _raw(_packed([{"x": 1}]), EIGHT)),
    ("name that is a number", _raw(_packed([[1, "<f8", [2]]]), EIGHT)),
    ("object dtype", _raw(_packed([["x", "|O", [2]]]), EIGHT)),
    ("text dtype", _raw(_packed([["x", "<U4", [1]]]), EIGHT)),
    ("void dtype", _raw(_packed([["x", "|V16", [1]]]), EIGHT)),
    ("big endian", _raw(_packed([["x", ">f8", [2]]]), EIGHT)),
    ("structured dtype", _raw(_packed([["x", "<f4,<f4", [2]]]), EIGHT)),
    ("dtype that is a list", _raw(_packed([["x", ["<f8"], [2]]]), EIGHT)),
    ("shape that is a number", _raw(_packed([["x", "<f8", 2]]), EIGHT)),
    ("negative size", _raw(_packed([["x", "<f8", [-2]]]), EIGHT)),
    ("two negative sizes", _raw(_packed([["x", "<f8", [-1, -2]]]), EIGHT)),
    ("size that is true", _raw(_packed([["x", "<f8", [2, True]]]), EIGHT)),
    ("size that is a float", _raw(_packed([["x", "<f8", [2.0]]]), EIGHT)),
    ("huge size", _raw(_packed([["x", "<f8", [2**63]]]), EIGHT)),
    ("huge product", _raw(_packed([["x", "<f8", [2**28] * 4]]), EIGHT)),
    ("huge product of nothing", _raw(_packed([["x", "<f8", [0, 2**28, 2**28, 2**28]]]))),
    ("product that wraps around to what is there", _raw(_packed([["x", "|u1", [2**16, 2**16, 2**16, 2**16]]]))),
    ("five dimensions", _raw(_packed([["x", "<f8", [2, 1, 1, 1, 1]]]), EIGHT)),
    ("one byte too few", _raw(_packed([["x", "<f8", [2]]]), EIGHT)[:-1]),
    ("one array too many", _raw(_packed([["x", "<f8", [2]], ["y", "<f8", [2]]]), EIGHT)),
    ("one array too few", _raw(_packed(), EIGHT)),
    ("no padding", _raw(_packed([["x", "|u1", [3]]]), b"abc")),
    ("padding that is not zero", _raw(_packed([["x", "|u1", [3]]]), b"abc" + b"\1" * 13)),
    ("a name twice", _raw(_packed([["x", "<f8", [2]], ["x", "<f8", [2]]]), EIGHT * 2)),
    ("NaN", _raw(_packed([["x", "<f8", [2]]]), np.array([0, np.nan]).tobytes())),
    ("infinity", _raw(_packed([["x", "<f8", [2]]]), np.array([0, np.inf]).tobytes())),
    ("half infinity", _raw(_packed([["x", "<f2", [8]]]), np.full(8, np.inf, dtype=np.float16).tobytes())),
    ("booleans of 2", _raw(_packed([["x", "|b1", [16]]]), bytes([2] * 16))),
]


@pytest.mark.parametrize("frame", [case[1] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_is_no_message_is_refused_as_that_and_as_nothing_else(frame: bytes) -> None:
    _refused(frame)


GOOD = _frame(
    Message(Topic.TRAIN, Step.BACKWARD, {"batch": 7, "loss": 0.5, "note": ["a", None]},
            {"x": np.arange(5, dtype=np.float32), "y": np.array([[True, False]]), "z": np.float64(2) * np.ones(())})
)  # fmt: skip


def test_a_frame_cut_off_anywhere_is_refused() -> None:
    for length in range(len(GOOD)):
        _refused(GOOD[:length])


def test_a_frame_with_more_behind_it_is_refused() -> None:
    for more in (1, 15, 16, 32):
        _refused(GOOD + bytes(more))


def test_a_flipped_byte_gives_a_message_or_a_refusal_and_nothing_else() -> None:
    refused = 0
    for place in range(len(GOOD)):
        for flip in (0x01, 0x02, 0x10, 0x80, 0xFF):
            frame = bytearray(GOOD)
            frame[place] ^= flip
            try:
                decode(frame)
            except MalformedMessageError:
                refused += 1
    assert refused > len(GOOD)


@SHORT
@given(st.binary(max_size=200))
def test_random_bytes_give_a_message_or_a_refusal_and_nothing_else(noise: bytes) -> None:
    for frame in (bytearray(noise), _raw(noise), _raw(_packed() + noise), _raw(_packed([["x", "<f4", [2]]]), noise)):
        try:
            decode(frame)
        except MalformedMessageError as failure:
            assert failure.args[0].isprintable()


def test_lists_that_claim_to_be_long_cost_neither_time_nor_memory() -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for header in (
        b"\xdd\x00\x01\x00\x00" * 1000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
    ):
        _refused(_raw(b"\x95\x01\xa5train\xa7forward" + header))
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # KB


def test_what_a_refusal_says_holds_nothing_of_the_frame() -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(_raw(_packed(topic="PLANTED")))
    assert "PLANTED" not in str(caught.value)
