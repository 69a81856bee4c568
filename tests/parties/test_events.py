"""Events: all that can leave a vault for its flow, and that it cannot be text."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from isthmus.flows.kinds import KINDS, room
from isthmus.parties.catalogue import CATALOGUE
from isthmus.parties.errors import InputError, InternalError, IsthmusError, PeerFailure, error_of
from isthmus.parties.events import Failed, JobField, Phase, PublicEvent, parse, public_failure
from isthmus.parties.network.message import Step, Topic

ALIASES = ("lab", "insurer", "results", "alb")
DIGEST = "0123456789abcdef" * 4

GOOD: list[dict[str, Any]] = [
    {"event": "started", "phase": "agree"},
    {"event": "progress", "phase": "align", "index": 1, "units": 2, "done": 3, "total": 4},
    {"event": "count", "name": "rows", "value": 5},
    {"event": "count", "name": "matched", "value": 5, "linkage_pass": 2},
    {"event": "metric", "name": "auc", "part": "test", "value": 0.75, "low": 0.7, "high": 0.8, "epoch": 3},
    {"event": "metric", "name": "auc", "part": "test", "value": 0.75, "of": "pooled", "subgroup": 0, "level": 1,
     "rows": 9},
    {"event": "round", "round": 3, "loss": 0.5, "validation_loss": 0.6, "validation_score": 0.7, "parties": ["lab"]},
    {"event": "difference", "column": "alb", "what": "unit"},
    {"event": "drift", "column": "alb", "smd": -0.5, "missing": 0.25},
    {"event": "number_summary", "column": "alb", "known": 20, "missing": 9, "mean": 3.5, "mean_step": 0.0,
     "standard_deviation": 1.5, "deviation_step": 0.0, "low": 1.0, "high": 5.0, "quantiles": [[3.0, 3.5, 3.25]],
     "histogram": [[1.0, 5.0, 20]], "with_others": 0},
    {"event": "category_summary", "column": "alb", "counts": [20, 10], "other": 11, "missing": 9, "rest": 20,
     "with_others": 1},
    {"event": "cells", "table": 0, "first": 0, "counts": [10, 11]},
    {"event": "steps", "curve": 0, "stratum": 1, "patients": 20, "steps": [[1.0, 20, 9, 0, 0.5, 0.25, 0.75]]},
    {"event": "chosen", "of": "tuned"},
    {"event": "held_out", "by": "start"},
    {"event": "curve", "name": "roc", "part": "test", "x": [0, 0.5, 1], "y": [0, 0.9, 1]},
    {"event": "traffic", "peer": "insurer", "topic": "train", "sent": 1, "received": 2},
    {"event": "reachable", "up": False},
    {"event": "fingerprint", "name": "model", "value": DIGEST},
    {"event": "signed", "until": 1_790_000_000, "nonce": DIGEST[:32], "signature": 2 * DIGEST},
    {"event": "resumed", "phase": "train", "epoch": 2},
    {"event": "finished", "phase": "close", "seconds": 0.5},
    {"event": "failed", "phase": "agree", "code": "policy.column", "names": {"party": "lab", "column": "alb"}},
    {"event": "failed", "phase": "train", "code": "peer.deadline", "numbers": {"seconds": 60}, "topic": "train",
     "step": "forward", "part": "test", "field": "purpose"},
    {"event": "failed", "phase": "agree", "code": "policy.approval", "names": {"party": "lab"}, "digest": DIGEST},
]  # fmt: skip


def _parse(content: dict[str, Any]) -> Any:
    return parse(json.dumps(content), ALIASES)


@pytest.mark.parametrize("content", GOOD, ids=lambda content: content["event"])
def test_an_event_comes_out_as_it_went_in(content: dict[str, Any]) -> None:
    event = _parse(content)
    assert parse(event.model_dump_json(), ALIASES) == event
    said = event.model_dump(mode="json", exclude_none=True)
    assert {name: said[name] for name in content} == content


def test_every_type_of_event_is_tried_here() -> None:
    kinds = {member.model_fields["event"].default for member in get_args(get_args(PublicEvent)[0])}
    assert kinds == {content["event"] for content in GOOD}


# --- no free text ----------------------------------------------------------------------------------------------------


def _strings(schema: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every place of a JSON schema that accepts text, with the rule for it."""
    found: list[tuple[str, dict[str, Any]]] = []
    if isinstance(schema, dict):
        if schema.get("type") == "string":
            found.append((path, schema))
        for name, inner in schema.items():
            found += _strings(inner, f"{path}/{name}")
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            found += _strings(inner, f"{path}/{number}")
    return found


