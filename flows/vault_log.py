"""Where a vault says what only its own party may read."""

from __future__ import annotations

import os
from pathlib import Path

from ..parties.errors import disk_errors

LOG_FILE = "vault.log"  # in the home's folder of a run


def open_log(home: Path, run: str) -> int:
    """The party's own file, for whatever its vault says, whatever library says it."""
    path = home / "runs" / run / LOG_FILE
    with disk_errors(home.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
