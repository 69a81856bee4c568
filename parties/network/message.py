"""One message between two vaults: a small header, then raw arrays.

::

    u32 length of header | header (msgpack) | padding | array | padding | array | ...

The header is ``[version, topic, step, fields, [[name, dtype, shape], ...]]``. Arrays are little-endian and start at
multiples of 16 bytes, so that the receiver can use them where they lie. Everything is checked on the way in: dtypes
from a whitelist, shape times item size equal to the bytes that are there, counts and sizes capped, no NaN or infinity,
none of msgpack's extension types. There is no pickle in any disguise.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

VERSION = 1
MAX_NBYTES = 256 * 1024 * 1024
MAX_HEADER_NBYTES = 1024 * 1024
MAX_ARRAYS = 64
MAX_DIMENSIONS = 4
MAX_VALUES = 65536  # in the fields of one message: each takes far more memory than bytes on the way
DTYPES = frozenset({"|u1", "|b1", "<u4", "<u8", "<i4", "<i8", "<f2", "<f4", "<f8"})
_KNOWN = {text: np.dtype(text) for text in DTYPES}
_ALIGNMENT = 16
_LENGTH = struct.Struct("<I")

Array = NDArray[Any]
Value = Any  # what msgpack can hold without extension types: numbers, text, bytes, lists, maps, None
Buffer = bytes | bytearray | memoryview


class Topic(StrEnum):
    """What a stream of messages is about. The ledger and the report count bytes by topic."""

    AGREE = "agree"
    ALIGN = "align"
    SETUP = "setup"
    STATISTICS = "statistics"
    TRAIN = "train"
    EVALUATE = "evaluate"

    __hash__ = str.__hash__  # that of Enum is written in Python, and topics are looked up at every message


class Step(StrEnum):
    """The steps that the protocols know; their docstrings say what each carries."""

    # agree
    JOB = "job"
    RESUME = "resume"
    CLOSE = "close"
    # align
    POINTS = "points"
    DOUBLED = "doubled"
    SIZE = "size"
    SEED = "seed"
    MATCHES = "matches"
    COMMON = "common"
    # setup, train and evaluate
    SETUP = "setup"
    READY = "ready"
    FORWARD = "forward"
    BACKWARD = "backward"
    EPOCH = "epoch"
    EMBEDDING = "embedding"
    # sums and rounds: what the coordinator sends
    ASK = "ask"
    ROUND = "round"
    GIVE = "give"
    ROSTER = "roster"
    INBOX = "inbox"
    SURVIVORS = "survivors"
    SIGNATURES = "signatures"
    RESULT = "result"
    # and what the parties answer
    OFFER = "offer"
    VALUES = "values"
    SHARES = "shares"
    MASKED = "masked"
    CONSENT = "consent"
    UNMASK = "unmask"


_TOPICS = {topic.value: topic for topic in Topic}
_STEPS = {step.value: step for step in Step}


class MalformedMessageError(ValueError):
    """Bytes that are not a message. The text names the rule that they break, never their content."""


@dataclass(frozen=True)
class Message:
    """One message: its topic, the step of the protocol that it is, small fields and arrays."""

    topic: Topic
    step: Step
    fields: Mapping[str, Value] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


def encode(message: Message) -> list[Buffer]:
    """Lay a message out as buffers that can be written one after the other, without copying the arrays.

    Raises `MalformedMessageError` if the message breaks a rule that the receiver would enforce.
    """
    if len(message.arrays) > MAX_ARRAYS:
        raise MalformedMessageError("too many arrays")
    buffers: list[Buffer] = []
    table: list[list[Value]] = []
    for name, array in message.arrays.items():
        dense = np.asarray(array, order="C")
        entry = [name, dense.dtype.str, list(dense.shape)]
        _checked_entry(entry)
        _check_values(dense)
        table.append(entry)
        buffers += [dense.reshape(-1).view(np.uint8).data, bytes(-dense.nbytes % _ALIGNMENT)]
    fields = dict(message.fields)
    _check_fields(fields)
    try:
        header = msgpack.packb([VERSION, message.topic, message.step, fields, table])
    except (ValueError, OverflowError) as failure:  # nested too deeply, text that is no UTF-8, a number beyond 64 bits
        raise MalformedMessageError("header content") from failure
    if len(header) > MAX_HEADER_NBYTES:
        raise MalformedMessageError("header too large")
    start = _LENGTH.pack(len(header)) + header
    whole: list[Buffer] = [start + bytes(-len(start) % _ALIGNMENT), *buffers]
    if sum(map(len, whole)) > MAX_NBYTES:
        raise MalformedMessageError("message too large")
    return whole


def decode(frame: bytearray) -> Message:
    """Read a message. The arrays are writable views of `frame`.

    Raises `MalformedMessageError` for anything that `encode` could not have made.
    """
    if not _LENGTH.size <= len(frame) <= MAX_NBYTES:
        raise MalformedMessageError("message length")
    (header_nbytes,) = _LENGTH.unpack_from(frame)
    offset = _LENGTH.size + header_nbytes
    if header_nbytes > MAX_HEADER_NBYTES or offset > len(frame):
        raise MalformedMessageError("header length")
    try:
        version, topic, step, fields, table = msgpack.unpackb(
            memoryview(frame)[_LENGTH.size : offset], max_map_len=4096, max_array_len=65536
        )
        known_topic, known_step = _TOPICS[topic], _STEPS[step]
    except Exception as failure:  # msgpack raises many kinds; none of their texts may travel
        raise MalformedMessageError("header content") from failure
    if version != VERSION or not isinstance(fields, dict) or not isinstance(table, list):
        raise MalformedMessageError("header content")
    _check_fields(fields)
    offset = _padded(frame, offset)
    arrays: dict[str, Array] = {}
    if len(table) > MAX_ARRAYS:
        raise MalformedMessageError("too many arrays")
    for entry in table:
        name, dtype, shape = _checked_entry(entry)
        nbytes = dtype.itemsize * math.prod(shape)
        if offset + nbytes > len(frame):
            raise MalformedMessageError("array length")
        array = np.frombuffer(frame, dtype=dtype, count=nbytes // dtype.itemsize, offset=offset).reshape(shape)
        _check_values(array)
        arrays[name] = array
        offset = _padded(frame, offset + nbytes)
    if offset != len(frame) or len(arrays) != len(table):
        raise MalformedMessageError("message length")
    return Message(known_topic, known_step, fields, arrays)


def _checked_entry(entry: object) -> tuple[str, np.dtype[Any], Sequence[int]]:
    if type(entry) is not list or len(entry) != 3:
        raise MalformedMessageError("array header")
    name, dtype, shape = entry
    known = _KNOWN.get(dtype) if isinstance(dtype, str) else None
    if known is None or not isinstance(name, str) or type(shape) is not list or len(shape) > MAX_DIMENSIONS:
        raise MalformedMessageError("array header")
    # NumPy multiplies the sizes of an empty array as well, all but the zeros, and must not overflow.
    nbytes = known.itemsize
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_NBYTES:
            raise MalformedMessageError("array header")
        nbytes *= size or 1
    if nbytes > MAX_NBYTES:
        raise MalformedMessageError("array header")
    return name, known, shape


def _check_values(array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MalformedMessageError("NaN or infinity")
    if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise MalformedMessageError("a boolean that is neither 0 nor 1")


def _check_fields(fields: Value) -> None:
    """Numbers, text, bytes, lists, maps with text as keys and None; nothing else, such as msgpack's extensions."""
    pending, count = [fields], 1
    while pending:
        value = pending.pop()
        if type(value) in (dict, list, tuple) and (count := count + len(value)) > MAX_VALUES:
            raise MalformedMessageError("too many values")
        if type(value) is dict:
            if not all(isinstance(key, str) for key in value):
                raise MalformedMessageError("a key that is not text")
            pending.extend(value.values())
        elif type(value) in (list, tuple):
            pending.extend(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise MalformedMessageError("NaN or infinity")
        elif not (value is None or isinstance(value, str | bytes | int)):
            raise MalformedMessageError("a value that is not plain")


def _padded(frame: bytearray, end: int) -> int:
    """Where the part after the one that ends here begins; only zeros may lie between."""
    start = end + -end % _ALIGNMENT
    if any(frame[end:start]):
        raise MalformedMessageError("padding")
    return start
