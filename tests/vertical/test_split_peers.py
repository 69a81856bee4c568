"""What a party makes of a peer that breaks the protocol: an error with a code, never a hang or a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.errors import PeerFailure
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import MemoryCarrier, memory_pair
from isthmus.parties.network.message import Message, Step, Topic, encode
from isthmus.vertical import score_active, train_active, train_passive

Make = Callable[..., Any]
JOB, ALIGNMENT = "1" * 64, "2" * 64
ROWS, WIDTH = 16, 4  # of a batch


class Peer:
    """The hostile end: a channel that can say anything."""

    def __init__(self, carrier: MemoryCarrier, me: str, peer: str) -> None:
        self._carrier = carrier
        self.channel = Channel(carrier, me=me, peer=peer, log=CountingLog(), timeout_s=20.0)

    def send(self, topic: Topic, step: Step, fields: Any = None, arrays: Any = None) -> None:
        self.channel.send(topic, step, fields or {}, arrays or {})

    def send_nan(self, step: Step, name: str) -> None:
        """A frame that our own `encode` would refuse to make."""
        marker = np.full((ROWS, WIDTH), 1234.5, np.float32)
        frame = b"".join(bytes(buffer) for buffer in encode(Message(Topic.TRAIN, step, {}, {name: marker})))
        bad = frame.replace(np.float32(1234.5).tobytes(), np.float32(np.nan).tobytes(), 1)
        assert bad != frame
        self._carrier.send(None, [bad], 20.0, lambda: None)


@pytest.fixture
def ends() -> Iterator[Callable[[str, str], tuple[Channel, Peer]]]:
    made: list[Channel] = []

    def make(honest: str, hostile: str) -> tuple[Channel, Peer]:
        ours, theirs = memory_pair()
        peer = Peer(theirs, hostile, honest)
        made.extend([Channel(ours, me=honest, peer=hostile, log=CountingLog(), timeout_s=20.0), peer.channel])
        return made[-2], peer

    yield make
    for channel in made:
        channel.close()


def cut(rows: int = ROWS, width: int = WIDTH, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.zeros((rows, width), dtype)


ARRAYS: dict[str, Callable[[Peer, Step, str], None]] = {
    "too few rows": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(rows=15)}),
    "no rows": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(rows=0)}),
    "one row, which would be broadcast": lambda peer, step, name: peer.send(
        Topic.TRAIN, step, arrays={name: cut(rows=1)}
    ),
    "too wide": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(width=5)}),
    "flat": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut().reshape(-1)}),
    "float64": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(dtype=np.float64)}),
    "integers": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(dtype=np.int32)}),
    "NaN": lambda peer, step, name: peer.send_nan(step, name),
    "another name": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={"other": cut()}),
    "one array too many": lambda peer, step, name: peer.send(Topic.TRAIN, step, arrays={name: cut(), "other": cut()}),
    "a field too many": lambda peer, step, name: peer.send(Topic.TRAIN, step, {"rows": [1]}, {name: cut()}),
    "nothing": lambda peer, step, name: peer.send(Topic.TRAIN, step),
    "another step": lambda peer, step, name: peer.send(Topic.TRAIN, Step.READY, arrays={name: cut()}),
}
VERDICTS: dict[str, Any] = {
    "another epoch": {"epoch": 2, "best": True, "stop": False},
    "no epoch": {"best": True, "stop": False},
    "a field too many": {"epoch": 1, "best": True, "stop": False, "more": 1},
    "a number for stop": {"epoch": 1, "best": True, "stop": 1},
    "text for best": {"epoch": 1, "best": "yes", "stop": False},
    "a first epoch that is not the best so far": {"epoch": 1, "best": False, "stop": False},
    "nothing": {},
}


def honest_active(case: Any, channel: Channel, folder: Path) -> None:
    train_active(
        {"lab": channel},
        case.tables["insurer"],
        case.label,
        case.plan,
        party="insurer",
        job_digest=JOB,
        alignment_digest=ALIGNMENT,
        private_seed=1,
        checkpoints=Checkpoints(folder, party="insurer"),
    )


def honest_passive(case: Any, channel: Channel, folder: Path) -> None:
    train_passive(
        channel,
        case.tables["lab"],
        case.plan,
        party="lab",
        job_digest=JOB,
        alignment_digest=ALIGNMENT,
        private_seed=1,
        checkpoints=Checkpoints(folder, party="lab"),
    )


def setup_of(case: Any, folder: Path, ends: Any, run_threads: Make) -> dict[str, Any]:
    """What an honest active party sends first."""
    channel, peer = ends("insurer", "lab")
    found: dict[str, Any] = {}

    def listen() -> None:
        found.update(peer.channel.receive(Topic.SETUP, Step.SETUP).fields)
        peer.channel.close()

    run_threads([lambda: refused(lambda: honest_active(case, channel, folder / "probe"), "peer.gone"), listen])
    return found


def refused(side: Callable[[], None], code: str = "peer.protocol") -> None:
    with pytest.raises(PeerFailure) as raised:
        side()
    assert raised.value.code == code


@pytest.mark.parametrize("name", ARRAYS)
def test_the_active_party_refuses_a_wrong_cut_layer(
    name: str, make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    case, (channel, peer), outcome = make_case("lab"), ends("insurer", "lab"), []

    def hostile() -> None:
        peer.channel.receive(Topic.SETUP, Step.SETUP)
        peer.send(Topic.SETUP, Step.READY, {"steps": []})
        peer.channel.receive(Topic.SETUP, Step.RESUME)
        ARRAYS[name](peer, Step.FORWARD, "cut")

    def honest() -> None:
        refused(lambda: honest_active(case, channel, tmp_path))
        outcome.append("refused")

    run_threads([honest, hostile])
    assert outcome == ["refused"]


@pytest.mark.parametrize("steps", [None, "1", [1.5], [True], [[1]], ["1"], {"1": 1}])
def test_the_active_party_refuses_steps_that_are_none(
    steps: Any, make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    case, (channel, peer), outcome = make_case("lab"), ends("insurer", "lab"), []

    def hostile() -> None:
        peer.channel.receive(Topic.SETUP, Step.SETUP)
        peer.send(Topic.SETUP, Step.READY, {"steps": steps})

    def honest() -> None:
        refused(lambda: honest_active(case, channel, tmp_path))
        outcome.append("refused")

    run_threads([honest, hostile])
    assert outcome == ["refused"]


def test_steps_that_the_active_party_does_not_have_are_left_aside(
    make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    case, (channel, peer), answer = make_case("lab"), ends("insurer", "lab"), []

    def hostile() -> None:
        peer.channel.receive(Topic.SETUP, Step.SETUP)
        peer.send(Topic.SETUP, Step.READY, {"steps": [-1, 5, 2**62]})
        answer.append(peer.channel.receive(Topic.SETUP, Step.RESUME).fields)
        peer.channel.close()

    run_threads([lambda: refused(lambda: honest_active(case, channel, tmp_path), "peer.gone"), hostile])
    assert answer == [{"step": 0}]


def passive_against(case: Any, ends: Any, run_threads: Make, folder: Path, hostile: Callable[[Peer], None]) -> None:
    """An honest passive party against an active one that behaves until `hostile` begins: it must refuse."""
    setup = setup_of(case, folder, ends, run_threads)
    (channel, peer), outcome = ends("lab", "insurer"), []

    def active() -> None:
        peer.send(Topic.SETUP, Step.SETUP, setup)
        peer.channel.receive(Topic.SETUP, Step.READY)
        hostile(peer)

    def honest() -> None:
        refused(lambda: honest_passive(case, channel, folder / "honest"))
        outcome.append("refused")

    run_threads([honest, active])
    assert outcome == ["refused"]


def one_epoch(peer: Peer, epoch: int = 1) -> None:
    """Nine batches of sixteen with gradients of zero, and the validation rows."""
    for _ in range(9):
        peer.channel.receive(Topic.TRAIN, Step.FORWARD)
        peer.send(Topic.TRAIN, Step.BACKWARD, arrays={"gradient": cut()})
    assert len(peer.channel.receive(Topic.TRAIN, Step.FORWARD).arrays["cut"]) == 48


@pytest.mark.parametrize("name", ARRAYS)
def test_a_passive_party_refuses_a_wrong_gradient(
    name: str, make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    def hostile(peer: Peer) -> None:
        peer.send(Topic.SETUP, Step.RESUME, {"step": 0})
        ARRAYS[name](peer, Step.BACKWARD, "gradient")

    passive_against(make_case("lab"), ends, run_threads, tmp_path, hostile)


@pytest.mark.parametrize("step", [1, -1, "0", None, True, False, 0.0, [0]])
def test_a_passive_party_refuses_a_step_that_it_did_not_offer(
    step: Any, make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    passive_against(
        make_case("lab"), ends, run_threads, tmp_path, lambda peer: peer.send(Topic.SETUP, Step.RESUME, {"step": step})
    )


@pytest.mark.parametrize("name", VERDICTS)
def test_a_passive_party_refuses_a_wrong_end_of_an_epoch(
    name: str, make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    def hostile(peer: Peer) -> None:
        peer.send(Topic.SETUP, Step.RESUME, {"step": 0})
        one_epoch(peer)
        peer.send(Topic.TRAIN, Step.EPOCH, VERDICTS[name])

    passive_against(make_case("lab"), ends, run_threads, tmp_path, hostile)


def test_a_passive_party_trains_for_no_more_epochs_than_the_job_says(
    make_case: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    def hostile(peer: Peer) -> None:
        peer.send(Topic.SETUP, Step.RESUME, {"step": 0})
        for epoch in (1, 2):
            one_epoch(peer)
            peer.send(Topic.TRAIN, Step.EPOCH, {"epoch": epoch, "best": True, "stop": False})

    passive_against(make_case("lab", epochs=2), ends, run_threads, tmp_path, hostile)


@pytest.mark.parametrize("rows", [[239], []])
def test_the_active_party_refuses_a_wrong_cut_layer_in_scoring(
    rows: list[int], make_case: Make, run_split: Make, ends: Any, run_threads: Make, tmp_path: Path
):
    case = make_case("lab")
    part = run_split(case, tmp_path).parts["insurer"]
    channel, peer = ends("insurer", "lab")
    peer.send(Topic.EVALUATE, Step.FORWARD, arrays={"cut": cut(rows=len(rows))})
    refused(lambda: score_active({"lab": channel}, part, np.arange(240)))
