"""Whether a party's home is closed to the users that its vault is to keep out: they could go round the vault.

Looked at: the home's folder, which nobody but its owner may enter; data files that lie elsewhere; and the program that
the vault runs, which these users must not be able to change.

Adversary: the worker's user, by the ordinary rights of files. What access control lists, capabilities or mounts give
beyond them is not seen here.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from ..parties.errors import InputError, disk_errors
from ..parties.home import PartyHome

_READ, _WRITE, _ENTER = 4, 2, 1
_log = logging.getLogger("isthmus.vaults")


def require_closed(folder: Path, users: Iterable[int]) -> None:
    """Refuse a home that these users, by number, can read past its vault; warn of a user that is the vault's own.

    Raises `InputError` ``home.open`` and ``home.program``, and what `PartyHome` raises.
    """
    home = PartyHome(folder)
    with disk_errors(home.name):
        if home.folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError("home.open", party=home.name, user="somebody else", file=home.name)
        for user in users:
            if user == os.getuid():
                _log.warning("the worker's user is the vault's own: it can read whatever the vault can")
                continue
            for path in _data(home):
                if _can(user, path, _READ):
                    raise InputError("home.open", party=home.name, user=_name(user), file=path.name)
            if any(_can(user, path, _WRITE) for path in _program()):
                raise InputError("home.program", party=home.name, user=_name(user))


def _data(home: PartyHome) -> list[Path]:
    """The data files that there are, wherever they lie."""
    named = [home.data_file, *(home.folder / name for name in home.config.attach.values())]
    return [path for path in named if path is not None and path.is_file()]


def _program() -> list[Path]:
    """What is run: our own modules, and the interpreter with its folder of packages."""
    ours = Path(__file__).parent
    return [ours, *ours.glob("*.py"), Path(sys.executable), Path(sys.prefix), Path(os.__file__).parent]


def _can(user: int, path: Path, what: int) -> bool:
    """Whether the rights of a file, and of the folders that lead to it, let a user do this to it."""
    path, groups = path.resolve(), _groups(user)
    return all(_may(user, groups, parent, _ENTER) for parent in path.parents) and _may(user, groups, path, what)


def _may(user: int, groups: frozenset[int], path: Path, what: int) -> bool:
    found = path.stat()
    if user in (0, found.st_uid):
        return user == 0 or bool(found.st_mode >> 6 & what)
    return bool(found.st_mode >> (3 if found.st_gid in groups else 0) & what)


def _groups(user: int) -> frozenset[int]:
    try:
        entry = pwd.getpwuid(user)
    except KeyError:  # a number without a name is in no group that we could know of
        return frozenset()
    named = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem}
    return frozenset({entry.pw_gid, *named})


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
