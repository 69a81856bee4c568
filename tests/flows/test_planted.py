"""Nothing of a party reaches Prefect: strings are planted in rows, SQL and errors, and looked for in all it keeps."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

PLANTS = {
    "identifier": "plantedidentifier77",
    "value": "plantedvalue77",
    "column": "plantedcolumn77",
    "number": "7731457731457",
    "small number": "37.31457731457",
    "sql": "plantedsql77",
    "failure": "plantedfailure77",
}


def _plant(world: Any, *, fail: bool) -> None:
    world.sql("lab", f"ALTER TABLE t ADD COLUMN {PLANTS['column']} VARCHAR DEFAULT '{PLANTS['value']}'")
    world.sql("lab", f"UPDATE t SET {PLANTS['column']} = 'other' WHERE id < 'l0200'")
    world.sql("lab", f"UPDATE t SET ssn = '{PLANTS['identifier']}', alb = {PLANTS['number']} WHERE id = 'l0200'")
    world.sql("insurer", f"UPDATE t SET ssn = '{PLANTS['identifier']}' WHERE id = 'i0200'")

    def change(content: dict[str, Any]) -> None:
        content["policy"]["release"]["results"]["columns"].append(PLANTS["column"])
        failing = f"error('{PLANTS['failure']}' || max(ssn))" if fail else "count(*)"
        content["datasets"]["results"]["sql"] = (
            f"SELECT * FROM t WHERE '{PLANTS['sql']}' <> '' AND (SELECT {failing} FROM t) IS NOT NULL"
        )

    world.edit_party("lab", change)


def _kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _forms(text: str) -> list[bytes]:
    """The plant as it stands, in hexadecimal, and in base64 at each of the three places it can begin."""
    raw = text.encode()
    forms = [raw, raw.hex().encode(), raw.hex().upper().encode()]
    for offset in range(3):
        coded = base64.b64encode(b"x" * offset + raw + b"x" * (-(offset + len(raw)) % 3))
        forms.append(coded[4 if offset else 0 : -4])
    return forms


@pytest.mark.parametrize(("kind", "fail"), [("world", True), ("world", False), ("transfer_world", False)])
def test_no_planted_string_reaches_prefect_or_the_coordinator(request: Any, server: Any, kind: str, fail: bool) -> None:
    world = request.getfixturevalue(kind)
    _plant(world, fail=fail)
    world.job["name"] = f"planted-{kind.replace('_', '-')}-{'failing' if fail else 'well'}"
    done = _run(world, server, 2 if fail else 0)
    _the_plants_were_reached(world, fail)
    _nothing_is_found(world, server, done)


@pytest.mark.parametrize(("kind", "fail"), [("star", False), ("statistics_star", True)])
def test_no_planted_string_of_a_hospital_reaches_prefect_or_the_coordinator(
    request: Any, server: Any, kind: str, fail: bool
) -> None:
    star = request.getfixturevalue(kind)
    _plant_in_star(star, fail=fail)
    star.job["name"] = f"planted-{kind.replace('_', '-')}-{'failing' if fail else 'well'}"
    done = _run(star, server, 2 if fail else 0)
    if fail:
        (log,) = star.homes.glob("north/runs/*/vault.log")
        assert PLANTS["failure"] + PLANTS["identifier"] in log.read_text()
    else:
        assert list(star.runs.glob("*/report.html"))
    _nothing_is_found(star, server, done)


def _plant_in_star(star: Any, *, fail: bool) -> None:
    """In a hospital: an identifier, a level that the job does not name, a number, a column, SQL, an error's text."""
    star.sql("north", f"ALTER TABLE t ADD COLUMN {PLANTS['column']} VARCHAR DEFAULT '{PLANTS['value']}'")
    number = PLANTS["small number"]
    star.sql("north", f"UPDATE t SET id = '{PLANTS['identifier']}', crea = {number}, sex = '{PLANTS['value']}' "
             "WHERE id = 'n0044'")  # fmt: skip
    failing = f"error('{PLANTS['failure']}' || max(id))" if fail else "count(*)"

    def change(content: dict[str, Any]) -> None:
        content["datasets"]["stays"]["sql"] = (
            f"SELECT * FROM t WHERE '{PLANTS['sql']}' <> '' AND (SELECT {failing} FROM t) IS NOT NULL"
        )

    star.edit_party("north", change)


def _run(world: Any, server: Any, exit_code: int) -> Any:
    verbose = {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    done = world.command("run", str(world.job_file()), env={**server.env, **verbose})
    assert done.returncode == exit_code, done.stderr
    _wait_for_the_last_event(server, f"prefect.flow-run.{'Failed' if exit_code else 'Completed'}", world.job["name"])
    return done


def _nothing_is_found(world: Any, server: Any, done: Any) -> None:
    places: dict[object, bytes] = {**_kept(server.folder), **_kept(world.runs)}
    places |= {"standard output": done.stdout.encode(), "standard error": done.stderr.encode()}
    assert any(path.suffix == ".db" for path in places if isinstance(path, Path))
    assert any(world.job["name"].encode() in content for content in places.values())
    secrets = [*PLANTS.values(), str(world.homes)]
    found = [
        (str(place), secret)
        for place, content in places.items()
        for secret in secrets
        for form in _forms(secret)
        if form in content
    ]
    if "standard output" in {
        place for place, _ in found
    }:  # the paths of the models are printed here, to the user alone
        found = [(place, secret) for place, secret in found if secret != str(world.homes)]
    assert found == []


def _wait_for_the_last_event(server: Any, event: str, run: str) -> None:
    """The server writes events down some seconds late: until then its database does not hold all that it was told."""
    body = json.dumps({"filter": {"event": {"name": [event]}, "order": "DESC"}}).encode()
    for _ in range(60):
        request = urllib.request.Request(f"{server.url}/events/filter", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            found = json.loads(answer.read())["events"]
        if any(one["resource"].get("prefect.resource.name") == run for one in found):
            return
        time.sleep(0.5)
    raise AssertionError(f"the server never wrote {event} of {run}")


def _the_plants_were_reached(world: Any, fail: bool) -> None:
    (log,) = world.homes.glob("lab/runs/*/vault.log")
    if fail:
        assert PLANTS["failure"] + PLANTS["identifier"] in log.read_text()
    else:
        (part,) = world.homes.glob("lab/models/*/part.safetensors")
        content = part.read_bytes()
        assert PLANTS["column"].encode() in content
        assert PLANTS["value"].encode() in content
