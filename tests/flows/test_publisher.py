"""The publisher: what a policy does not publish does not leave."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from isthmus.flows import publisher as module
from isthmus.flows.publisher import Publisher
from isthmus.parties.errors import InputError, PeerFailure, PolicyRefusal
from isthmus.parties.events import (
    Count,
    Curve,
    Fingerprint,
    Finished,
    Metric,
    Phase,
    Progress,
    PublicEvent,
    Resumed,
    Started,
    Traffic,
)
from isthmus.parties.network.message import Topic
from isthmus.parties.policy import Policy

ALIASES = ("lab", "insurer")
TRAFFIC = Traffic.model_validate(
    {"peer": "insurer", "topic": "align", "sent": 33 * 1234, "received": 5}, context={"aliases": ALIASES}
)
EVENTS: dict[str, PublicEvent] = {
    "count": Count(name="rows", value=1234),
    "traffic": TRAFFIC,
    "metric": Metric(name="auc", part="test", value=0.75),
    "curve": Curve(name="roc", part="test", x=(0.0,), y=(1.0,)),
    "started": Started(phase=Phase.ALIGN),
    "fingerprint": Fingerprint(name="job", value="0" * 64),
    "resumed": Resumed(phase=Phase.ALIGN),
    "finished": Finished(phase=Phase.ALIGN, seconds=1.0),
}


class Pipe:
    """What a publisher has written."""

    def __init__(self, *publish: str, obeys: bool = True) -> None:
        self.bytes = b""
        self.tell = Publisher(self._write, ALIASES)
        if obeys:
            self.tell.obey(Policy(publish=publish))  # type: ignore[arg-type]

    def _write(self, line: bytes) -> None:
        self.bytes += line

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.bytes.splitlines()]


def _progress(done: int, total: int, index: int = 1, phase: Phase = Phase.ALIGN) -> Progress:
    return Progress(phase=phase, index=index, units=2, done=done, total=total)


@pytest.mark.parametrize(
    ("publish", "withheld"),
    [
        ((), {"count", "traffic", "metric", "curve"}),
        (("counts",), {"metric", "curve"}),
        (("metrics",), {"count", "traffic", "curve"}),
        (("curves",), {"count", "traffic", "metric"}),
        (("counts", "metrics", "curves"), set()),
    ],
)
def test_what_the_policy_does_not_publish_is_withheld(publish: tuple[str, ...], withheld: set[str]) -> None:
    pipe = Pipe(*publish)
    for event in EVENTS.values():
        pipe.tell(event)
    assert [event["event"] for event in pipe.events] == [name for name in EVENTS if name not in withheld]


def test_before_a_policy_was_read_nothing_is_published() -> None:
    pipe = Pipe(obeys=False)
    for event in EVENTS.values():
        pipe.tell(event)
    pipe.tell(_progress(617, 1234))
    assert b"1234" not in pipe.bytes
    assert {event["event"] for event in pipe.events} == {"started", "fingerprint", "resumed", "finished"}


def test_without_counts_progress_says_the_same_whatever_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", 0.0)
    pipes = []
    for total in (0, 617, 1234, 9_999):
        pipes.append(pipe := Pipe("metrics", "curves"))
        for index in (1, 2):
            for done in (*range(617, total, 617), total):  # a chunk at a time
                pipe.tell(_progress(done, total, index=index))
    assert {pipe.bytes for pipe in pipes} == {pipes[0].bytes}
    assert [(event["index"], event["done"], event["total"]) for event in pipes[0].events] == [(1, 1, 1), (2, 1, 1)]


def test_with_counts_progress_is_what_it_is() -> None:
    pipe = Pipe("counts")
    pipe.tell(_progress(617, 1234))
    assert (pipe.events[0]["done"], pipe.events[0]["total"]) == (617, 1234)


def test_progress_is_told_now_and_then_but_its_end_and_every_new_unit_always() -> None:
    pipe = Pipe("counts")
    for index in (1, 2):
        for done in range(1, 101):
            pipe.tell(_progress(done, 100, index=index))
    said = [(event["index"], event["done"]) for event in pipe.events]
    assert [said[0], (1, 100) in said, (2, 1) in said, said[-1]] == [(1, 1), True, True, (2, 100)]
    assert len(said) < 100


def test_progress_is_told_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_EVERY_S", 0.0)
    pipe = Pipe("counts")
    for done in range(1, 6):
        pipe.tell(_progress(done, 10))
    assert len(pipe.events) == 5


def test_the_rows_that_a_failure_counts_are_withheld_as_counts_are() -> None:
    error = InputError("data.row_id", party="lab", dataset="results", count=1234)
    for publish, numbers in (((), {}), (("metrics",), {}), (("counts",), {"count": 1234})):
        pipe = Pipe(*publish)
        pipe.tell.failure(Phase.AGREE, error)
        assert pipe.events[0]["numbers"] == numbers
        assert pipe.events[0]["names"] == {"party": "lab"}


def test_numbers_that_count_no_rows_are_told() -> None:
    pipe = Pipe()
    pipe.tell.failure(Phase.AGREE, PolicyRefusal("policy.rounds", party="lab", asked=30, allowed=5))
    pipe.tell.failure(Phase.TRAIN, PeerFailure("peer.deadline", party="lab", peer="insurer", topic="train", seconds=60))
    assert [event["numbers"] for event in pipe.events] == [{"asked": 30, "allowed": 5}, {"seconds": 60}]


def test_a_failure_says_nothing_that_the_job_does_not_name() -> None:
    pipe = Pipe("counts", "metrics", "curves")
    error = InputError(
        "home.invalid", where="PLANTED", detail="PLANTED", party="lab", field="PLANTED", problem="PLANTED"
    )
    pipe.tell.failure(Phase.AGREE, error)
    pipe.tell.failure(Phase.AGREE, InputError("data.column_unknown", party="PLANTED", column="PLANTED"))
    assert b"PLANTED" not in pipe.bytes


def test_a_name_that_the_job_does_not_hold_is_never_written() -> None:
    pipe = Pipe("counts")
    alien = Traffic.model_construct(peer="PLANTED", topic=Topic.TRAIN, sent=1, received=1)
    with pytest.raises(ValidationError):
        pipe.tell(alien)
    assert pipe.bytes == b""


def test_an_event_is_one_line() -> None:
    pipe = Pipe("counts", "metrics", "curves")
    for event in EVENTS.values():
        pipe.tell(event)
    assert pipe.bytes.count(b"\n") == len(EVENTS)
    assert pipe.bytes.endswith(b"}\n")
