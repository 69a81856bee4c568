"""A party's home: the folder with its `party.yaml`, its data, its state and its runs.

::

    lab/
      party.yaml         written by the party's engineer: data, datasets, policy
      lab.duckdb         the rows; opened read-only and briefly
      state.duckdb       ours: runs, alignments, the ledger
      state.lock         held while that is open
      ledger.key         0600; makes the ledger's chain
      identity.key       0600; what the party signs with (see `identity`)
      tls.key, tls.crt   the key is 0600; what the party opens connections to an exchange with
      NAME.member.yaml   the public halves, to hand to whoever keeps the roster
      roster.yaml        the roster that the party has accepted, and
      roster.pin         its version and digest (see `consortium`)
      roster.next.yaml   a later one, while it is being accepted, and
      roster.lock        held meanwhile
      paused             there while the party takes part in nothing (see `pause`)
      runs/<run>/        the vault's log and checkpoints
      models/<run>/      the party's part of a finished model

The folder is 0700 where `isthmus init` or the demo has made it.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import InputError, InternalError, disk_errors, plain_problem
from .files import PRIVATE, is_open_to_others, write_once
from .policy import Policy
from .table import ColumnKind

PARTY_FILE = "party.yaml"
LEDGER_KEY_FILE, IDENTITY_KEY_FILE = "ledger.key", "identity.key"
ROSTER_FILE, NEXT_ROSTER_FILE, PIN_FILE = "roster.yaml", "roster.next.yaml", "roster.pin"
ROSTER_FILES = (ROSTER_FILE, NEXT_ROSTER_FILE, PIN_FILE)  # one that is there tells of a roster that was accepted
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
KEY_NBYTES = 32


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IdentifierConfig(_Part):
    """One linkage field: a column, or several whose order does not matter; dates with their format."""

    columns: tuple[str, ...] = Field(min_length=1)
    format: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """`surname`, `[given_name, surname]` and `{column: born, format: "%Y"}` are all allowed."""
        if isinstance(value, str):
            return {"columns": (value,)}
        if isinstance(value, list):
            return {"columns": tuple(value)}
        if isinstance(value, dict) and "column" in value:
            return {**{key: item for key, item in value.items() if key != "column"}, "columns": (value["column"],)}
        return value


class DatasetConfig(_Part):
    """One SQL query over the party's data, and what its columns mean."""

    sql: str
    row_id: str
    identifiers: dict[str, IdentifierConfig] = Field(default_factory=dict)
    types: dict[str, ColumnKind] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)  # by column: what its numbers are measured in


class PartyConfig(_Part):
    """The content of `party.yaml`."""

    name: str = Field(pattern=NAME_PATTERN)
    data: str | None = None  # a DuckDB file; without one, the SQL reads Parquet, CSV or what is attached
    attach: dict[str, str] = Field(default_factory=dict)  # alias → DuckDB file or connection string, always read-only
    datasets: dict[str, DatasetConfig] = Field(default_factory=dict)
    policy: Policy = Policy()
    keys: dict[str, str] = Field(default_factory=dict)  # peers' public keys in hex, as `isthmus keys` prints them
    seed: int | None = None  # fixes initial weights and dropout, so that a simulation can be repeated

    @field_validator("attach")
    @classmethod
    def _plain_names(cls, value: dict[str, str]) -> dict[str, str]:
        if bad := [alias for alias in value if not alias.isidentifier()]:
            raise ValueError(f"{bad[0]!r} is not a plain name")
        return value

    @field_validator("keys")
    @classmethod
    def _public_keys(cls, value: dict[str, str]) -> dict[str, str]:
        if bad := [name for name, key in value.items() if not re.fullmatch(r"[0-9a-f]{64}", key)]:
            raise ValueError(f"the key of {bad[0]!r} is not 64 hexadecimal digits")
        return value

    @model_validator(mode="after")
    def _released_datasets_exist(self) -> PartyConfig:
        if unknown := sorted(set(self.policy.release) - set(self.datasets)):
            raise ValueError(f"policy.release names dataset {unknown[0]!r}, which `datasets` does not define")
        return self


