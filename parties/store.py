"""Store: a party's datasets, out of its DuckDB.

A dataset is one SQL query over the party's data file, which is opened read-only and briefly, and over whatever that
query reads: Parquet and CSV files beside `party.yaml`, or what `attach:` names (another DuckDB file, a PostgreSQL). The
query is wrapped, so that only the columns a policy has granted are ever selected. What DuckDB itself says about a
failing query goes into the error's `detail`, which stays in the party's log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .home import PartyHome
from .table import Column, ColumnKind, Identifier

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_TEXTS = ("VARCHAR", "ENUM")
_ID, _POSITION = "isthmus_row_id", "isthmus_position"  # no column of a dataset is called so


class Store:
    """Reads one dataset of one party. Every method opens the data file, reads, and closes it."""

    def __init__(self, home: PartyHome, dataset: str) -> None:
        self._home, self._name = home, dataset
        self._dataset = home.config.datasets[dataset]
        self.sql_digest = hashlib.sha256(self._dataset.sql.encode()).hexdigest()

    def kinds(self) -> dict[str, ColumnKind | None]:
        """The dataset's columns and what kind of feature each can be (None: neither number nor text). Reads no row."""
        with self._connection() as connection:
            rows = self._run(connection, f"DESCRIBE SELECT * FROM {self._query}").fetchall()
        return {row[0]: self._dataset.types.get(row[0]) or _kind(row[1]) for row in rows}

    def row_ids(self) -> NDArray[Any]:
        """Every row's id as text, sorted, shape ``(rows,)``.

        Raises `InputError` ``data.empty`` and, when ids are null or repeated, ``data.row_id``.
        """
        with self._connection() as connection:
            ids, distinct, count = self._run(
                connection,
                f"SELECT count({self._row_id}), count(DISTINCT {self._row_id}), count(*) FROM {self._query}",
            ).fetchall()[0]
            if not count:
                raise self._error("data.empty")
            if ids < count or distinct < ids:
                raise self._error("data.row_id", count=count - distinct)
            return _fetch(self._run(connection, f"SELECT {self._row_id} AS id FROM {self._query} ORDER BY 1"))["id"]

    def identifiers(self, names: Sequence[str], row_ids: NDArray[Any]) -> dict[str, Identifier]:
        """Linkage fields of the given rows, in that order, as text.

        Raises `InputError` ``data.identifier_unknown``.
        """
        configs = {}
        for name in names:
            if name not in self._dataset.identifiers:
                raise self._error("data.identifier_unknown", identifier=name)
            configs[name] = self._dataset.identifiers[name]
        columns = list(dict.fromkeys(column for config in configs.values() for column in config.columns))
        texts = self._select({column: f"CAST({_quoted(column)} AS VARCHAR)" for column in columns}, row_ids)
        return {
            name: Identifier([_texts(texts[column]) for column in config.columns], config.format)
            for name, config in configs.items()
        }

    def columns(self, names: Sequence[str], row_ids: NDArray[Any]) -> list[Column]:
        """Features of the given rows, in that order.

        Raises `InputError` for a column that is unknown, of an unusable type, other than promised, or without any
        value.
        """
        if not names:
            return []
        kinds = self._declared_kinds(names)
        casts = {"number": "DOUBLE", "category": "VARCHAR"}
        try:
            found = self._select(
                {name: f"CAST({_quoted(name)} AS {casts[kind]})" for name, kind in kinds.items()}, row_ids
            )
        except _CastError as failure:
            bad = next(name for name, kind in kinds.items() if kind == "number" and self._is_text(name))
            raise self._error("data.column_type", column=bad, detail=failure.detail) from failure
        columns = []
        for name, kind in kinds.items():
            values = _numbers(found[name]) if kind == "number" else _texts(found[name])
            missing = np.isnan(values) if kind == "number" else np.array([value is None for value in values])
            if missing.all():
                raise self._error("data.column_empty", column=name)
            columns.append(Column(name, kind, values))
        return columns

    def label(self, name: str, row_ids: NDArray[Any]) -> NDArray[np.float32]:
        """A binary label of the given rows, in that order: 0 and 1, shape ``(rows,)``.

        Raises `InputError` for a label that is missing somewhere, constant, or not 0 and 1.
        """
        kinds = self.kinds()
        if name not in kinds:
            raise self._error("data.column_unknown", column=name)
        if kinds[name] != "number":
            raise self._error("data.label_not_binary", column=name)
        values = _numbers(self._select({name: f"CAST({_quoted(name)} AS DOUBLE)"}, row_ids)[name])
        if missing := int(np.isnan(values).sum()):
            raise self._error("data.label_missing", column=name, count=missing)
        outcomes = set(np.unique(values).tolist())
        if not outcomes <= {0.0, 1.0}:
            raise self._error("data.label_not_binary", column=name)
        if len(outcomes) < 2:
            raise self._error("data.label_constant", column=name)
        return values.astype(np.float32)

    # --- below: one query --------------------------------------------------------------------------------------------

    @property
    def _query(self) -> str:
        return f"({self._dataset.sql.strip().rstrip(';')}\n) AS dataset"

    @property
    def _row_id(self) -> str:
        return f"CAST({_quoted(self._dataset.row_id)} AS VARCHAR)"

    def _declared_kinds(self, names: Sequence[str]) -> dict[str, ColumnKind]:
        known = self.kinds()
        kinds: dict[str, ColumnKind] = {}
        for name in names:
            if name not in known:
                raise self._error("data.column_unknown", column=name)
            kind = known[name]
            if kind is None:
                raise self._error("data.column_unsupported", column=name)
            kinds[name] = kind
        return kinds

    def _is_text(self, name: str) -> bool:
        """Whether a column that was promised as a number holds text that is none."""
        with self._connection() as connection:
            text, number = _quoted(name), f"TRY_CAST({_quoted(name)} AS DOUBLE)"
            query = f"SELECT count(*) FROM {self._query} WHERE {text} IS NOT NULL AND {number} IS NULL"
            return bool(self._run(connection, query).fetchall()[0][0])

    def _select(self, expressions: dict[str, str], row_ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        chosen = ", ".join(f"{expression} AS {_quoted(name)}" for name, expression in expressions.items())
        with self._connection() as connection:
            connection.register("isthmus_wanted", {_ID: row_ids, _POSITION: np.arange(len(row_ids))})
            theirs = f"(SELECT {self._row_id} AS {_ID}, {chosen} FROM {self._query}) AS found"
            query = (
                f"SELECT found.* EXCLUDE ({_ID}) FROM isthmus_wanted JOIN {theirs} USING ({_ID}) ORDER BY {_POSITION}"
            )
            found = _fetch(self._run(connection, query))
        if any(len(values) != len(row_ids) for values in found.values()):
            raise self._error("data.changed")
        return found

    def _run(self, connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return connection.execute(query)
        except duckdb.ConversionException as failure:
            raise _CastError("data.sql", party=self._home.name, dataset=self._name, detail=str(failure)) from failure
        except duckdb.Error as failure:
            raise self._error("data.sql", detail=str(failure)) from failure

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        path = self._home.data_file
        if path is not None and not path.is_file():
            raise InputError("data.file_missing", party=self._home.name)
        try:
            connection = duckdb.connect(path, read_only=True) if path else duckdb.connect()
        except duckdb.Error as failure:
            locked = "lock" in str(failure).lower()
            raise InputError(
                "data.locked" if locked else "data.file_invalid", party=self._home.name, detail=str(failure)
            ) from failure
        try:
            # Parquet and CSV files are named relative to the home, wherever the process runs.
            connection.execute("SET file_search_path = ?", [str(self._home.folder)])
            for alias, source in self._home.config.attach.items():
                try:
                    connection.execute(f"ATTACH {_literal(self._source(source))} AS {alias} (READ_ONLY)")
                except duckdb.Error as failure:
                    raise self._error("data.sql", detail=str(failure)) from failure
            yield connection
        finally:
            connection.close()

    def _source(self, source: str) -> str:
        beside = self._home.folder / source
        return str(beside) if beside.is_file() else source

    def _error(self, code: str, **facts: Any) -> InputError:
        return InputError(code, party=self._home.name, dataset=self._name, **facts)


class _CastError(InputError):
    """A value that does not fit the type that was promised for its column."""


def _kind(duckdb_type: str) -> ColumnKind | None:
    if duckdb_type.endswith("]"):  # lists and arrays
        return None
    name = duckdb_type.removeprefix("U")
    return "number" if name.startswith(_NUMBERS) else "category" if name.startswith(_TEXTS) else None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _fetch(result: duckdb.DuckDBPyConnection) -> dict[str, NDArray[Any]]:
    return result.fetchnumpy()


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _texts(values: NDArray[Any]) -> NDArray[np.object_]:
    texts: NDArray[np.object_] = np.array(np.ma.getdata(values), dtype=object)
    texts[np.ma.getmaskarray(values)] = None
    return texts
