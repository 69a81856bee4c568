"""Machines out of Linux namespaces: each has its own network, processes, host name and file system.

A machine's file system is this one's with a layer on top (overlayfs, in memory): what is written there, users and
services included, is gone with the machine. Its network is that of `tests/network/namespaces.py`: members reach the
server and nobody else. Needs root. All that runs on a machine ends with it, and all machines with this process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

sys.path.append(str(Path(__file__).parents[1] / "network"))
from namespaces import Namespaces

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in_systemctl.py")
CHECKOUT = "/opt/isthmus"  # where the page wants it
# $1: a folder for the layer, $2: the folder that all machines share, $3: the machine's name. Says "ready", and stays
# until its standard input ends: as the first process it takes all others along.
_BOOT = """
set -e
mount -t tmpfs -o mode=755 none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=1777 none "$1/root/tmp"
mount -t tmpfs -o mode=755 none "$1/root/run"
mkdir -p "$1/root/srv/consortium"
mount --bind "$2" "$1/root/srv/consortium"
hostname "$3"
exec chroot "$1/root" sh -c 'echo ready; exec cat > /dev/null'
"""


class Machines:
    """`server` and the `members`. Use as a context manager: leaving it takes all of it away.

    `shared` is the folder that every machine sees as /srv/consortium, `names` are host names of the server.
    """

    def __init__(self, folder: Path, members: Sequence[str], names: Sequence[str]) -> None:
        self.network = Namespaces(members)
        self.members, self.folder, self.shared, self._hosts = tuple(members), folder, folder / "shared", tuple(names)
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        self.shared.mkdir(parents=True)
        self.shared.chmod(0o777)
        self.network.__enter__()
        try:
            for name in ("server", *self.members):
                self._boot(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()  # the first process of its machine: the kernel ends all others
            process.communicate()
        self.network.__exit__()

    def _boot(self, name: str) -> None:
        layer = self.folder / "layers" / name
        layer.mkdir(parents=True)
        place = None if name == "server" else name
        apart = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
        process = subprocess.Popen(
            [*self.network.inside(place), "unshare", *apart, "sh", "-c", _BOOT, "sh", layer, self.shared, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        self._processes[name] = process
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{name} does not start")
        hosts = "".join(f"{self.network.exchange} {host}\n" for host in self._hosts)
        self.run(name, _installed(name, hosts))

    def run(
        self,
        name: str,
        script: str,
        *,
        user: str = "root",
        said: str = "",
        check: bool = True,
        timeout_s: float = 120,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Type commands at a machine in a login shell, which stops at the first that fails; `said` is typed when asked.

        Raises `RuntimeError` with what they said if they fail and that is to be checked.
        """
        shell = ["bash", "--login", "-e", "-u", "-o", "pipefail", "-c", f"cd; {script}"]
        done = subprocess.run(
            [*self._enter(name), "runuser", "-u", user, "--", *shell],
            input=said,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TERM": "dumb", **(variables or {})},
        )
        if check and done.returncode:
            raise RuntimeError(
                f"at {name}, as {user}, this ended with {done.returncode}:\n{script}\n{done.stdout}{done.stderr}"
            )
        return done

    def path(self, name: str, inside: str) -> Path:
        """A file of a machine, as this process sees it."""
        return Path(f"/proc/{self._first(name)}/root{inside}")

    def _enter(self, name: str) -> list[str]:
        first = str(self._first(name))
        return [
            "nsenter",
            "--target",
            first,
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "env",
            "--chdir=/",
        ]

    def _first(self, name: str) -> int:
        """The number, here, of the machine's first process: the child of `unshare`."""
        parent = self._processes[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0])


def _installed(name: str, hosts: str) -> str:
    """What section 1 of the page does over the network, and what a Debian machine has: isthmus, systemctl, hosts."""
    closed = [str(path) for path in _ancestors(Path(sys.base_prefix), ROOT) if not path.stat().st_mode & 0o001]
    opened = f"chmod o+x {' '.join(closed)}\n" if closed else ""  # other users have to reach this checkout's Python
    systemctl = f'#!/bin/sh\nexec {sys.executable} -S {STAND_IN} "$@"\n'
    # The first line: what follows is for a machine's own layer, and never for the file system that is below it.
    return f"""[ "$(stat -c %d /)" != {os.stat("/").st_dev} ]
{opened}ln -s {ROOT} {CHECKOUT}
rm -f /usr/local/bin/* /etc/profile.d/* /root/.profile /root/.bash*
ln -s {CHECKOUT}/.venv/bin/isthmus /usr/local/bin/isthmus
mkdir -p /usr/local/sbin
cat > /usr/local/sbin/systemctl <<'END'
{systemctl}END
chmod 755 /usr/local/sbin/systemctl
echo 127.0.0.1 localhost {name} > /etc/hosts
cat >> /etc/hosts <<'END'
{hosts}END
"""


def _ancestors(*paths: Path) -> list[Path]:
    return sorted({above for path in paths for above in path.resolve().parents})


def missing() -> list[str]:
    """What this needs and this machine lacks."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    return lacks + [
        program for program in ("ip", "unshare", "nsenter", "runuser", "setpriv") if not shutil.which(program)
    ]
