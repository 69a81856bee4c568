"""Operating-system users for an attack, and a Python that they can run. Needs root."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

VAULT, WORKER, OTHER = "isthmus-att-v", "isthmus-att-w", "isthmus-att-x"


@contextlib.contextmanager
def users() -> Iterator[dict[str, pwd.struct_passwd]]:
    """Three users without a home or a shell; the vault's is in the worker's group too. They are gone afterwards."""
    names = (WORKER, VAULT, OTHER)
    try:
        for name in names:
            _quiet("userdel", name)
            groups = ["--groups", WORKER] if name == VAULT else []
            subprocess.run(
                [
                    "useradd",
                    "--system",
                    "--user-group",
                    "--no-create-home",
                    "--shell",
                    "/usr/sbin/nologin",
                    *groups,
                    name,
                ],
                check=True,
            )
        yield {name: pwd.getpwnam(name) for name in names}
    finally:
        for name in (OTHER, VAULT, WORKER):
            for _ in range(40):  # it is refused while a process of the user is still ending
                if _quiet("userdel", name) in (0, _NO_SUCH_USER):
                    break
                time.sleep(0.5)


_NO_SUCH_USER = 6


def _quiet(*words: str) -> int:
    return subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def python_for(user: pwd.struct_passwd, folder: Path) -> str:
    """An interpreter with our packages that this user can run: ours, or where ours lies in somebody's own folder, a
    virtual environment in `folder` over the machine's own Python of the same version.
    """
    if _runs(sys.executable, user):
        return sys.executable
    version = f"python{sysconfig.get_python_version()}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(f"/usr/bin/{version}")
    (folder / "lib" / version).mkdir(parents=True)
    (folder / "lib" / version / "site-packages").symlink_to(sysconfig.get_paths()["purelib"])
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    python = str(folder / "bin" / "python")
    if not _runs(python, user):
        raise PermissionError(
            f"{user.pw_name} can run neither {sys.executable} nor /usr/bin/{version} with our packages"
        )
    return python


def _runs(python: str, user: pwd.struct_passwd) -> bool:
    words = [python, "-c", "import isthmus.flows.vault, ssl, torch"]
    try:
        ended = subprocess.run(words, check=False, cwd="/", capture_output=True, **as_user(user))  # type: ignore[call-overload]
    except PermissionError:
        return False
    return bool(ended.returncode == 0)


def as_user(user: pwd.struct_passwd) -> dict[str, object]:
    """What makes a process that user's, with no more than its own groups and none of our rights."""
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups, "umask": 0o077}
