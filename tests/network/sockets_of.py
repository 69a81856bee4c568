"""Which sockets some processes have open, from /proc: who listens, and who is connected to whom."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LISTEN, _ESTABLISHED = "0A", "01"


class Sockets(NamedTuple):
    """Addresses with ports: where is listened (TCP, and any UDP), and the far ends of connections."""

    listening: frozenset[str]
    connected: frozenset[str]


def family(pid: int) -> list[int]:
    """A process and all below it that are there now."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


def sockets_of(pids: Iterable[int], *, whole_namespace: bool) -> Sockets:
    """The internet sockets of processes; with `whole_namespace` all of the namespaces that they are in."""
    listening, connected = set(), set()
    for pid in pids:
        own = None if whole_namespace else _inodes(pid)
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for local, far, state, inode in _table(pid, kind):
                if own is not None and inode not in own:
                    continue
                if kind.startswith("udp") or state == _LISTEN:
                    listening.add(f"{_text(local)} ({kind[:3]})")
                elif state == _ESTABLISHED:
                    connected.add(_text(far))
    return Sockets(frozenset(listening), frozenset(connected))


def _table(pid: int, kind: str) -> Iterator[tuple[str, str, str, str]]:
    try:
        lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    except OSError:  # it has ended, or there is no IPv6
        return
    for line in lines:
        words = line.split()
        yield words[1], words[2], words[3], words[9]


def _inodes(pid: int) -> set[str]:
    found: set[str] = set()
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return found
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:  # it was closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found


def _text(address: str) -> str:
    """The kernel's hexadecimal address (words of four bytes, each reversed) as people write it."""
    host, port = address.split(":")
    packed = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    text = socket.inet_ntop(socket.AF_INET6, packed).removeprefix("::ffff:")
    return f"{text}:{int(port, 16)}" if "." in text else f"[{text}]:{int(port, 16)}"