class PartyHome:
    """One party's folder and its configuration.

    Raises `InputError` ``home.missing`` and ``home.invalid``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # its own name, even where it is a link
        self.config = _read_config(self.folder)
        self.name = self.config.name

    @property
    def data_file(self) -> Path | None:
        """The party's DuckDB file, if it has one."""
        return self.folder / self.config.data if self.config.data else None

    @property
    def state_file(self) -> Path:
        """The engine's own state."""
        return self.folder / "state.duckdb"

    def run_folder(self, run: str) -> Path:
        """Log and checkpoints of one run."""
        return self.folder / "runs" / run

    def model_folder(self, run: str) -> Path:
        """The party's part of the model of one run."""
        return self.folder / "models" / run

    def has_ledger_key(self) -> bool:
        """Whether the ledger's key was made already."""
        return (self.folder / LEDGER_KEY_FILE).exists()

    def ledger_key(self) -> bytes:
        """The 32 bytes that key the ledger's chain, made at first use and readable by the owner alone.

        Raises `InternalError` ``ledger.broken`` for a file that holds something else, and `InputError`
        ``home.key_mode``.
        """
        self._make_key(LEDGER_KEY_FILE)
        key = read_private(self.folder / LEDGER_KEY_FILE, self.name)
        if len(key) != KEY_NBYTES:
            detail = f"{LEDGER_KEY_FILE} is not {KEY_NBYTES} bytes"
            raise InternalError("ledger.broken", party=self.name, entry=0, detail=detail)
        return key

    def has_had_a_roster(self) -> bool:
        """Whether the party has ever accepted a roster: then others know its key, and no new one takes its place."""
        return any((self.folder / name).exists() for name in ROSTER_FILES)

    def make_identity_key(self) -> None:
        """Make the key that the party signs with, readable by the owner alone, unless it is there."""
        self._make_key(IDENTITY_KEY_FILE)

    def identity_key(self) -> bytes:
        """The 32 bytes of the key that the party signs with.

        Raises `InputError` ``home.no_identity``, ``home.invalid`` for a file that holds something else, and
        ``home.key_mode``.
        """
        path = self.folder / IDENTITY_KEY_FILE
        if not path.is_file():
            raise InputError("home.no_identity", party=self.name)
        key = read_private(path, self.name)
        if len(key) != KEY_NBYTES:
            del key  # a trace may show what a frame holds
            problem = f"it does not hold {KEY_NBYTES} bytes"
            raise InputError("home.invalid", party=self.name, field=IDENTITY_KEY_FILE, problem=problem)
        return key

    @property
    def tls_key_file(self) -> Path:
        """The private key of the party's TLS certificate; made by `isthmus init`."""
        return self.folder / "tls.key"

    @property
    def tls_certificate_file(self) -> Path:
        """The party's TLS certificate; made by `isthmus init`."""
        return self.folder / "tls.crt"

    def tls_key(self) -> bytes:
        """The private key (PEM) that the party opens connections with.

        Raises `InputError` ``home.no_certificate`` and ``home.key_mode``.
        """
        return read_private(self.tls_key_file, self.name)

    def tls_certificate(self) -> bytes:
        """The certificate (PEM) that the party opens connections with. Raises `InputError` ``home.no_certificate``."""
        return read_certificate(self.tls_certificate_file, self.name)

    def _make_key(self, name: str) -> None:
        if not (self.folder / name).exists():
            write_once(self.folder / name, secrets.token_bytes(KEY_NBYTES), party=self.name, mode=PRIVATE)


def read_private(path: Path, party: str) -> bytes:
    """A private key's file. Raises `InputError` ``home.key_mode`` if others than its owner can read it.

    Raises ``home.no_certificate`` if it is not there.
    """
    with disk_errors(party), _there(path, party).open("rb") as file:
        if is_open_to_others(file.fileno()):
            raise InputError("home.key_mode", party=party, file=path.name)
        return file.read()


def read_certificate(path: Path, party: str) -> bytes:
    """A certificate's file. Raises `InputError` ``home.no_certificate`` if it is not there."""
    with disk_errors(party):
        return _there(path, party).read_bytes()


def find_home(homes: Path, party: str) -> Path:
    """The folder of a party below `homes`; raises `InputError` ``job.party_unknown``."""
    folder = homes / party
    if not (folder / PARTY_FILE).is_file():
        raise InputError("job.party_unknown", party=party)
    return folder


def _there(path: Path, party: str) -> Path:
    if not path.is_file():
        raise InputError("home.no_certificate", party=party)
    return path


def _read_config(folder: Path) -> PartyConfig:
    path = folder / PARTY_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError("home.missing", party=folder.name, detail=str(failure)) from failure
    except (yaml.YAMLError, ValueError, RecursionError) as failure:  # a date such as 2020-13-45 is a ValueError
        line = getattr(getattr(failure, "problem_mark", None), "line", 0) + 1
        raise InputError(
            "home.invalid", party=folder.name, field=f"line {line}", problem="this is not YAML", detail=str(failure)
        ) from failure
    try:
        config = PartyConfig.model_validate(content)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError("home.invalid", party=folder.name, field=field, problem=plain_problem(first)) from failure
    if config.name != folder.name:
        raise InputError(
            "home.invalid", party=folder.name, field="name", problem="the folder must have the party's own name"
        )
    return config
