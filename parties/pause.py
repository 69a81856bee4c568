"""The emergency stop of one party: a file `paused` in its home.

While it is there, no vault of the party begins and those that run end at once. It needs no server, no network and not
the lock of the state: whoever may write into the home can stop everything, whatever else hangs. What has been stopped
can be resumed, like any run that was killed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from .errors import PolicyRefusal, disk_errors

PAUSE_FILE = "paused"


def is_paused(home: Path) -> bool:
    """Whether the party with this home is paused; also where that cannot be found out."""
    try:
        os.lstat(home / PAUSE_FILE)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def refuse_paused(home: Path, *, party: str) -> None:
    """Raise `PolicyRefusal` ``policy.paused`` for a party that is paused."""
    if is_paused(home):
        raise PolicyRefusal("policy.paused", party=party)


def watch_pause(home: Path, on_pause: Callable[[], None], every_s: float = 0.5) -> threading.Event:
    """Call `on_pause`, once, from a daemon thread, when the party is paused; set the event that this returns to stop
    watching.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if is_paused(home):
                on_pause()
                return
            ended.wait(every_s)

    threading.Thread(target=watch, name="pause", daemon=True).start()
    return ended


def pause(home: Path, *, party: str) -> bool:
    """Pause a party; False if it was paused already, whose note is then kept.

    The file says when, and which user of the operating system it was. Raises `InputError` ``disk.full`` and
    ``disk.denied``.
    """
    with disk_errors(party):
        try:
            handle = os.open(home / PAUSE_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
    text = f"{datetime.now(UTC).isoformat(sep=' ', timespec='seconds')} by {_user()}\n"
    with (
        os.fdopen(handle, "wb", buffering=0) as file,
        contextlib.suppress(OSError),
    ):  # on a full disk the name is enough
        file.write(text.encode())
    return True


def unpause(home: Path, *, party: str) -> bool:
    """Let a party go on; False if it was not paused. Raises `InputError` ``disk.denied``."""
    with disk_errors(party):
        try:
            (home / PAUSE_FILE).unlink()
        except FileNotFoundError:
            return False
    return True


def pause_note(home: Path) -> str:
    """When a party was paused and by whom; empty if it is not, or nobody has noted it."""
    try:
        return (home / PAUSE_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, say
        return f"user {os.getuid()}"
