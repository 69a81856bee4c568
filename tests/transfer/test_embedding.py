"""What goes over when a source gives its embedding, and what a target refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.parties.errors import InputError, PeerFailure
from isthmus.parties.network.beats import speaking
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.table import Column
from isthmus.transfer.embedding import CHUNK_ROWS, give_embedding, receive_embedding
from isthmus.transfer.pretrain import PretrainPlan, pretrain

from ..recording import recording_pair

VALUES = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)


class Way:
    """Both ends of the way between an insurer, which gives, and a clinic; and what each sent."""

    def __init__(self, timeout_s: float = 20.0) -> None:
        self._source, self._target = recording_pair()
        log: dict[str, Any] = {"log": CountingLog(), "timeout_s": timeout_s}
        self.source = Channel(self._source, me="insurer", peer="clinic", **log)
        self.target = Channel(self._target, me="clinic", peer="insurer", **log)

    @property
    def from_source(self) -> list[Any]:
        return self._source.messages()

    @property
    def from_target(self) -> list[Any]:
        return self._target.messages()

    def put(self, frame: bytes) -> None:
        """Let the source send a frame that its channel would not."""
        self._source.send(None, [frame], 1.0, lambda: None)

    @property
    def frames(self) -> list[bytes]:
        return self._source.frames

    def together(self, source: Callable[[], Any], target: Callable[[], Any]) -> tuple[Any, Any]:
        """Run both sides; gives what each returned, or the exception that ended it."""
        outcome: list[Any] = [None, None]

        def one(place: int, side: Callable[[], Any]) -> None:
            try:
                outcome[place] = side()
            except Exception as failure:
                outcome[place] = failure
                (self.source, self.target)[place].close()

        threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate((source, target))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a side hangs"
        return outcome[0], outcome[1]

    def close(self) -> None:
        self.source.close()
        self.target.close()


@pytest.fixture
def way() -> Iterator[Callable[..., Way]]:
    made: list[Way] = []

    def make(**options: Any) -> Way:
        made.append(Way(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- what goes over --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", ["score", "embedding"])
def test_nothing_but_the_embedding_of_the_shared_rows_leaves_the_source(way, tmp_path: Path, give: Any):
    generator = np.random.default_rng(5)
    columns = [Column(name, "number", generator.normal(size=90)) for name in ("x", "y")]
    label = (columns[0].values > 0).astype(np.float32)
    shared = generator.permutation(90)[:17]
    plan = PretrainPlan(hidden=(8, 4), epochs=2, folds=3)
    link = way()

    def source() -> bool:
        with speaking(link.source, Topic.TRAIN, then=Step.EMBEDDING):
            learnt = pretrain(
                columns, label, shared, plan, party="insurer", alignment_digest="2" * 64, private_seed=1, identity="i",
                folder=tmp_path,
            )  # fmt: skip
        self_told.append(learnt.given(give))
        return give_embedding(link.source, self_told[0], may_split=True)

    self_told: list[Any] = []
    width = 1 if give == "score" else 4
    split, received = link.together(source, lambda: receive_embedding(link.target, 17, width, split=False))
    assert split is False and received.dtype == np.float64
    np.testing.assert_array_equal(received, self_told[0].astype(np.float64))
    sent = link.from_source
    assert all((message.topic, message.step) == (Topic.TRAIN, Step.EMBEDDING) for message in sent)
    assert [dict(message.fields) for message in sent] == [{"rows": 17, "width": width}, {"chunk": 0}, {"end": 1}]
    arrays = [array for message in sent for array in message.arrays.values()]
    assert sum(array.size for array in arrays) == 17 * width and arrays[0].dtype == np.float32
    (answer,) = link.from_target
    assert (answer.step, dict(answer.fields), answer.arrays) == (Step.READY, {"split": False}, {})


def test_many_rows_go_over_in_chunks_and_in_order(way):
    values = np.arange(2 * (CHUNK_ROWS + 5), dtype=np.float32).reshape(-1, 2)
    link = way()
    split, received = link.together(
        lambda: give_embedding(link.source, values, may_split=True),
        lambda: receive_embedding(link.target, len(values), 2, split=True),
    )
    assert split is True
    np.testing.assert_array_equal(received, values)
    assert [len(array) for message in link.from_source for array in message.arrays.values()] == [CHUNK_ROWS, 5]


def test_the_target_waits_longer_than_a_deadline_while_the_source_says_that_it_works(way):
    link = way(timeout_s=0.3)

    def source() -> bool:
        with speaking(link.source, Topic.TRAIN, then=Step.EMBEDDING):
            time.sleep(0.8)
        return give_embedding(link.source, VALUES, may_split=True)

    split, received = link.together(source, lambda: receive_embedding(link.target, 7, 3, split=False))
    assert split is False
    np.testing.assert_array_equal(received, VALUES)


def test_a_source_in_silence_is_named_after_the_deadline(way):
    link = way(timeout_s=0.2)
    with pytest.raises(PeerFailure) as caught:
        receive_embedding(link.target, 7, 3, split=False)
    assert caught.value.code == "peer.deadline"
    assert (caught.value.facts["peer"], caught.value.facts["step"]) == ("insurer", "embedding")


def test_a_source_that_fails_while_it_learns_ends_the_targets_waiting(way):
    link = way()

    def source() -> None:
        with speaking(link.source, Topic.TRAIN, then=Step.EMBEDDING):
            raise InputError("train.diverged", epoch=1)

    failure, received = link.together(source, lambda: receive_embedding(link.target, 7, 3, split=False))
    assert (failure.code, received.code) == ("train.diverged", "peer.gone")


# --- what is refused -------------------------------------------------------------------------------------------------

SAY = {"rows": 7, "width": 3}


def _say(channel: Channel, *messages: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for fields, arrays in messages:
        channel.send(Topic.TRAIN, Step.EMBEDDING, fields, arrays)


@pytest.mark.parametrize(
    "messages",
    [
        [({"rows": 8, "width": 3}, {})],
        [({"rows": 7, "width": 4}, {})],
        [({"rows": 7, "width": 3, "label": 1}, {})],
        [({}, {})],
        [(SAY, {"items": VALUES})],
        [({"working": 1, "rows": 7}, {})],
        [({"working": True}, {"items": VALUES})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES.astype(np.float64)})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES.astype(np.float16)})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES[:, :2]})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES[:, 0]})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES[:6]})],
        [(SAY, {}), ({"chunk": 1}, {"items": VALUES})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES, "more": VALUES})],
        [(SAY, {}), ({"end": 0}, {})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES}), ({"chunk": 1}, {"items": VALUES})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES}), ({"chunk": 1}, {"items": VALUES[:0]})],
        [(SAY, {}), ({"chunk": 0}, {"items": VALUES}), ({"end": 2}, {})],
    ],
)
def test_what_is_not_the_embedding_that_is_due_is_refused(way, messages: list[Any]):
    link = way()
    _say(link.source, *messages)
    with pytest.raises(PeerFailure) as caught:
        receive_embedding(link.target, 7, 3, split=False)
    assert caught.value.code == "peer.protocol" and not link.from_target


def test_a_value_that_is_no_number_is_refused(way):
    honest, link = way(), way()
    _say(honest.source, (SAY, {}), ({"chunk": 0}, {"items": VALUES}))
    announced, chunk = honest.frames
    number = VALUES[2, 1].tobytes()
    assert chunk.count(number) == 1
    link.put(announced)
    link.put(chunk.replace(number, np.float32("nan").tobytes()))
    with pytest.raises(PeerFailure) as caught:
        receive_embedding(link.target, 7, 3, split=False)
    assert caught.value.code == "peer.protocol"


def test_an_embedding_that_says_the_same_of_all_is_the_sources_to_mend(way):
    link = way()
    _, failure = link.together(
        lambda: give_embedding(link.source, np.ones((7, 3), np.float32), may_split=True),
        lambda: receive_embedding(link.target, 7, 3, split=False),
    )
    assert isinstance(failure, InputError)
    assert (failure.code, failure.facts) == ("embedding.constant", {"party": "insurer"})


@pytest.mark.parametrize(
    ("fields", "arrays"),
    [
        ({"split": 1}, {}),
        ({"split": "yes"}, {}),
        ({}, {}),
        ({"split": True, "labelled": 900}, {}),
        ({"split": True}, {"label": np.ones(7, np.float32)}),
    ],
)
def test_the_answer_is_yes_or_no_and_nothing_else(way, fields: dict[str, Any], arrays: dict[str, Any]):
    link = way()
    link.target.send(Topic.TRAIN, Step.READY, fields, arrays)
    with pytest.raises(PeerFailure) as caught:
        give_embedding(link.source, VALUES, may_split=True)
    assert caught.value.code == "peer.protocol"


def test_a_yes_that_the_job_does_not_allow_is_refused(way):
    link = way()
    link.target.send(Topic.TRAIN, Step.READY, {"split": True})
    with pytest.raises(PeerFailure) as caught:
        give_embedding(link.source, VALUES, may_split=False)
    assert caught.value.code == "peer.protocol"