ALIASED = {
    "/Traffic/properties/peer",
    "/Failed/properties/names/additionalProperties",
    "/Round/properties/parties/items",
    "/Difference/properties/column",
    "/Drift/properties/column",
    "/NumberSummary/properties/column",
    "/CategorySummary/properties/column",
}
CODED = {"/Failed/properties/code"}
HEXADECIMAL = {"^[0-9a-f]{32}$", "^[0-9a-f]{64}$", "^[0-9a-f]{128}$"}  # a nonce, a digest, a signature


def test_every_text_is_an_enumeration_a_digest_or_checked_against_job_and_catalogue() -> None:
    schema = TypeAdapter(PublicEvent).json_schema()
    assert not _strings({name: part for name, part in schema.items() if name != "$defs"})
    free = set()
    for path, rule in _strings(schema["$defs"]):
        if "enum" not in rule and "const" not in rule and rule.get("pattern") not in HEXADECIMAL:
            free.add(path)
    assert free == ALIASED | CODED


def test_every_event_is_closed_and_every_number_bounded() -> None:
    schema = TypeAdapter(PublicEvent).json_schema()
    for name, part in schema["$defs"].items():
        if "properties" in part:
            assert part["additionalProperties"] is False, name

    def integers(inner: Any) -> None:
        if isinstance(inner, dict):
            if inner.get("type") == "integer":
                assert inner["minimum"] == 0
                assert inner["exclusiveMaximum"] == 2**63
            for value in inner.values():
                integers(value)
        elif isinstance(inner, list):
            for value in inner:
                integers(value)

    integers(schema["$defs"])


PLANTED = "PLANTED"


@pytest.mark.parametrize("content", GOOD, ids=lambda content: content["event"])
def test_no_field_takes_a_text_of_ones_own(content: dict[str, Any]) -> None:
    for name, value in content.items():
        for planted in (PLANTED, [PLANTED], {PLANTED: 1}, {"party": PLANTED}, {PLANTED: "lab"}, {"count": PLANTED}):
            with pytest.raises(ValidationError):
                _parse({**content, name: planted})
        if isinstance(value, dict):
            with pytest.raises(ValidationError):
                _parse({**content, name: {**value, "what": "lab"}})
    for extra in ({"text": PLANTED}, {"detail": 1}, {"event_": "started"}):
        with pytest.raises(ValidationError):
            _parse({**content, **extra})


@pytest.mark.parametrize(
    "value", [DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST + "\n", "\n" + DIGEST, DIGEST[:-1] + "g", "", 5, None]
)
def test_a_digest_is_64_hexadecimal_digits_and_no_line_end(value: Any) -> None:
    with pytest.raises(ValidationError):
        _parse({"event": "fingerprint", "name": "job", "value": value})


@pytest.mark.parametrize("value", [-1, 2**63, 10**400, 0.5, "x", None])
def test_a_count_is_a_natural_number_of_63_bits(value: Any) -> None:
    with pytest.raises(ValidationError):
        _parse({"event": "count", "name": "rows", "value": value})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"x"', "null"])
def test_a_metric_is_a_finite_number(value: str) -> None:
    with pytest.raises(ValidationError):
        parse(f'{{"event": "metric", "name": "auc", "part": "test", "value": {value}}}', ALIASES)


def test_a_curve_has_101_points_at_most() -> None:
    curve = {"event": "curve", "name": "roc", "part": "test", "y": []}
    assert len(_parse({**curve, "x": [0] * 101}).x) == 101
    for x in ([0] * 102, [PLANTED], [None], [[0]]):
        with pytest.raises(ValidationError):
            _parse({**curve, "x": x})


@pytest.mark.parametrize("peer", ["clinic", "LAB", "lab ", "", "lab\n", "__class__"])
def test_a_name_that_the_job_does_not_hold_is_refused(peer: str) -> None:
    with pytest.raises(ValidationError):
        _parse({"event": "traffic", "peer": peer, "topic": "train", "sent": 1, "received": 1})


