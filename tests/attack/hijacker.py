"""What somebody tries who runs as a worker's user: `python hijacker.py FACTS.json`; prints what it came to, as JSON.

On its own, without anything of isthmus: it is not one of us. Every try is ``[name, what]``, where `what` begins with
"denied", or says what was got.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 16, 17, 0x4206
PIDFD_OPEN, PIDFD_GETFD, KCMP = 434, 438, 312


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def files(facts: dict[str, Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The home and all that is in it, read, written, linked, moved."""
    home, mine = facts["home"], facts["scratch"]
    tries: list[tuple[str, Callable[[], Any]]] = []
    for name in facts["files"]:
        path, link = f"{home}/{name}", f"{mine}/{name.replace('/', '_')}"
        tries += [
            (f"read {name}", lambda path=path: _read_file(path)),
            (f"write {name}", lambda path=path: open(path, "ab").close()),
            (f"look at {name}", lambda path=path: os.stat(path).st_size),
            (f"link {name}", lambda path=path, link=link: os.link(path, link)),
            (f"read {name} by a link", lambda path=path, link=link: _by_link(path, link)),
        ]
    tries += [
        ("list the home", lambda: os.listdir(home)),
        ("enter the home", lambda: os.chdir(home)),
        ("make a file in the home", lambda: open(f"{home}/mine", "w").close()),
        ("open the home to all", lambda: os.chmod(home, 0o755)),  # noqa: S103
        ("take the socket's place", lambda: os.unlink(facts["socket"])),
        ("listen beside the socket", lambda: socket.socket(socket.AF_UNIX).bind(facts["socket"] + ".mine")),
        ("move the home", lambda: os.rename(home, f"{home}.moved")),
    ]
    return tries


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(64)


def _by_link(path: str, link: str) -> bytes:
    os.symlink(path, f"{link}.sym")
    return _read_file(f"{link}.sym")


def processes(pids: list[int]) -> list[tuple[str, Callable[[], Any]]]:
    """Another user's processes: their memory, environment, files, and power over them."""
    tries: list[tuple[str, Callable[[], Any]]] = []
    for pid in pids:
        at = f"/proc/{pid}"
        for name in ("environ", "mem", "maps", "smaps", "auxv", "io", "syscall", "stack", "pagemap", "personality"):
            tries.append((f"read {name}", lambda at=at, name=name: _read(at, name)))
        for name in ("fd", "map_files", "fdinfo", "cwd/", "root/home"):
            tries.append((f"list {name}", lambda at=at, name=name: os.listdir(f"{at}/{name}")))
        for name in ("cwd", "exe", "root", "fd/0", "fd/3", "fd/4"):
            tries.append((f"follow {name}", lambda at=at, name=name: os.readlink(f"{at}/{name}")))
        for number in range(3, 12):
            tries.append(
                (f"open file {number}", lambda at=at, number=number: os.open(f"{at}/fd/{number}", os.O_RDONLY))
            )
        tries += [
            ("trace", lambda pid=pid: _trace(pid, PTRACE_ATTACH)),
            ("seize", lambda pid=pid: _trace(pid, PTRACE_SEIZE)),
            ("read memory by a call", lambda pid=pid: _read_memory(pid)),
            ("take a file by a call", lambda pid=pid: _take_file(pid)),
            ("compare", lambda pid=pid: _must(LIBC.syscall(KCMP, pid, os.getpid(), 1, 0, 0))),
            ("limit", lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))),
            ("signal", lambda pid=pid: os.kill(pid, signal.SIGWINCH)),
        ]
    return tries


def _read(at: str, name: str) -> bytes:
    if name != "mem":
        with open(f"{at}/{name}", "rb", buffering=0) as file:
            return file.read(64)
    with open(f"{at}/maps") as maps:
        start = next(int(line.split("-")[0], 16) for line in maps if " rw" in line)
    with open(f"{at}/mem", "rb", buffering=0) as file:
        file.seek(start)
        return file.read(64)


def _trace(pid: int, how: int) -> str:
    _must(LIBC.ptrace(how, pid, None, None))
    if how == PTRACE_ATTACH:
        os.waitpid(pid, 0)
        LIBC.ptrace(PTRACE_DETACH, pid, None, None)
    return "traced"


def _read_memory(pid: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    with open(f"/proc/{pid}/maps") as maps:
        start = next(int(line.split("-")[0], 16) for line in maps if " rw" in line)
    mine, theirs = _Piece(ctypes.addressof(buffer), 64), _Piece(start, 64)
    _must(LIBC.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0))
    return buffer.raw


