"""What `isthmus check` says of every job with a coordinator: bytes of agreement and of sums, and a look at own columns.

Messages are measured by making them: of the same fields, each as large as it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...horizontal.fixed_point import EXACT, Encoding
from ...horizontal.members import CHUNK_ITEMS
from ...horizontal.secagg import SIGNATURE_NBYTES
from ...horizontal.shamir import SHARE_NBYTES
from ...parties.consortium import consortium_of
from ...parties.errors import InputError, IsthmusError
from ...parties.home import PartyHome
from ...parties.network.message import Message, Step, Topic, encode
from ..check import ENVELOPE_NBYTES, Leaving, Look
from .star import StarJob
from .star_phases import OwnColumns, own_columns

KEY_NBYTES, DIGEST_NBYTES, TAG_NBYTES = 32, 32, 16
ANY_NUMBER = 2**63 - 1  # the longest that a whole number gets in a message
HEX_DIGEST = "0" * 64
_SETUP_NBYTES = 2048


class Ways(NamedTuple):
    """Bytes from a party to the coordinator, and from the coordinator to a party."""

    up: int
    down: int

    def __add__(self, other: object) -> Ways:  # not strung together as tuples are
        assert isinstance(other, Ways)
        return Ways(self.up + other.up, self.down + other.down)

    def times(self, count: int) -> Ways:
        """So many of them."""
        return Ways(self.up * count, self.down * count)


def message_nbytes(fields: Mapping[str, Any]) -> int:
    """Bytes of a message with these fields and no array."""
    return sum(len(buffer) for buffer in encode(Message(Topic.STATISTICS, Step.SIGNATURES, fields)))


def vector_nbytes(size: int, itemsize: int, fields: Mapping[str, Any] | None = None) -> int:
    """Bytes of `members.send_vector`: a vector in chunks, the first with `fields`."""
    chunks = max(1, -(-size // CHUNK_ITEMS))
    return size * itemsize + chunks * ENVELOPE_NBYTES + message_nbytes({"sum": ANY_NUMBER, **(fields or {})})


def sum_ways(job: StarJob, size: int, encoding: Encoding) -> Ways:
    """Bytes of one sum of `size` numbers, without the request: of `secagg` or, in plain, of `summing`."""
    itemsize = int(encoding.dtype[-1])
    vector = vector_nbytes(encoding.words(size), itemsize)
    if not job.secure_aggregation:
        return Ways(message_nbytes({"sum": ANY_NUMBER}) + vector, message_nbytes({"sum": ANY_NUMBER}))

    def of_each(**nbytes: int) -> dict[str, dict[str, bytes]]:
        return {field: {name: bytes(count) for name in job.names} for field, count in nbytes.items()}

    keys, signature = [bytes(KEY_NBYTES)] * 3, bytes(SIGNATURE_NBYTES)
    sealed, named = of_each(sealed=2 * SHARE_NBYTES + TAG_NBYTES), {"id": bytes(DIGEST_NBYTES)}
    up: list[dict[str, Any]] = [
        {"keys": keys, "signature": signature},
        sealed,
        {"signature": signature},
        of_each(seeds=SHARE_NBYTES) | {"keys": {}},
    ]
    down: list[dict[str, Any]] = [
        {"roster": {name: [*keys, signature] for name in job.names}},
        sealed,
        {**named, "survivors": list(job.names)},
        {**named, **of_each(signatures=SIGNATURE_NBYTES)},
    ]
    ways = (sum(message_nbytes({"sum": ANY_NUMBER, **fields}) for fields in messages) for messages in (up, down))
    return Ways(*ways) + Ways(vector, 0)


def agreeing(job: StarJob) -> list[Leaving]:
    """Bytes of `star_phases` between the coordinator and every party."""
    own = {"code": HEX_DIGEST, "finished": False}
    common = {"version": ANY_NUMBER, "job": job.canonical(), "attempt": ANY_NUMBER, **own}
    up = message_nbytes({**common, "differs": False, "cohort": ANY_NUMBER, "changed": False})
    agreed = {"differing": ANY_NUMBER, "floor": ANY_NUMBER, "start_over": False, "attempt": ANY_NUMBER}
    down = message_nbytes(common) + message_nbytes(agreed)
    slack = 2 * ENVELOPE_NBYTES
    return both_ways(
        job,
        Topic.AGREE,
        Ways(up + slack, down + slack),
        "the job itself, its smallest cohort",
        "the job itself, the floor",
    )


def asking(job: StarJob, numbers: int) -> int:
    """Bytes of one request of `horizontal.statistics`, which announces a range and a centre of each number column."""
    fields = {
        "sum": ANY_NUMBER,
        "pass": "counted",
        "request": HEX_DIGEST,
        "floor": ANY_NUMBER,
        "parties": list(job.names),
        "ranges": [[0.0, 0.0]] * numbers,
        "centres": [0.0] * numbers,
    }
    return message_nbytes(fields) + ENVELOPE_NBYTES


def statistics_ways(job: StarJob, sizes: Sequence[int], numbers: int, result_nbytes: int) -> Ways:
    """Bytes of `horizontal.statistics`: sums of so many numbers each, and the result."""
    ways = Ways(0, result_nbytes + ENVELOPE_NBYTES)
    for size in sizes:
        ways += sum_ways(job, size, EXACT) + Ways(0, asking(job, numbers))
    return ways


def both_ways(job: StarJob, topic: Topic, ways: Ways | None, up: str, down: str) -> list[Leaving]:
    """The same of every party; None where it is not known."""
    found = []
    for name in job.names:
        found.append(Leaving(name, job.coordinator, topic, up, ways.up if ways else None))
        found.append(Leaving(job.coordinator, name, topic, down, ways.down if ways else None))
    return found


def setup_ways() -> Ways:
    """Bytes of SETUP and READY of `horizontal.rounds`: digests, and the rounds that checkpoints are of."""
    return Ways(_SETUP_NBYTES, _SETUP_NBYTES)


def look_at_columns(home: PartyHome, job: StarJob, look_further: Callable[[OwnColumns], object]) -> Look:
    """Read a party's columns and compare them with what the job says of them; then what its kind needs beside them."""
    rows: int | None = None
    differences: tuple[tuple[str, str], ...] = ()
    try:
        own = own_columns(home, job, consortium_of(home))
        rows, differences = len(own.row_ids), tuple((one.column, one.what) for one in own.differences)
        if differences:
            raise InputError("schema.differs", count=1)  # `isthmus check` counts how many parties there are
        look_further(own)
    except IsthmusError as error:
        return Look(rows, error, differences)
    return Look(rows)


def star_learns(job: StarJob) -> list[tuple[str, str]]:
    """What is learnt in every job with a coordinator."""
    coordinator = job.coordinator
    lines = [
        (
            coordinator,
            "of each party: whether its data are what the columns say, its smallest cohort, whether its rows have "
            "changed since the last attempt, when it takes part",
        ),
        ("each party", "who takes part, and how many parties' data differ from the columns"),
    ]
    if job.secure_aggregation:
        lines.append(("nobody", "one party's numbers in a sum; and so nobody can see whether a party lies about them"))
    return lines
