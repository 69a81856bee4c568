"""DuckDB files that stay open for a while: to open one again takes a tenth of the time, within the same process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from isthmus.parties.home import PartyHome
from isthmus.parties.state import State

# As `State` and `Store` open them: DuckDB refuses a second connection that is configured otherwise.
_STATE: dict[str, Any] = {"config": {"threads": 1}}
_DATA: dict[str, Any] = {"read_only": True, "config": {"autoinstall_known_extensions": "false"}}


def make_state(home: Path) -> None:
    """Have a party's state file made, which takes as long as ten transactions."""
    with State(PartyHome(home)).transaction():
        pass


@contextmanager
def kept_open(homes: Iterable[Path]) -> Iterator[None]:
    """Keep the state and the data of parties open, where they are there and can be opened."""
    with ExitStack() as stack:
        for home in homes:
            for path, options in ((home / "state.duckdb", _STATE), (home / f"{home.name}.duckdb", _DATA)):
                if path.is_file():
                    with suppress(duckdb.Error):  # the test may be about that
                        stack.enter_context(duckdb.connect(path, **options))
        yield
