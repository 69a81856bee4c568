"""Store: a party's datasets, out of its DuckDB.

A dataset is one SQL query over the party's data file, which is opened read-only and briefly, and over whatever that
query reads: Parquet and CSV files beside `party.yaml`, or what `attach:` names (another DuckDB file, a PostgreSQL). It
is one statement, wrapped into one of ours, so that it changes nothing and only the columns a policy has granted are
ever selected. What DuckDB itself says about a failing query goes into the error's `detail`, which stays in the party's
log.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from . import labels
from .errors import InputError
from .home import PartyHome
from .table import Column, ColumnKind, Identifier

# A vault fetches nothing from the network by itself: an extension (PostgreSQL, say) is installed by the engineer.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false"}
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_TEXTS = ("VARCHAR", "ENUM")
_WORKING_DIRECTORY = threading.Lock()


class Store:
    """Reads one dataset of one party. Every method opens the data file, reads, and closes it.

    Raises `InputError`: ``data.dataset_unknown`` when made, and from every method ``data.sql`` and those of the data
    file (``data.file_missing``, ``data.file_invalid``, ``data.locked``).
    """

    def __init__(self, home: PartyHome, dataset: str) -> None:
        self._home, self.name = home, dataset
        if dataset not in home.config.datasets:
            raise self._error("data.dataset_unknown")
        self._dataset = home.config.datasets[dataset]
        self.sql_digest = hashlib.sha256(self._dataset.sql.encode()).hexdigest()

    def types(self) -> dict[str, str]:
        """The dataset's columns and what DuckDB calls their types; of an ENUM that holds its values. Reads no row."""
        with self._connection() as connection:
            rows = self._run(connection, f"DESCRIBE SELECT * FROM {self._query}").fetchall()
        return {row[0]: row[1] for row in rows}

    def kinds(self) -> dict[str, ColumnKind | None]:
        """The dataset's columns and what kind of feature each can be (None: neither number nor text). Reads no row."""
        return {name: self._dataset.types.get(name) or _kind(found) for name, found in self.types().items()}

    def row_ids(self) -> NDArray[Any]:
        """Every row's id as text, sorted, shape ``(rows,)``.

        Raises `InputError` ``data.empty`` and, when ids are null or repeated, ``data.row_id``.
        """
        self._require([self._dataset.row_id])
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
        self._require(columns)
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
        expressions = {name: f"CAST({_quoted(name)} AS {casts[kind]})" for name, kind in kinds.items()}
        try:
            found = self._select(expressions, row_ids)
        except _CastError as failure:
            numbers = (name for name, kind in kinds.items() if kind == "number")
            bad = next((name for name in numbers if not self._is_numeric(name)), None)
            if bad is None:
                raise  # it is the dataset's own SQL that casts
            raise self._error("data.column_type", column=bad, detail=failure.detail) from failure
        columns = []
        for name, kind in kinds.items():
            values = _numbers(found[name]) if kind == "number" else _texts(found[name])
            missing = np.isnan(values) if kind == "number" else np.array([value is None for value in values])
            if missing.all():
                raise self._error("data.column_empty", column=name)
            columns.append(Column(name, kind, values))
        return columns

    def label(
        self, name: str, row_ids: NDArray[Any], *, may_be_constant: bool = False, may_be_missing: bool = False
    ) -> NDArray[np.float32]:
        """A binary label of the given rows, in that order: 0 and 1, shape ``(rows,)``, NaN where it may be missing.

        Raises `InputError` for a label that is missing or constant where that may not be, or not 0 and 1.
        """
        values = self._target(name, row_ids, "data.label_not_binary")
        return labels.binary(values, self._about(name), may_be_constant=may_be_constant, may_be_missing=may_be_missing)

    def target_number(self, name: str, row_ids: NDArray[Any]) -> NDArray[np.float32]:
        """A number to be learnt of the given rows, in that order, ``(rows,)``.

        Raises `InputError` for a label that is missing somewhere, constant, or no number.
        """
        return labels.number(self._target(name, row_ids, "data.label_not_number"), self._about(name))

    def durations(
        self, duration: str, event: str, row_ids: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Survival of the given rows, in that order: the time that each was followed, and whether it ended in the event
        (1) or was cut off (0). Both ``(rows,)``; all may have had the event, or none.

        Raises `InputError` ``data.duration`` for a time that is missing or not above zero, and as `label`.
        """
        times = labels.duration(self._target(duration, row_ids, "data.label_not_number"), self._about(duration))
        values = self._target(event, row_ids, "data.label_not_binary")
        return times, labels.binary(values, self._about(event), may_be_constant=True)

    def part(self, name: str, row_ids: NDArray[Any]) -> NDArray[Any]:
        """Which part each of the given rows is in, in that order: train, validation or test, ``(rows,)``.

        Raises `InputError` ``data.part`` for any other value.
        """
        self._declared_kinds([name])
        texts = self._select({name: f"CAST({_quoted(name)} AS VARCHAR)"}, row_ids)
        return labels.part(_texts(texts[name]), self._about(name))

    # --- below: one query --------------------------------------------------------------------------------------------

    @property
    def _query(self) -> str:
        try:
            return f"({_one_statement(self._dataset.sql)}\n) AS dataset"
        except duckdb.Error as failure:
            raise self._error("data.sql", detail=str(failure)) from failure

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

    def _target(self, name: str, row_ids: NDArray[Any], code: str) -> NDArray[np.float64]:
        """A number column with NaN where it is missing. Raises `InputError` with `code` when it is none."""
        kinds = self.kinds()
        if name not in kinds:
            raise self._error("data.column_unknown", column=name)
        if kinds[name] != "number":
            raise self._error(code, column=name)
        try:
            return _numbers(self._select({name: f"CAST({_quoted(name)} AS DOUBLE)"}, row_ids)[name])
        except _CastError as failure:
            if self._is_numeric(name):
                raise
            raise self._error(code, column=name, detail=failure.detail) from failure

    def _about(self, column: str) -> dict[str, str]:
        return {"party": self._home.name, "dataset": self.name, "column": column}

    def _require(self, columns: Sequence[str]) -> None:
        """Columns that `party.yaml` names, as SQL does: whatever their case."""
        known = {column.casefold() for column in self.kinds()}
        for column in columns:
            if column.casefold() not in known:
                raise self._error("data.column_unknown", column=column)

    def _is_numeric(self, name: str) -> bool:
        """Whether a column that was promised as a number holds nothing else."""
        with self._connection() as connection:
            text, number = _quoted(name), f"TRY_CAST({_quoted(name)} AS DOUBLE)"
            query = f"SELECT count(*) FROM {self._query} WHERE {text} IS NOT NULL AND {number} IS NULL"
            return not self._run(connection, query).fetchall()[0][0]

    def _select(self, expressions: dict[str, str], row_ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        # Names of our own, whatever the dataset's columns are called.
        chosen = ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(expressions.values()))
        with self._connection() as connection:
            connection.register("isthmus_wanted", {"id": row_ids, "place": np.arange(len(row_ids))})
            theirs = f"(SELECT {self._row_id} AS id, {chosen} FROM {self._query}) AS theirs"
            query = f"SELECT * EXCLUDE (id) FROM isthmus_wanted JOIN {theirs} USING (id) ORDER BY place"
            found = _fetch(self._run(connection, query))
        if not np.array_equal(found["place"], np.arange(len(row_ids))):  # gone, or repeated by now
            raise self._error("data.changed")
        return {name: found[f"c{number}"] for number, name in enumerate(expressions)}

    def _run(self, connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return connection.execute(query)
        except duckdb.ConversionException as failure:
            raise _CastError("data.sql", party=self._home.name, dataset=self.name, detail=str(failure)) from failure
        except duckdb.Error as failure:
            raise self._error("data.sql", detail=str(failure)) from failure

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        path = self._home.data_file
        if path is not None and not path.is_file():
            raise InputError("data.file_missing", party=self._home.name)
        # Parquet and CSV files are named relative to the home, and what DuckDB spills stays in it. DuckDB's own search
        # path would prefer a file of the same name where the process happens to run.
        with _WORKING_DIRECTORY, contextlib.chdir(self._home.folder):
            with self._opening("data.file_invalid"):
                connection = duckdb.connect(path or ":memory:", read_only=path is not None, config=_CONFIG)
            try:
                for alias, source in self._home.config.attach.items():
                    with self._opening("data.sql"):
                        connection.execute(f"ATTACH {_literal(source)} AS {_quoted(alias)} (READ_ONLY)")
                yield connection
            finally:
                connection.close()

    @contextmanager
    def _opening(self, code: str) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as failure:
            locked = "Could not set lock" in str(failure)
            raise self._error("data.locked" if locked else code, detail=str(failure)) from failure

    def _error(self, code: str, **facts: Any) -> InputError:
        return InputError(code, party=self._home.name, dataset=self.name, **facts)


class _CastError(InputError):
    """A value that does not fit the type that was promised for its column."""


def _kind(duckdb_type: str) -> ColumnKind | None:
    if duckdb_type.endswith("]"):  # lists and arrays
        return None
    name = duckdb_type.removeprefix("U")
    return "number" if name.startswith(_NUMBERS) else "category" if name.startswith(_TEXTS) else None


def _one_statement(sql: str) -> str:
    """The query without what may follow it, semicolons and comments.

    Raises `duckdb.Error` for text that is not one statement by itself: it could close our bracket and begin another.
    """
    if len(duckdb.extract_statements(sql)) != 1:
        raise duckdb.ParserException("a dataset is one SELECT statement")
    text = sql.encode()
    for start, kind in reversed(duckdb.tokenize(sql)):
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        text = text[:start]
    return text.decode()


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
