"""One frame: what a carrier moves between two members: 1 MiB of a message at most, and 4 KiB for what describes it.

::

    0    version      u8
    1    kind         u8    HELLO and AUTH make a session, DATA carries a piece of a message, CONTROL acknowledges,
                            BYE ends the session
    2    flags        u16   FIRST and LAST: whether a piece begins, or ends, its message
    4    total        u32   bytes of the whole message
    8    destination  32 bytes, a member's name, padded with zeros
    40   source       32 bytes, the same
    72   channel      16 bytes: which key has sealed it; a hash, so nobody else learns the topic
    88   sequence     u64, and the key's nonce
    96   payload

The header is what sealing authenticates beside the payload (`session`): whoever changes a bit of it breaks the seal.
An exchange reads the two names, to route by and to compare with the sender's certificate, and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from .message import MAX_NBYTES, MalformedMessageError, Topic

VERSION = 1
NAME_NBYTES = 32
CHANNEL_NBYTES = 16
TAG_NBYTES = 16  # what sealing adds to a payload
MAX_FRAME_NBYTES = 1024 * 1024 + 4096  # an array of 1 MiB and its headers go in one
FIRST, LAST = 1, 2
_LAYOUT = struct.Struct(f"<BBHI{NAME_NBYTES}s{NAME_NBYTES}s{CHANNEL_NBYTES}sQ")
HEADER_NBYTES = _LAYOUT.size
MAX_PIECE_NBYTES = MAX_FRAME_NBYTES - HEADER_NBYTES - TAG_NBYTES  # of a message, in one frame
NO_CHANNEL = bytes(CHANNEL_NBYTES)
FAST_TOPICS = frozenset({None, Topic.AGREE, Topic.SETUP})  # None: what is about no topic, such as acknowledgements


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    AUTH = 2
    DATA = 3
    CONTROL = 4
    BYE = 5


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True)
class Header:
    """The first `HEADER_NBYTES` of a frame."""

    kind: Kind
    destination: str
    source: str
    channel: bytes = NO_CHANNEL
    sequence: int = 0
    flags: int = 0
    total: int = 0

    def pack(self) -> bytes:
        """The header as bytes."""
        names = self.destination.encode("ascii"), self.source.encode("ascii")
        return _LAYOUT.pack(VERSION, self.kind, self.flags, self.total, *names, self.channel, self.sequence)


def parse(frame: bytes | bytearray | memoryview) -> Header:
    """Read a frame's header; raises `MalformedMessageError` for what `pack` could not have made."""
    if not HEADER_NBYTES <= len(frame) <= MAX_FRAME_NBYTES:
        raise MalformedMessageError("frame length")
    version, kind, flags, total, destination, source, channel, sequence = _LAYOUT.unpack_from(frame)
    if version != VERSION or kind not in _KINDS:
        raise MalformedMessageError("frame version or kind")
    if flags & ~(FIRST | LAST) or total > MAX_NBYTES:
        raise MalformedMessageError("frame flags or total")
    return Header(_KINDS[kind], _name(destination), _name(source), channel, sequence, flags, total)


@lru_cache(maxsize=256)  # the same few names in every frame
def _name(padded: bytes) -> str:
    name = padded.rstrip(b"\0")
    if not name or not name.isascii() or b"\0" in name:
        raise MalformedMessageError("frame names")
    return name.decode("ascii")