def _take_file(pid: int) -> int:
    pidfd = _must(LIBC.syscall(PIDFD_OPEN, pid, 0))
    return _must(LIBC.syscall(PIDFD_GETFD, pidfd, 3, 0))


def lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What the vault's socket answers to anything that it may be told."""
    order, sign = facts["order"], facts["sign"]
    told: dict[str, bytes] = {
        "nothing": b"",
        "an empty line": b"\n",
        "random bytes": os.urandom(4096) + b"\n",
        "half a line": b'{"job": {"kind": "vert',
        "a deep line": b"[" * 500_000 + b"\n",
        "an endless line": b"x" * 8_000_000,
        "a command first": b'{"phase": "train"}\n',
        "a flood of commands": _line(order) + b'{"phase": "align"}\n' * 100_000,
        "training without agreeing": _line(order) + b'{"phase": "train"}\n',
        "a run that is a path": _line({**order, "run": "../../x"}),
        "another home": _line({**order, "home": facts["home"]}),
        "no exchange": _line({**order, "by_exchange": False}) + b'{"phase": "agree"}\n{"phase": "align"}\n',
        "nobody's signature": _line({**order, "start": None}) + b'{"phase": "agree"}\n',
        "its name under a job": _line(sign),
    }
    return [(name, _said(facts["socket"], text)) for name, text in told.items()]


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _said(path: str, text: bytes, seconds: float = 20.0) -> str:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.settimeout(seconds)
            one.connect(path)
            one.sendall(text)
            if not text.endswith(b"\n"):
                one.shutdown(socket.SHUT_WR)
            until = time.monotonic() + seconds
            while time.monotonic() < until and (piece := one.recv(65536)):
                answer += piece
                if b'"failed"' in answer or b'"signed"' in answer:
                    break
        except OSError as failure:
            return f"denied {failure}" if not answer else answer.decode("latin-1")
    return answer.decode("latin-1") or "denied: it hangs up"


def give_files(path: str) -> str:
    """Pass the vault files of ours, in place of its own."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(20)
        given = array.array("i", [os.open("/dev/null", os.O_RDONLY)] * 8)
        try:
            one.connect(path)
            one.sendmsg([b"{}\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
            return one.recv(65536).decode("latin-1") or "denied: it hangs up"
        except OSError as failure:
            return f"denied {failure}"


def rush(path: str, many: int) -> dict[str, int]:
    """So many connections at once, which say nothing; how they end within some seconds."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    ends = {"connected": 0, "busy": 0, "hung up": 0, "held": 0, "not connected": 0}
    open_: list[socket.socket] = []
    for _ in range(many):
        one = socket.socket(socket.AF_UNIX)
        try:
            one.connect(path)  # waits for its turn
            open_.append(one)
            ends["connected"] += 1
        except OSError:
            ends["not connected"] += 1
    time.sleep(3)
    for one in open_:
        if not select.select([one], [], [], 0)[0]:
            ends["held"] += 1
            continue
        try:
            ends["busy" if b"vault.busy" in one.recv(65536) else "hung up"] += 1
        except OSError:
            ends["hung up"] += 1
    for one in open_:
        one.close()
    return ends


def litter(user: int) -> list[str]:
    """Files of the vault's user outside its home that we can read."""
    found = []
    for top in ("/tmp", "/dev/shm", "/var/tmp", "/run"):  # noqa: S108
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if os.stat(path).st_uid == user and os.path.isfile(path) and os.access(path, os.R_OK):
                        found.append(path)
                except OSError:
                    continue
    return found


def _tried(tries: list[tuple[str, Callable[[], Any]]]) -> list[tuple[str, str]]:
    ends = []
    for name, attempt in tries:
        try:
            ends.append((name, f"got {attempt()!r}"[:200]))
        except (OSError, StopIteration) as failure:
            ends.append((name, f"denied {type(failure).__name__}"))
    return ends


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        FACTS = json.load(file)
    parts = FACTS["parts"]
    said: dict[str, Any] = {"uid": os.getuid()}
    if "files" in parts:
        said["files"] = _tried(files(FACTS))
    if "processes" in parts:
        said["processes"] = _tried(processes(FACTS["pids"]))
    if "litter" in parts:
        said["litter"] = litter(FACTS["user"])
    if "lines" in parts:
        said["lines"] = [*lines(FACTS), ("files", give_files(FACTS["socket"]))]
    if "rush" in parts:
        said["rush"] = rush(FACTS["socket"], FACTS["many"])
    if "knock" in parts:
        said["knock"] = _said(FACTS["socket"], _line(FACTS["order"]))
    print(json.dumps(said))
