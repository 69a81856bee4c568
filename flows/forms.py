"""The form of a kind of job in the Prefect UI: what its deployment says its parameters are.

Prefect draws a form from the flow's signature, and takes a job's short ways of writing for choices: a list of columns
would be a list of tabs, each "a name or a column". The form asks for a job as it is agreed on, with all its fields
(`Job.canonical`), and helps the UI where it guesses: which member of a union a value is, what a field with only one
value may be.
"""

from __future__ import annotations

import sys
from typing import Any

from .kinds import room

Schema = dict[str, Any]

TITLES = {"job": "Job", "fresh": "Start over", "baselines": "Baselines", "signature": "Signature"}


def form_of(kind: str, drawn: Schema, *, without: frozenset[str] = frozenset()) -> Schema:
    """The form of one kind of job, out of the one that Prefect has `drawn` from its flow: an OpenAPI schema.

    `without` names parameters of the flow that the form leaves out.
    """
    job = room(kind, "job").JOB
    schema: Schema = job.model_json_schema(mode="serialization", ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = {**schema.pop("$defs", {}), job.__name__: schema}
    for definition in definitions.values():
        for field in definition.get("properties", {}).values():
            if "const" in field:  # a choice of one, which is already made: otherwise it is a text to be typed
                field.update(enum=[field["const"]], default=field["const"])
            if "anyOf" in field:
                field["anyOf"].sort(key=lambda member: _place(member, definitions))
            if "default" in field and field["default"] is None:
                del field["default"]  # the UI would send it, though all else is left empty
    parameters = {name: field for name, field in drawn["properties"].items() if name not in without}
    return {
        **drawn,
        "properties": {name: {**field, "title": TITLES[name]} for name, field in parameters.items()},
        "definitions": definitions,
    }


def _place(member: Schema, definitions: dict[str, Schema]) -> int:
    """Where a member of a union stands: by how many fields it has, and none at all at the end.

    The UI takes a value for the first member that shares most fields with it: of two that share as many, the value is
    of the smaller one. What has no value yet is taken for the first.
    """
    if member.get("type") == "null":
        return sys.maxsize
    name = member.get("$ref", "").rpartition("/")[2]
    return len(definitions[name].get("properties", {})) if name in definitions else 0
