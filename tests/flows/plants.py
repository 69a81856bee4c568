"""Strings to be found again if they leak: put into a party's rows, SQL and errors."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

VERBOSE = {"PREFECT_LOGGING_LEVEL": "DEBUG"}
PLANTS = {
    "identifier": "plantedidentifier77",
    "value": "plantedvalue77",
    "column": "plantedcolumn77",
    "number": "7731457731457",
    "small number": "37.31457731457",
    "sql": "plantedsql77",
    "failure": "plantedfailure77",
}


def plant(world: Any, *, fail: bool) -> None:
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


def plant_in_star(star: Any, *, fail: bool) -> None:
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


def forms(text: str) -> list[bytes]:
    """The plant as it stands, in hexadecimal, and in base64 at each of the three places it can begin."""
    raw = text.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode()]
    for offset in range(3):
        coded = base64.b64encode(b"x" * offset + raw + b"x" * (-(offset + len(raw)) % 3))
        found.append(coded[4 if offset else 0 : -4])
    return found


def found_in(places: Mapping[str, bytes], secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Where a secret is, in any of its forms: the place and the secret."""
    looked = {secret: forms(secret) for secret in secrets}
    return [
        (place, secret)
        for place, content in places.items()
        for secret, coded in looked.items()
        if any(form in content for form in coded)
    ]
