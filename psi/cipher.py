"""The commutative cipher over P-256, and the only place that touches openmined-psi.

A key (text) is hashed to a point of the curve and raised to this party's secret; a peer's point is raised to it
again. The order of the two does not matter: ``(H(x)^a)^b == (H(x)^b)^a``. The native library does all of the
mathematics. Here are the guards that stand before it, the ordered chunks over a pool of threads, and the few bytes of
its wire format, which saves turning every point into a protobuf object and back.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from ..parties.errors import InputError, InternalError
from ..parties.network.message import Array
from .matching import VALUE_NBYTES, has_repeats

CHUNK = 4096  # elements that are enciphered, and travel, together; the size makes no difference to the cost
POINT_NBYTES = 33  # a compressed point: 2 or 3 for the sign of y, then x
MAX_ELEMENTS = 50_000_000  # in one set: what a peer may make us hold in memory is bounded

# The prime of P-256 as four big-endian words.
_PRIME = (0xFFFFFFFF00000001, 0x0000000000000000, 0x00000000FFFFFFFF, 0xFFFFFFFFFFFFFFFF)

# The library's messages on the wire (protobuf). A request: field 1 (reveal_intersection) true, then per point field
# 2, its length and its bytes. A response: per point field 1, its length and its bytes.
_REVEAL = b"\x08\x01"
_REQUEST_POINT = (0x12, POINT_NBYTES)
_RESPONSE_POINT = (0x0A, POINT_NBYTES)

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class MalformedPointsError(ValueError):
    """Points that no honest peer sends. The text names the rule that they break, never their content."""


class Cipher:
    """A commutative cipher with a fresh key, over the threads of an executor.

    The workers must be threads of this process: the key does not leave it. One cipher serves one pass of one job, since
    the same key would give the same ciphertexts again.
    """

    def __init__(self, executor: Executor) -> None:
        self._library = _library()
        self._executor = executor
        self._key: bytes | None = self._library.cpp_server.CreateWithNewKey(True).GetPrivateKeyBytes()
        self._native = threading.local()

    def encipher(self, keys: Sequence[str]) -> Iterator[Array]:
        """Hash keys to the curve and encipher them: chunks (≤ 4096, 33) uint8 in the order of `keys`."""
        chunks = (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))
        return _in_order(self._executor, self._encipher_chunk, chunks)

    def encipher_again(self, chunks: Iterable[Array], count: int) -> Iterator[Array]:
        """Encipher a peer's `count` points, which come in chunks of 4096: the same chunks (≤ 4096, 33) uint8, in order.

        Raises `MalformedPointsError`: every chunk is checked before native code sees it, and the whole set for
        repeats before the last chunk is yielded.
        """
        return _in_order(self._executor, self._encipher_again_chunk, _guarded(chunks, count))

    def erase(self) -> None:
        """Forget the key. (Python cannot overwrite it; nothing refers to it any more.)"""
        self._key = None
        self._native = threading.local()

    def _encipher_chunk(self, keys: Sequence[str]) -> Array:
        request = self._objects()[0].CreateRequest(keys)
        return _points(request.save().removeprefix(_REVEAL), _REQUEST_POINT, len(keys))

    def _encipher_again_chunk(self, points: Array) -> Array:
        framed = np.empty((len(points), 2 + POINT_NBYTES), dtype=np.uint8)
        framed[:, :2] = _REQUEST_POINT
        framed[:, 2:] = points
        request = self._library.cpp_proto_request.Load(_REVEAL + framed.tobytes())
        try:
            # With reveal_intersection the library keeps the order of the points. It decompresses each of them before it
            # uses it, and that fails for an x without a y. We do not ask the same question first: a square root a point
            # in Python would cost as much again as the cipher.
            response = self._objects()[1].ProcessRequest(request)
        except RuntimeError:
            raise MalformedPointsError("a point is not on the curve") from None
        return _points(response.save(), _RESPONSE_POINT, len(points))

    def _objects(self) -> tuple[Any, Any]:
        """The client and the server of this thread: two threads that share one abort the whole process."""
        if not hasattr(self._native, "pair"):
            if self._key is None:
                raise InternalError("internal", detail="a cipher was used after its key was erased")
            client = self._library.cpp_client.CreateFromKey(self._key, True)
            self._native.pair = client, self._library.cpp_server.CreateFromKey(self._key, True)
        pair: tuple[Any, Any] = self._native.pair
        return pair


def thread_pool() -> ThreadPoolExecutor:
    """A thread a processor: the native library releases the interpreter while it works."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="cipher")


