"""A machine a member, on one machine: network namespaces that only reach the exchange's, or addresses of loopback.

::

    lab        10.77.1.2 ──── 10.77.1.1 ┐
    insurer    10.77.2.2 ──── 10.77.2.1 ┤ the exchange's namespace: 10.77.0.1, forwards nothing
    ...        10.77.3.2 ──── 10.77.3.1 ┘

Each line is a veth pair with a network of its own. A member's default route leads to the exchange's namespace, so that
what it sends to another member's address really leaves it, and ends there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

PROBE_PORT = 7000
_PREFIX = "isthmus"
# Hides folders (empty ones are mounted over them, in a mount namespace of its own) and becomes the command.
_HIDE = """
while [ "$1" != -- ]; do mount -t tmpfs -o ro,size=4k none "$1" || exit 1; shift; done; shift; exec "$@"
"""
# Listens at its own address; told to go, tries to reach every address that it is given. JSON: address to answer, and
# "seen": how many files there are in the folders that it should not see.
_PROBE = """
import json, os, socket, sys
from concurrent.futures import ThreadPoolExecutor
own, *targets = sys.argv[1:sys.argv.index("--")]
folders = sys.argv[sys.argv.index("--") + 1:]
def parsed(text): return text.rpartition(":")[0], int(text.rpartition(":")[2])
def reach(target):
    try:
        socket.create_connection(parsed(target), 2).close()
        return "answers"
    except TimeoutError: return "no answer"
    except OSError as failure: return failure.strerror.lower()
with socket.create_server(parsed(own)):
    print("ready", flush=True); sys.stdin.readline()
    with ThreadPoolExecutor(16) as pool: found = dict(zip(targets, pool.map(reach, targets)))
    print(json.dumps({**found, "seen": sum(len(os.listdir(folder)) for folder in folders)}), flush=True)
    sys.stdin.readline()
"""


class Network(Protocol):
    """Where members and the exchange are. Use as a context manager: leaving it takes all of it away."""

    addresses: Mapping[str, str]  # of members, by name
    exchange: str  # the address of the exchange
    enforced: bool  # whether each has its own

    def place(self, name: str | None) -> str:
        """What to call the place of a member (None: the exchange) to people."""

    def inside(self, name: str | None, hidden: Sequence[Path] = ()) -> tuple[str, ...]:
        """What to put before a command so that it runs there, and cannot see the `hidden` folders."""

    def __enter__(self) -> Network: ...

    def __exit__(self, *_: object) -> None: ...


class Namespaces:
    """A network namespace a member and one for the exchange. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN."""

    enforced = True
    exchange = "10.77.0.1"

    def __init__(self, members: Sequence[str]) -> None:
        self.addresses: Mapping[str, str] = {name: f"10.77.{number}.2" for number, name in enumerate(members, 1)}

    def place(self, name: str | None) -> str:
        """The namespace's name."""
        return f"{_PREFIX}-{os.getpid()}-{name or 'exchange'}"

    def inside(self, name: str | None, hidden: Sequence[Path] = ()) -> tuple[str, ...]:
        """Enter the namespace, and a mount namespace of its own."""
        own = ("ip", "netns", "exec", self.place(name))
        return (*own, "unshare", "--mount", "sh", "-c", _HIDE, "sh", *map(str, hidden), "--") if hidden else own

    def __enter__(self) -> Namespaces:
        """Make them; whatever earlier demos have left that are no longer there is taken away first."""
        for name in _ours():
            if not Path(f"/proc/{name.split('-')[1]}").exists():
                _ip("netns", "del", name)
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        middle = self.place(None)
        for name in (None, *self.addresses):
            _ip("netns", "add", self.place(name))
            _ip("-n", self.place(name), "link", "set", "lo", "up")
            quiet = "for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done"
            still = "echo 0 > /proc/sys/net/ipv4/ip_forward"
            subprocess.run(
                [*self.inside(name), "sh", "-c", f"[ ! -e /proc/sys/net/ipv6 ] || {{ {quiet}; }}; {still}"], check=True
            )
        _ip("-n", middle, "addr", "add", f"{self.exchange}/32", "dev", "lo")
        for number, (name, address) in enumerate(self.addresses.items(), 1):
            own, to = self.place(name), f"10.77.{number}.1"
            _ip("-n", middle, "link", "add", f"member{number}", "type", "veth", "peer", "name", "wan0", "netns", own)
            _ip("-n", middle, "addr", "add", f"{to}/30", "dev", f"member{number}")
            _ip("-n", middle, "link", "set", f"member{number}", "up")
            _ip("-n", own, "addr", "add", f"{address}/30", "dev", "wan0")
            _ip("-n", own, "link", "set", "wan0", "up")
            _ip("-n", own, "route", "add", "default", "via", to)

    def __exit__(self, *_: object) -> None:
        there = _ours()
        for name in (None, *self.addresses):
            if self.place(name) in there:
                _ip("netns", "del", self.place(name))


class Loopback:
    """An address of loopback a member, without root. Only the exchange binds its own: a member binds none."""

    enforced = False
    exchange = "127.0.1.1"

    def __init__(self, members: Sequence[str]) -> None:
        self.addresses: Mapping[str, str] = {name: f"127.0.1.{number}" for number, name in enumerate(members, 11)}

    def place(self, name: str | None) -> str:
        """All are on this machine."""
        return "this machine"

    def inside(self, name: str | None, hidden: Sequence[Path] = ()) -> tuple[str, ...]:
        """Nothing is hidden without root."""
        return ()

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Reached(NamedTuple):
    """What answered a member: the exchange, its own port (which listens), and the ports of other members.

    `seen` is how many files it sees in the folders that are hidden from it.
    """

    exchange: str
    own: str
    others: tuple[str, ...]
    seen: int


def probe(network: Network, port: int, hidden: Mapping[str, Sequence[Path]]) -> dict[str, Reached]:
    """Have every member listen for a moment, and try to reach the exchange's port, its own and all others'."""
    ends = {name: f"{address}:{PROBE_PORT}" for name, address in network.addresses.items()}
    target = f"{network.exchange}:{port}"
    with contextlib.ExitStack() as stack:
        probes = {}
        for name, end in ends.items():
            targets = (end, target, *ends.values(), "--", *map(str, hidden[name]))
            words = [*network.inside(name, hidden[name]), sys.executable, "-S", "-c", _PROBE, *targets]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, process)
            probes[name] = process
        for process in probes.values():
            assert process.stdout and process.stdout.readline() == "ready\n", "a probe cannot listen"
        for process in probes.values():
            print(file=process.stdin, flush=True)
        answers = {name: json.loads(process.stdout.readline()) for name, process in probes.items() if process.stdout}
    reached = {}
    for name, answer in answers.items():
        others = tuple(answer[end] for other, end in ends.items() if other != name)
        reached[name] = Reached(answer[target], answer[ends[name]], others, answer["seen"])
    return reached


def may_make_namespaces() -> bool:
    """Whether this process can make network namespaces: it tries."""
    name = f"{_PREFIX}-{os.getpid()}-try"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if made:
        _ip("netns", "del", name)
    return made


def _ours() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"^({_PREFIX}-\d+-\S+)", listed, re.MULTILINE)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
