"""Homes out of the data that comes with isthmus: what the demo and the five hospitals have in common.

A home made here carries a marker, and beside the name of each file what was last written into it. So a home of
somebody else is never touched, a file that somebody has edited since is kept, and data is written anew only when other
rows are wanted. State, runs, models and keys stay where they are.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import duckdb

from ..parties.errors import InputError
from ..parties.files import PRIVATE, PUBLIC, make_private_folder, write_whole
from ..parties.home import PARTY_FILE

MARKER = ".isthmus-demo.json"


def refuse_strangers(home: Path) -> None:
    """Raise `InputError` ``home.foreign`` for a folder with content that was not made here."""
    if home.exists() and any(home.iterdir()) and not (home / MARKER).is_file():
        raise InputError("home.foreign", party=home.name)


def claim(home: Path) -> None:
    """Make a home's folder, for its owner alone, known as ours from here on, even if we are stopped."""
    make_private_folder(home)
    marker = home / MARKER
    if not marker.is_file():
        write_whole(marker, b"{}\n")


def make_data(path: Path, wanted: Mapping[str, Any], tables: Template) -> None:
    """Write a party's DuckDB file with SQL, unless it is there with just these rows.

    `tables` is filled in with `wanted`, and with `identities` and `support2`, the paths of the files in flows/data.
    `wanted` is also what tells one content from another: whoever changes `tables` raises a version in it.
    """
    tag = _digest(json.dumps(wanted, sort_keys=True))
    if path.is_file() and _marks(path).get(path.name) == tag:
        return
    _mark(path, "unfinished")
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    data = importlib.resources.files(__package__) / "data"
    with (
        importlib.resources.as_file(data / "identities.parquet") as identities,
        importlib.resources.as_file(data / "support2.parquet") as support2,
        duckdb.connect(temporary) as connection,
    ):
        paths = {"identities": _quoted(identities), "support2": _quoted(support2)}
        connection.execute(tables.substitute(wanted, **paths))
    temporary.replace(path)
    _mark(path, tag)


def write_unless_edited(path: Path, text: str) -> None:
    """Write a file that people may edit: not if it is there and differs from what was written last.

    A party.yaml is for its owner alone.
    """
    if path.is_file():
        there = path.read_text(encoding="utf-8")
        if there == text or _digest(there) != _marks(path).get(path.name):
            return
    write_whole(path, text.encode(), mode=PRIVATE if path.name == PARTY_FILE else PUBLIC)
    _mark(path, _digest(text))


# --- below: the marker -----------------------------------------------------------------------------------------------


def _marks(path: Path) -> dict[str, str]:
    """What was noted of the files beside `path`: their names and what was written into them."""
    marker = path.with_name(MARKER)
    marks: dict[str, str] = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
    return marks


def _mark(path: Path, tag: str) -> None:
    text = json.dumps(_marks(path) | {path.name: tag}, indent=2)
    write_whole(path.with_name(MARKER), text.encode() + b"\n")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
