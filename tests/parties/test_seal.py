import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.errors import InternalError
from isthmus.parties.network.frame import MAX_FRAME_NBYTES, MAX_PIECE_NBYTES, Header, Kind
from isthmus.parties.network.seal import NotForUsError, Opener, Sealer, label_key
from isthmus.parties.network.session import Session, _Keys

DIRECTION = bytes(range(32))
PLAIN = b"sealed for one reader"


def both(label: str = "train") -> tuple[Sealer, Opener]:
    key = label_key(DIRECTION, label)
    return Sealer(key, "lab"), Opener(key)


def header(sequence: int, channel: bytes) -> bytes:
    return Header(Kind.DATA, "lab", "insurer", channel, sequence).pack()


def one_frame(sequence: int = 3) -> tuple[bytes, Opener]:
    sealer, opener = both()
    return sealer.seal(sequence, PLAIN, header(sequence, sealer.channel)), opener


@pytest.mark.parametrize("nbytes", [0, 1, 1000, MAX_PIECE_NBYTES])
def test_what_was_sealed_opens_once_as_bytes_and_once_in_place(nbytes: int) -> None:
    sealer, opener = both()
    plain, head = bytes([7]) * nbytes, header(0, sealer.channel)
    frame = sealer.seal(0, memoryview(plain), head)
    assert type(frame) is bytes and frame[:96] == head and len(frame) == 96 + nbytes + 16 <= MAX_FRAME_NBYTES
    assert opener.open(0, frame) == plain
    target = bytearray(nbytes + 2)
    opener.open_into(0, memoryview(frame), memoryview(target)[1:-1])
    assert target == b"\0" + plain + b"\0"


def test_frames_sealed_one_after_the_other_do_not_share_memory() -> None:
    sealer, opener = both()
    frames = [sealer.seal(n, bytes([n]) * (9 - n), header(n, sealer.channel)) for n in range(9)]
    assert [opener.open(n, frame) for n, frame in enumerate(frames)] == [bytes([n]) * (9 - n) for n in range(9)]


def test_no_bit_of_a_frame_can_be_changed() -> None:
    frame, opener = one_frame()
    target = memoryview(bytearray(len(PLAIN)))
    for bit in range(8 * len(frame)):
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotForUsError):
            opener.open(3, changed)
        with pytest.raises(NotForUsError):
            opener.open_into(3, changed, target)


def test_a_frame_opens_in_its_own_place_alone() -> None:
    frame, opener = one_frame()
    for sequence in (0, 2, 4, 3 + 2**32, 2**63 - 1, 2**63, 2**64, -1):
        with pytest.raises(NotForUsError):
            opener.open(sequence, frame)


def test_a_frame_opens_with_the_key_of_its_own_topic_and_direction_alone() -> None:
    frame, _ = one_frame()
    for stranger in (both("align")[1], both("control")[1], Opener(label_key(DIRECTION[::-1], "train"))):
        with pytest.raises(NotForUsError):
            stranger.open(3, frame)


def test_a_frame_cut_short_drawn_out_or_too_long_does_not_open() -> None:
    frame, opener = one_frame()
    for wrong in (*(frame[:n] for n in range(len(frame))), frame + b"\0", frame + bytes(MAX_FRAME_NBYTES)):
        with pytest.raises(NotForUsError):
            opener.open(3, wrong)


def test_a_target_of_another_length_is_refused() -> None:
    frame, opener = one_frame()
    for nbytes in (0, len(PLAIN) - 1, len(PLAIN) + 1):
        with pytest.raises(NotForUsError):
            opener.open_into(3, frame, memoryview(bytearray(nbytes)))


@given(st.binary(max_size=300), st.integers(-1, 2**64))
def test_no_bytes_open_that_were_not_sealed(frame: bytes, sequence: int) -> None:
    with pytest.raises(NotForUsError):
        both()[1].open(sequence, frame)


# --- nonces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [0, 4, 5, 2**63, 2**64, -1])
def test_no_sequence_is_sealed_twice_nor_one_before_it_nor_beyond_the_last(sequence: int) -> None:
    sealer, _ = both()
    sealer.seal(5, PLAIN, bytes(96))
    with pytest.raises(InternalError):
        sealer.seal(sequence, PLAIN, bytes(96))
    sealer.seal(6, PLAIN, bytes(96))
    sealer.seal(2**63 - 1, PLAIN, bytes(96))
    with pytest.raises(InternalError):
        sealer.seal(2**63, PLAIN, bytes(96))


def test_a_payload_beyond_the_largest_piece_is_our_own_fault() -> None:
    with pytest.raises(InternalError):
        both()[0].seal(0, bytes(MAX_PIECE_NBYTES + 1), bytes(96))


def test_two_threads_never_seal_the_same_sequence() -> None:
    sealer, opener = both()
    done: list[int] = []

    def seal_all(value: int) -> None:
        for sequence in range(2000):
            try:
                frame = sealer.seal(sequence, bytes([value]) * 50, bytes(96))
            except InternalError:
                continue
            assert opener.open(sequence, frame) == bytes([value]) * 50
            done.append(sequence)

    threads = [threading.Thread(target=seal_all, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done and len(done) == len(set(done))


def test_a_session_has_one_sealer_for_a_label_and_none_for_its_auth() -> None:
    session = Session(_Keys(b"", DIRECTION, DIRECTION[::-1]), party="lab", peer_job="", peer_attempt=1, peer_public=b"")
    assert session.sealer("train") is session.sealer("train") is not session.sealer("align")
    with pytest.raises(InternalError):
        session.sealer("auth")
