"""Frames: the header byte by byte, and what is refused."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.network import frame as module
from isthmus.parties.network.frame import FIRST, HEADER_NBYTES, LAST, MAX_FRAME_NBYTES, Header, Kind, parse
from isthmus.parties.network.message import MAX_NBYTES, MalformedMessageError, Topic

CHANNEL = bytes(range(0xA0, 0xB0))
HEADER = Header(Kind.DATA, "lab", "insurer", CHANNEL, 0x0102030405060708, FIRST | LAST, 0x00ABCDEF)
# Written out by hand from the docstring of the module.
BYTES = bytes.fromhex(
    "01"  # version
    "03"  # kind: DATA
    "0300"  # flags: first and last
    "efcdab00"  # total, the lowest byte first
    "6c6162" + "00" * 29  # destination: lab
    + "696e7375726572" + "00" * 25  # source: insurer
    + "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"  # channel
    "0807060504030201"  # sequence
)  # fmt: skip


def test_the_header_is_laid_out_as_its_docstring_says() -> None:
    assert HEADER_NBYTES == len(BYTES) == 96
    assert HEADER.pack() == BYTES
    assert parse(BYTES) == HEADER


def test_an_array_of_one_mebibyte_fits_into_one_frame_with_all_that_describes_it() -> None:
    assert MAX_FRAME_NBYTES == 1048576 + 4096
    assert module.MAX_PIECE_NBYTES == 1048576 + 4096 - 96 - 16


def test_what_is_about_no_topic_goes_by_the_fast_lane() -> None:
    assert {None, Topic.AGREE, Topic.SETUP} == module.FAST_TOPICS


def test_the_payload_is_not_looked_at() -> None:
    assert parse(BYTES + b"\xff" * 1000) == HEADER


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_header_is_read_from_any_buffer(kind: type) -> None:
    assert parse(kind(BYTES)) == HEADER


@pytest.mark.parametrize("nbytes", [0, 1, 95, MAX_FRAME_NBYTES + 1])
def test_a_frame_has_a_whole_header_and_is_no_longer_than_allowed(nbytes: int) -> None:
    with pytest.raises(MalformedMessageError, match="frame length"):
        parse((BYTES + bytes(MAX_FRAME_NBYTES))[:nbytes])


def test_a_frame_of_exactly_the_limit_is_read() -> None:
    assert parse((BYTES + bytes(MAX_FRAME_NBYTES))[:MAX_FRAME_NBYTES]) == HEADER


@pytest.mark.parametrize(
    ("offset", "written", "rule"),
    [
        (0, b"\x00", "frame version or kind"),
        (0, b"\x02", "frame version or kind"),
        (1, b"\x00", "frame version or kind"),
        (1, b"\x06", "frame version or kind"),
        (1, b"\xff", "frame version or kind"),
        (2, b"\x04\x00", "frame flags or total"),
        (2, b"\x00\x80", "frame flags or total"),
        (4, struct.pack("<I", MAX_NBYTES + 1), "frame flags or total"),
        (4, b"\xff\xff\xff\xff", "frame flags or total"),
        (8, bytes(32), "frame names"),
        (8, b"\x00lab", "frame names"),
        (8, b"la\x00b", "frame names"),
        (8, "läb".encode(), "frame names"),
        (40, bytes(32), "frame names"),
        (40, b"in\x00urer", "frame names"),
        (40, b"\xffnsurer", "frame names"),
        (71, b"\x01insurer", "frame names"),
    ],
)
def test_a_header_that_pack_cannot_have_made_is_refused(offset: int, written: bytes, rule: str) -> None:
    altered = bytearray(BYTES)
    altered[offset : offset + len(written)] = written
    with pytest.raises(MalformedMessageError, match=rule):
        parse(altered)


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=32)
headers = st.builds(
    Header,
    st.sampled_from(Kind),
    names,
    names,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.integers(0, FIRST | LAST),
    st.integers(0, MAX_NBYTES),
)


@given(headers)
def test_every_header_is_read_as_it_was_packed(header: Header) -> None:
    packed = header.pack()
    assert len(packed) == HEADER_NBYTES
    assert parse(packed) == header


@given(st.binary(min_size=HEADER_NBYTES, max_size=HEADER_NBYTES + 8))
def test_bytes_are_refused_or_are_exactly_what_their_header_packs(frame: bytes) -> None:
    try:
        header = parse(frame)
    except MalformedMessageError:
        return
    assert header.pack() == frame[:HEADER_NBYTES]


@given(headers, st.integers(0, HEADER_NBYTES - 1), st.integers(1, 255))
def test_no_two_headers_share_their_bytes(header: Header, offset: int, mask: int) -> None:
    altered = bytearray(header.pack())
    altered[offset] ^= mask
    try:
        other = parse(altered)
    except MalformedMessageError:
        return
    assert dataclasses.astuple(other) != dataclasses.astuple(header)
    assert other.pack() == bytes(altered)