def check_points(points: Array) -> None:
    """Raise `MalformedPointsError` unless these are compressed points (rows, 33) with x below p.

    That there is a y to each x is left to the native library (see `Cipher`).
    """
    if points.dtype != np.uint8 or points.ndim != 2 or points.shape[1] != POINT_NBYTES:
        raise MalformedPointsError("points are not 33 bytes each")
    if not ((points[:, 0] == 2) | (points[:, 0] == 3)).all():
        raise MalformedPointsError("a point is not in compressed form")
    words = np.ascontiguousarray(points[:, 1:]).view(">u8")
    below = np.zeros(len(points), dtype=bool)
    for place in reversed(range(4)):
        word, limit = words[:, place], np.uint64(_PRIME[place])
        below = (word < limit) | ((word == limit) & below)
    if not below.all():
        raise MalformedPointsError("a coordinate is not below the prime")


def _guarded(chunks: Iterable[Array], count: int) -> Iterator[Array]:
    """Let chunks pass that are, all in all, `count` points without a repeat.

    Repeats are judged by x, so that a point and its negative count as the same. Sixteen bytes of x do: see `matching`.
    """
    if not 0 < count <= MAX_ELEMENTS:
        raise MalformedPointsError("the size of a set is out of bounds")
    seen = np.empty((count, VALUE_NBYTES), dtype=np.uint8)
    start = 0
    for points in chunks:
        if points.ndim != 2 or len(points) != min(CHUNK, count - start) or not len(points):
            raise MalformedPointsError("a chunk has another size than was declared")
        check_points(points)
        seen[start : start + len(points)] = points[:, 1 : 1 + VALUE_NBYTES]
        # Each chunk for itself before it is enciphered, all of them before the last: a set with repeats is never
        # answered.
        last = start + len(points) == count
        if has_repeats(seen if last else seen[start : start + len(points)]):
            raise MalformedPointsError("a point is repeated")
        start += len(points)
        yield points
    if start != count:
        raise MalformedPointsError("there are fewer points than were declared")


def _in_order(executor: Executor, work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Like `Executor.map`, but at most a few items ahead, so that a slow consumer holds the producer back."""
    ahead = 2 * (os.cpu_count() or 1)
    running: deque[Future[_Out]] = deque()
    try:
        for item in items:
            running.append(executor.submit(work, item))
            while len(running) > ahead or (running and running[0].done()):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def _points(wire: bytes, head: tuple[int, int], count: int) -> Array:
    """Take the points (count, 33) out of what the library wrote."""
    if len(wire) != count * (2 + POINT_NBYTES):
        raise InternalError("internal", detail="openmined-psi wrote another format than 2.0.6 does")
    framed = np.frombuffer(wire, dtype=np.uint8).reshape(count, 2 + POINT_NBYTES)
    if (framed[:, :2] != head).any():
        raise InternalError("internal", detail="openmined-psi wrote another format than 2.0.6 does")
    return np.ascontiguousarray(framed[:, 2:])


def _library() -> Any:
    """The native module. Imported late: there are machines without it, and jobs without PSI."""
    try:
        from private_set_intersection.python import _openmined_psi
    except ImportError as failure:
        raise InputError("platform.no_psi", detail=str(failure)) from failure
    return _openmined_psi
