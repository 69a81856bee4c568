"""Orders: plain JSON that says which run of which job, and everything else is refused before a vault hears of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.flows.workers.orders import MOST_NBYTES, order_of
from isthmus.parties.errors import InputError
from isthmus.parties.events import Phase

JOB = VerticalJob.model_validate(
    {
        "name": "heart",
        "purpose": "testing",
        "parties": [
            {"name": "insurer", "dataset": "members", "columns": ["age"], "label": "died"},
            {"name": "lab", "dataset": "results", "columns": ["*"]},
        ],
        "align": {"passes": [["national_id"]], "at_least": 20},
    }
)
PHASES = [phase.value for phase in JOB.phases]


def order(**changes: Any) -> dict[str, Any]:
    true = {"job": JOB.canonical(), "start": None, "run": JOB.run_name(1), "phases": PHASES}
    return {"order": {**copy.deepcopy(true), **changes}}


def refused(parameters: dict[str, Any], party: str = "lab") -> InputError:
    with pytest.raises(InputError) as caught:
        order_of(parameters, party)
    assert caught.value.code == "order.invalid"
    return caught.value


def test_an_order_of_a_coordinator_is_read() -> None:
    read, job = order_of(order(), "lab")
    assert (read.run, read.phases, read.fresh, read.timeout_s) == (JOB.run_name(1), JOB.phases, False, 60.0)
    assert job == JOB


@pytest.mark.parametrize(
    "reference",
    [
        {"$ref": {"block_document_id": "8e1d3b3e-9f2e-4f6a-9a55-2d1a1f0b7a11"}},
        {"$ref": "#/definitions/order"},
        {"__prefect_kind": "json", "value": "{}"},
        {"__prefect_kind": "jinja", "template": "{{ x }}"},
        {"__prefect_kind": "workspace_variable", "variable_name": "order"},
        {"__prefect_kind": "none", "value": {}},
        {"__prefect_block_type": "secret"},
        {"__pydantic__": "os.system"},
        {"py/object": "os.system"},
        "{{ prefect.blocks.secret.order }}",
        "{{ prefect.variables.order }}",
        "$order",
        "gASVAAAAAAAAAC4=",
    ],
)
def test_no_reference_stands_for_an_order_nor_for_any_part_of_it(reference: Any) -> None:
    refused({"order": reference})
    refused(reference if isinstance(reference, dict) else {"order": [reference]})
    for field in ("job", "start", "run", "phases", "fresh", "timeout_s"):
        refused(order(**{field: reference}))
    for field in ("name", "kind", "parties", "align", "model", "training", "exchange"):
        refused(order(job={**JOB.canonical(), field: reference}))
    if isinstance(reference, dict):
        refused({"order": {**order()["order"], **reference}})
        refused(order(job={**JOB.canonical(), **reference}))


@pytest.mark.parametrize(
    "word",
    ["command", "entrypoint", "pull_steps", "env", "image", "working_dir", "home", "socket", "by_exchange", "policy"],
)
def test_no_field_takes_a_word_about_how_it_is_to_be_done(word: str) -> None:
    refused({**order(), word: "touch /evil/x"})
    refused(order(**{word: "touch /evil/x"}))
    refused(order(job={**JOB.canonical(), word: "touch /evil/x"}))


@pytest.mark.parametrize(
    "run",
    [
        "", ".", "..", "../../etc/cron.d/x", "/evil/x", "a/b", "a\\b", "~root", "heart-1", "a\0b", "a\nb", "é" * 9,
        "x" * 100_000, JOB.run_name(1) + "/..", JOB.run_name(1) + "\n", "../" + JOB.run_name(1), JOB.run_name(0),
        JOB.run_name(1) + "0" * 12, JOB.run_name(1).upper(), "other-" + JOB.run_name(1), 7, None, ["x"],
    ],
)  # fmt: skip
def test_a_run_has_the_name_of_a_run_of_this_very_job(run: Any) -> None:
    refused(order(run=run))


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": []}, {"phases": ["agree"] * 100}, {"phases": ["rm"]}, {"phases": "agree"}, {"phases": [None]},
        {"timeout_s": 0}, {"timeout_s": -1}, {"timeout_s": 1e308}, {"timeout_s": float("inf")},
        {"timeout_s": float("nan")}, {"timeout_s": "NaN"}, {"fresh": "perhaps"}, {"fresh": []}, {"start": {}},
        {"start": "signature"}, {"job": {}}, {"job": []}, {"job": {"kind": "../../evil"}},
        {"job": {"kind": "os.system"}}, {"job": {"kind": ["vertical"]}},
        {"job": {**JOB.canonical(), "kind": "statistics"}},
    ],
)  # fmt: skip
def test_wrong_types_and_numbers_are_refused(changes: dict[str, Any]) -> None:
    refused(order(**changes))


@pytest.mark.parametrize(
    "parameters", [{}, {"order": None}, {"order": []}, {"order": order()}, {"Order": order()["order"]}]
)
def test_there_is_one_parameter_and_it_is_an_order(parameters: dict[str, Any]) -> None:
    refused(parameters)


def test_an_order_for_a_job_without_this_party_is_refused() -> None:
    assert "takes no part" in str(refused(order(), "clinic"))


def test_a_long_order_is_refused() -> None:
    refused(order(job={**JOB.canonical(), "purpose": "x" * MOST_NBYTES}))


@pytest.mark.parametrize("depth", [300, 5_000, 200_000])
def test_a_deep_order_is_refused(depth: int) -> None:
    nested: Any = "x"
    for _ in range(depth):
        nested = [nested]
    refused(order(job={**JOB.canonical(), "model": nested}))
    refused({"order": nested})


def test_what_is_refused_is_not_repeated_to_the_server() -> None:
    marked = "<script>\x1b[31mmarked7731"
    for parameters in (
        {"order": marked},
        {marked: 1},
        order(run=marked),
        order(**{marked: 1}),
        order(phases=[marked]),
        order(start=marked),
        order(job={"kind": marked}),
        order(job={**JOB.canonical(), marked: 1}),
        order(job={**JOB.canonical(), "name": marked}),
        order(timeout_s=marked),
    ):
        assert "marked7731" not in refused(parameters).text()


def test_the_phases_are_those_that_there_are() -> None:
    read, _ = order_of(order(phases=["close"]), "lab")
    assert read.phases == (Phase.CLOSE,)  # what the vault makes of that is its own to judge
