"""A party's home, made from a few words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from isthmus.parties.home import PartyHome

MakeHome = Callable[..., PartyHome]


_databases: dict[tuple[str, ...], bytes] = {}


def _database(path: Path, tables: tuple[str, ...]) -> None:
    """Write a DuckDB file, or the copy of one that an earlier test made."""
    if tables not in _databases:
        path.unlink(missing_ok=True)
        with duckdb.connect(path) as connection:
            for table in tables:
                connection.execute(table)
        _databases[tables] = path.read_bytes()
    path.write_bytes(_databases[tables])


@pytest.fixture
def make_home(tmp_path: Path) -> MakeHome:
    """Make the lab's home: `tables` are SQL statements for its DuckDB file, the rest goes into party.yaml."""

    def make(*tables: str, sql: str = "SELECT * FROM t", row_id: str = "id", **content: Any) -> PartyHome:
        folder = tmp_path / "lab"
        folder.mkdir(exist_ok=True)
        dataset = {"sql": sql, "row_id": row_id, **content.pop("dataset", {})}
        whole: dict[str, Any] = {"name": "lab", "datasets": {"results": dataset}, **content}
        if tables:
            whole.setdefault("data", "lab.duckdb")
            _database(folder / "lab.duckdb", tables)
        (folder / "party.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
        return PartyHome(folder)

    return make


@pytest.fixture
def home(make_home: MakeHome) -> PartyHome:
    """A home without rows."""
    return make_home()


@pytest.fixture
def with_little_disk() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a process that can write no file beyond so many bytes, as on a full disk.

    The program finds the limit set and its arguments in `sys.argv[1:]`; `free()` lifts the limit again.
    """
    prelude = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "def fill(nbytes): resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))\n"
        "def free(): resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "from isthmus.parties.errors import IsthmusError\n"
        "from isthmus.parties.home import PartyHome\n"
        "def code_of(call):\n"
        "    try: call()\n"
        "    except IsthmusError as error: return error.code\n"
        "    return 'none'\n"
    )

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", prelude + program, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done

    return run