def test_without_aliases_no_name_passes() -> None:
    line = json.dumps({"event": "traffic", "peer": "lab", "topic": "train", "sent": 1, "received": 1})
    assert parse(line, ["lab"])
    with pytest.raises(ValidationError):
        parse(line, [])


@pytest.mark.parametrize(
    "line", ["", "x", "null", "[]", "1", '"started"', "{}", '{"event": "gossip"}', "{" * 5000, b"\xff"]
)
def test_a_line_that_is_no_event_is_refused(line: str | bytes) -> None:
    with pytest.raises(ValidationError):
        parse(line, ALIASES)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2), max_leaves=3
    )
)
def test_whatever_stands_in_a_field_no_other_text_comes_through(value: Any) -> None:
    known = {*ALIASES, *CATALOGUE, *(member.value for kind in (Phase, Topic, Step) for member in kind)}
    for content in GOOD:
        for name in content:
            try:
                event = _parse({**content, name: value})
            except ValidationError:
                continue
            texts = _texts(event.model_dump(mode="json"))
            assert texts <= known | _texts(GOOD) | {"train", "validation"}


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return set().union(*map(_texts, inner)) if inner else set()


# --- failures --------------------------------------------------------------------------------------------------------


def _public(error: IsthmusError) -> Failed:
    event = public_failure(Phase.TRAIN, error, ALIASES)
    parsed = parse(event.model_dump_json(), ALIASES)
    assert parsed == event
    return event


def test_the_names_of_the_job_and_numbers_travel_with_a_failure() -> None:
    error = _public(InputError("data.row_id", party="lab", dataset="results", count=3)).error()
    assert error.text() == InputError("data.row_id", party="lab", dataset="results", count=3).text()
    deadline = PeerFailure("peer.deadline", party="lab", peer="insurer", topic="train", step="forward", seconds=60)
    assert _public(deadline).error().text() == deadline.text()
    differs = InputError("job.not_agreed", party="lab", peer="insurer", field="purpose")
    assert _public(differs).error().text() == differs.text()
    assert isinstance(_public(differs).error(), InputError)


def test_everything_else_of_a_failure_stays() -> None:
    error = InputError(
        "data.column_type",
        where=PLANTED,
        detail=PLANTED,
        party="lab",
        dataset=PLANTED,
        column="postcode",
        problem=PLANTED,
        field=PLANTED,
        topic=PLANTED,
        step=PLANTED,
        part=PLANTED,
        file=PLANTED,
        count=PLANTED,
        seconds=-5,
        asked=10**30,
        rows=7,
    )
    error.__cause__ = ValueError(PLANTED)
    event = _public(error)
    assert event == Failed.model_validate(
        {"phase": "train", "code": "data.column_type", "names": {"party": "lab"}}, context={"aliases": ALIASES}
    )
    assert PLANTED not in event.error().text() + event.model_dump_json()
    hidden = "column '(column: see the party's log)' of lab's dataset '(dataset: see the party's log)'"
    assert event.error().what == f"{hidden} is not what `types:` promises"


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_can_be_told_whatever_its_facts_are(code: str) -> None:
    words = dict.fromkeys(("party", "peer", "field", "topic", "step", "part", "problem", "kind"), PLANTED)
    for facts in ({}, words, dict.fromkeys(words, 7), dict.fromkeys(("count", "entry"), PLANTED)):
        event = _public(error_of(code, **facts))
        assert PLANTED not in event.error().text()
        assert event.error().exit_code == error_of(code).exit_code


def test_an_unknown_code_cannot_be_told() -> None:
    error = InternalError("internal")
    error.code = PLANTED
    with pytest.raises(ValidationError):
        public_failure(Phase.TRAIN, error, ALIASES)


def test_the_fields_that_may_differ_are_those_of_a_job() -> None:
    fields = {field for kind in KINDS for field in room(kind, "job").JOB.model_fields}
    assert set(get_args(JobField)) == fields | {"code"}


def test_enumerations_are_plain_words() -> None:
    kinds: list[type[StrEnum]] = [Phase, Topic, Step]
    assert all(member.value.isalpha() and member.value.islower() for kind in kinds for member in kind)
