"""`systemctl` for machines without systemd: the services of /etc/systemd/system, as `deploy_postgres` needs them.

Of a unit it keeps User, Group, SupplementaryGroups, EnvironmentFile, WorkingDirectory, RuntimeDirectory, UMask,
ExecStart, Restart with RestartSec, Type=forking, NoNewPrivileges, and ProtectSystem=strict with ReadWritePaths (as a
mount namespace in which all but these is read-only). Everything else of the sandbox it leaves out, and it ends a
service's first process alone: what that one leaves behind stays. What it says goes to /var/log/services/UNIT.log.
"""

from __future__ import annotations

import configparser
import grp
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDERS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
PIDS, LOGS = Path("/run/services"), Path("/var/log/services")
STOP_S = 40.0
# Read-only but for what comes before "--"; then the command. The folders stay as they are for everybody else.
_STRICT = """
set -e
while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done; shift
mount --bind / / && mount -o remount,bind,ro /
mount -t tmpfs -o mode=1777 none /tmp
exec "$@"
"""


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def service(name: str) -> dict[str, str]:
    """The [Service] of a unit, with %i filled in."""
    name = name.removesuffix(".service")
    stem, at, instance = name.partition("@")
    path = next(path for folder in FOLDERS if (path := folder / f"{stem}{at}.service").exists())
    unit = _Unit(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.read_string(path.read_text())
    return {key: value.replace("%i", instance) for key, value in unit["Service"].items()}


def command(found: dict[str, str]) -> list[str]:
    """What to start: the command as its user, within a file system that is read-only where the unit wants that."""
    words = shlex.split(found["ExecStart"])
    if user := found.get("User"):
        group = found.get("Group", user)
        numbers = [str(grp.getgrnam(name).gr_gid) for name in (group, *found.get("SupplementaryGroups", "").split())]
        privileges = ["--no-new-privs"] if found.get("NoNewPrivileges") == "yes" else []
        words = ["setpriv", "--reuid", user, "--regid", group, "--groups", ",".join(numbers), *privileges, *words]
    if found.get("ProtectSystem") == "strict":
        writable = [*found.get("ReadWritePaths", "").split(), *_runtime(found)]
        words = ["unshare", "--mount", "sh", "-c", _STRICT, "sh", *writable, "--", *words]
    return words


def environment(found: dict[str, str]) -> dict[str, str]:
    """What systemd gives a service, and what its file says."""
    given = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    if user := found.get("User"):
        given |= {"HOME": pwd.getpwnam(user).pw_dir, "USER": user, "LOGNAME": user}
    if file := found.get("EnvironmentFile"):
        given |= dict(line.split("=", 1) for line in Path(file).read_text().splitlines() if "=" in line)
    return given


def _runtime(found: dict[str, str]) -> list[str]:
    return [f"/run/{found['RuntimeDirectory']}"] if "RuntimeDirectory" in found else []


def start(name: str) -> None:
    """Start a service and keep it running, in a process of its own."""
    found = service(name)
    PIDS.mkdir(exist_ok=True)
    LOGS.mkdir(exist_ok=True)
    log = (LOGS / f"{name.removesuffix('.service')}.log").open("ab")
    if found.get("Type") == "forking":
        subprocess.run(command(found), env=environment(found), check=True, stdout=log, stderr=log)
        return
    if os.fork():
        return
    os.setsid()
    (PIDS / name).write_text(str(os.getpid()))
    for folder in _runtime(found):
        Path(folder).mkdir(exist_ok=True)
        os.chmod(folder, int(found.get("RuntimeDirectoryMode", "0755"), 8))
        os.chown(folder, pwd.getpwnam(found["User"]).pw_uid, grp.getgrnam(found["Group"]).gr_gid)
    process: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        if process is not None:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    while not stopping:
        process = subprocess.Popen(
            command(found),
            env=environment(found),
            cwd=found.get("WorkingDirectory", "/"),
            umask=int(found.get("UMask", "0022"), 8),
            stdout=log,
            stderr=log,
        )
        process.wait()
        if found.get("Restart") != "always":
            break
        for _ in range(int(found.get("RestartSec", "1")) * 10):
            if not stopping:
                time.sleep(0.1)
    (PIDS / name).unlink(missing_ok=True)
    os._exit(0)


def stop(name: str) -> None:
    """End a service, and wait until it has ended."""
    found = service(name)
    if found.get("Type") == "forking":
        pid = Path(found["PIDFile"])
        if pid.exists() and (number := pid.read_text().strip()):  # `nginx -t` leaves an empty one
            os.kill(int(number), signal.SIGQUIT)
            _until(lambda: not pid.exists(), name)
        return
    if not (PIDS / name).exists():
        return
    os.kill(int((PIDS / name).read_text()), signal.SIGTERM)
    _until(lambda: not (PIDS / name).exists(), name)


def _until(ended: Callable[[], bool], name: str) -> None:
    until = time.monotonic() + STOP_S
    while not ended():
        if time.monotonic() > until:
            raise TimeoutError(f"{name} does not end")
        time.sleep(0.1)


def main(words: list[str]) -> None:
    """`daemon-reload`, `enable --now`, `start`, `stop`, `restart`."""
    verb, *names = (word for word in words if word != "--now")
    if verb == "daemon-reload":
        return
    if verb not in ("enable", "start", "stop", "restart"):
        raise SystemExit(f"the stand-in for systemctl does not know '{verb}'")
    for name in names:
        if verb in ("stop", "restart"):
            stop(name)
        if verb != "stop":
            start(name)


if __name__ == "__main__":
    main(sys.argv[1:])
