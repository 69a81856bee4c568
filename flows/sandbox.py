"""The consortium of `isthmus up`: the demo's homes, each with its keys, an exchange, a roster that all have accepted.

All of it is in one folder, and one person holds all the keys: it is for learning and trying, and shows what is done
where. Each step is that of the commands which members run on their own machines (docs/deploy.md).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..parties.consortium import pinned
from ..parties.errors import InputError
from ..parties.files import write_whole
from ..parties.home import PARTY_FILE, PartyHome
from ..parties.roster import Roster
from .founding import EXCHANGE_FILE, found_exchange, found_member
from .rosters import accept_in, with_files, with_signature

Which = Literal["vertical", "hospitals"]
COORDINATOR, EXCHANGE, CONSORTIUM = "coordinator", "relay", "sandbox"

_COORDINATOR = """\
# The coordinator's own rules. It holds no data. (Made by `isthmus up`.)
name: coordinator

policy:                             # what is not allowed here is refused
  signs: [vertical, transfer]       # what is started in the Prefect UI is signed in the coordinator's name: here one
                                    # person is everybody, so whoever reaches the UI may start the demo's jobs
"""


@dataclass(frozen=True)
class Sandbox:
    """What was founded. `parties` are all members but the coordinator."""

    folder: Path
    parties: tuple[str, ...]
    jobs: tuple[Path, ...]
    exchange: str  # its address
    roster: Roster

    @property
    def homes(self) -> Path:
        """Folder with one home a member."""
        return self.folder / "homes"

    @property
    def exchange_folder(self) -> Path:
        """Where the exchange keeps its files."""
        return self.folder / EXCHANGE


def found_sandbox(folder: Path, which: Which, *, patients: int | None = None) -> Sandbox:
    """Make what is missing of a sandbox. What is there stays; the exchange moves if its port is taken.

    Raises what making the demo's homes and founding a consortium raise.
    """
    homes = folder / "homes"
    parties, jobs = _make_homes(homes, which, patients)
    members = (*parties, COORDINATOR)
    files = [found_member(name, "coordinator" if name == COORDINATOR else "party", homes).file for name in members]
    exchange_folder = folder / EXCHANGE
    folders = [*(homes / name for name in members), exchange_folder]
    before = pinned(homes / COORDINATOR)
    address = before.exchanges[EXCHANGE].address if before and EXCHANGE in before.exchanges else None
    if address is None or not _is_free(address):
        address = f"127.0.0.1:{_free_port()}"
    own = found_exchange(EXCHANGE, address, exchange_folder)
    # On this machine alone, and nothing of its own to look at beside the logs.
    listening = {"name": EXCHANGE, "listen": address}
    write_whole(exchange_folder / EXCHANGE_FILE, json.dumps(listening).encode())
    roster = with_files(before, [*files, own.file], name=CONSORTIUM, threshold=min(2, len(members)))
    if before is None or _differs(before, roster):
        for name in members:
            roster = with_signature(roster, PartyHome(homes / name))
        accept_in(roster, folders, roster.digest())
    else:
        roster = before
    return Sandbox(folder, parties, tuple(homes / job for job in jobs), address, roster)


def _make_homes(homes: Path, which: Which, patients: int | None) -> tuple[tuple[str, ...], Sequence[str]]:
    if which == "hospitals":
        from .hospitals import JOBS, MEMBERS, make_hospitals

        make_hospitals(homes, patients=patients)
        return tuple(name for name in MEMBERS if name != COORDINATOR), tuple(JOBS)
    from .demo import JOB_FILE, TRANSFER_FILE, make_homes

    make_homes(homes, patients=patients)
    home = homes / COORDINATOR
    if not (home / PARTY_FILE).exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(home / PARTY_FILE, _COORDINATOR.encode())
    return ("lab", "insurer", "clinic"), (JOB_FILE, TRANSFER_FILE)


def _differs(before: Roster, after: Roster) -> bool:
    changed = ("members", "exchanges", "threshold")
    return any(getattr(before, field) != getattr(after, field) for field in changed)


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_port(preferred: int) -> int:
    """That port of this machine, or the next of twenty that is free; raises `InputError` ``up.ports``."""
    for port in range(preferred, preferred + 20):
        if _is_free(f"127.0.0.1:{port}"):
            return port
    raise InputError("up.ports", port=preferred)
