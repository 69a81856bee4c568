"""The forms of jobs in the Prefect UI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from isthmus.flows.coordinate import flow_of
from isthmus.flows.forms import form_of
from isthmus.flows.jobs import load_job
from isthmus.flows.kinds import KINDS

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = {job.kind: job for job in (load_job(path) for path in sorted(EXAMPLES.glob("*.yaml")))}


def _form(kind: str, **options: Any) -> dict[str, Any]:
    return form_of(kind, parameter_schema(flow_of(kind)).model_dump(exclude_unset=True), **options)


def _fields(form: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a form, with what its definition says where it says nothing itself: so does the UI."""
    for where, part in {"": form, **form["definitions"]}.items():
        for name, field in part["properties"].items():
            definition = form["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
            yield f"{where}.{name}", {**definition, **field}


def _guess(value: dict[str, Any], members: list[dict[str, Any]], form: dict[str, Any]) -> dict[str, Any]:
    """Which member of a union the UI takes a value for: the first that shares most fields with it."""
    definitions = [form["definitions"].get(member.get("$ref", "").rpartition("/")[2], {}) for member in members]
    return max(definitions, key=lambda one: len(set(one.get("properties", {})) & set(value)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_takes_the_example_of_its_kind_as_all_agree_on_it(kind: str) -> None:
    form = _form(kind)
    validate({"job": JOBS[kind].canonical(), "fresh": False, "signature": ""}, form, raise_on_error=True)
    refused = {**JOBS[kind].canonical(), "rows": 7}
    assert validate({"job": refused}, form)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_form_is_labelled_and_described_in_words(kind: str) -> None:
    for where, field in _fields(_form(kind)):
        assert re.fullmatch(r"[A-Z][a-z0-9]*( [a-zA-Z0-9]+)*", field["title"]), (where, field["title"])
        assert field.get("description"), where


@pytest.mark.parametrize("kind", KINDS)
def test_no_tab_of_a_form_is_called_by_the_name_of_a_class(kind: str) -> None:
    form = _form(kind)
    for where, field in _fields(form):
        for member in field.get("anyOf", []):
            if "$ref" in member:
                name = member["$ref"].rpartition("/")[2]
                title = form["definitions"][name]["title"]
                assert title != name and not re.search(r"[a-z][A-Z]", title), (where, title)


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_of_a_form_is_a_choice_of_two_ways_to_write_the_same(kind: str) -> None:
    """A choice is between models, between a value and none, or of what an own model's options are."""
    for where, field in _fields(_form(kind)):
        for choice in (field.get("anyOf"), field.get("items", {}).get("anyOf")):
            if choice is not None:
                of_models = all("$ref" in member for member in choice)
                assert of_models or (len(choice) == 2 and {"type": "null"} in choice), (where, choice)


@pytest.mark.parametrize(
    ("kind", "model", "title"),
    [
        ("vertical", {"kind": "network", "bottom": [8], "top": [8], "merge": "sum", "dropout": 0.0}, "Network"),
        ("vertical", {"kind": "logistic"}, "Logistic regression"),
        ("horizontal", {"kind": "network", "hidden": [8], "dropout": 0.1}, "Network"),
        ("horizontal", {"kind": "cox"}, "Linear"),
        ("horizontal", {"kind": "own", "path": "hospital_models.Net", "options": {}}, "Your own"),
    ],
)
def test_the_ui_sees_which_model_a_job_has(kind: str, model: dict[str, Any], title: str) -> None:
    form = _form(kind)
    job = form["definitions"][type(JOBS[kind]).__name__]
    assert _guess(model, job["properties"]["model"]["anyOf"], form)["title"] == title


def test_a_form_begins_with_a_network_unless_another_model_is_chosen() -> None:
    form = _form("vertical")
    model = form["definitions"]["VerticalJob"]["properties"]["model"]
    assert _guess(model["default"], model["anyOf"], form)["title"] == "Network"


def test_a_field_with_one_value_is_a_choice_that_is_made() -> None:
    kind = _form("vertical")["definitions"]["VerticalJob"]["properties"]["kind"]
    assert kind["enum"] == ["vertical"] and kind["default"] == "vertical"


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_that_is_left_empty_sends_nothing(kind: str) -> None:
    """As that of a schedule, which takes the place of the whole job as soon as it sends any of it."""
    for where, field in _fields(_form(kind)):
        assert field.get("default", ...) is not None, where
        assert field.get("anyOf", [{}])[0].get("type") != "null", where


def test_what_members_workers_do_not_take_is_not_in_the_form() -> None:
    assert "baselines" in _form("vertical")["properties"]
    assert "baselines" not in _form("vertical", without=frozenset({"baselines"}))["properties"]
