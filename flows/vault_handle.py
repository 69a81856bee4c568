"""A flow's handle on one vault: commands go down, public events come up.

A vault is a process of ours (`Vault.start`), or one that another operating-system user keeps behind a Unix socket
(`Vault.connect`, see `vault_service`): then nothing that runs as this user can read the party's rows or keys. What is
said is the same either way. This module knows no Prefect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ValidationError

from ..parties.errors import PeerFailure
from ..parties.events import Failed, Finished, Phase, PublicEvent, Signed, parse
from ..parties.network.local import socket_pair
from .jobs import Job
from .journal import Journal
from .orders import Command, Open, Sign
from .vault_log import open_log

STOP_S = 5.0
SPARE_AFTER_S = 5.0
LINE_NBYTES = 4 * 1024 * 1024  # of one event: a histogram is the longest


class Vault:
    """A handle on one vault, or one that is still to be started."""

    def __init__(self, party: str, job: Job, journal: Journal) -> None:
        self.party = party
        self._aliases, self._journal = job.aliases(), journal
        self._process: asyncio.subprocess.Process | None = None
        self._line: _Line | None = None
        self._has_ended = False  # it has said its last word, and takes leave of its peers

    async def start(self, home: Path, ends: Mapping[str, socket.socket] | None, opening: Open) -> None:
        """Start a process for a job. `ends`: the sockets that join it to its peers' vaults on this machine, which are
        closed here.
        """
        ours, theirs = socket_pair()
        await self.take(Spare(await _spawn(home, theirs, ends or {}, opening.run), ours), opening)

    async def take(self, spare: Spare, opening: Open) -> None:
        """Have a process that is ready take a job on."""
        self._process = spare.process
        await self._open(await asyncio.open_unix_connection(sock=spare.control, limit=LINE_NBYTES), opening)

    async def connect(self, path: Path, opening: Open) -> None:
        """Have a vault that runs already take a job on; raises `PeerFailure` ``vault.unreachable``."""
        try:
            streams = await asyncio.open_unix_connection(path, limit=LINE_NBYTES)
        except OSError as failure:
            raise PeerFailure("vault.unreachable", party=self.party, detail=str(failure)) from failure
        await self._open(streams, opening)

    async def _open(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], opening: Open) -> None:
        self._line = _Line(*streams, self._aliases)
        await self._line.say(opening)

    async def phase(self, phase: Phase) -> None:
        """Have one phase done; its events go into the journal.

        Raises the vault's error, in words made here from its code, or `PeerFailure` ``vault.died``.
        """
        assert self._line is not None
        await self._line.say(Command(phase=phase))
        while event := await self._line.event():
            self._journal.note(self.party, event)
            self._has_ended |= isinstance(event, Failed) or (isinstance(event, Finished) and event.phase is Phase.CLOSE)
            if isinstance(event, Failed):
                raise event.error()
            if isinstance(event, Finished) and event.phase is phase:
                return
        raise PeerFailure("vault.died", party=self.party)

    async def stop(self) -> None:
        """Close the pipe, at which the vault ends at once; kill it if it does not.

        One that ends by itself is let: else its goodbye may be lost on its way, and its peers wait till their deadline.
        """
        if self._has_ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone(), STOP_S)
        if self._line is not None:
            self._line.close()
        if self._process is not None and self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        elif self._line is not None:
            while await self._line.event():
                pass

    @property
    def pid(self) -> int | None:
        """The vault's process id, where it is a process of ours."""
        return self._process.pid if self._process else None


@dataclass(frozen=True)
class Spare:
    """A vault's process that has not been told of a job yet, and our end of the pipe to it."""

    process: asyncio.subprocess.Process
    control: socket.socket


class Keeper(Protocol):
    """Where a party's vault is to be had."""

    async def prepare(self) -> None:
        """Have one ready for the next job: a process takes a second to start."""

    async def close(self) -> None:
        """Let go of the one that is ready."""

    async def open(self, vault: Vault, opening: Open) -> None:
        """Have a vault take a job on."""

    async def sign(self, party: str, order: Sign) -> Signed:
        """Have the party sign one run of a job; raises the vault's error, and `PeerFailure` ``vault.died``."""


class KeptHere:
    """Vaults as processes of ours, over the home in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spare: Spare | None = None

    async def prepare(self) -> None:
        """Have a process ready; it reads nothing of the home before it is told of a job."""
        if self._spare is None:
            ours, theirs = socket_pair()
            self._spare = Spare(await _spawn(self._folder, theirs, {}, None), ours)

    async def close(self) -> None:
        """Let go of the process that is ready: at the end of its pipe it ends."""
        if self._spare is not None:
            self._spare.control.close()
            await self._spare.process.wait()
            self._spare = None

    async def open(self, vault: Vault, opening: Open) -> None:
        """Have a process take the job on, the one that is ready if there is one."""
        if (spare := self._taken()) is not None:
            await vault.take(spare, opening)
        else:
            await vault.start(self._folder, None, opening)

    async def sign(self, party: str, order: Sign) -> Signed:
        """Have a process sign, and end."""
        spare = self._taken()
        if spare is None:
            ours, theirs = socket_pair()
            spare = Spare(await _spawn(self._folder, theirs, {}, order.run), ours)
        try:
            streams = await asyncio.open_unix_connection(sock=spare.control, limit=LINE_NBYTES)
            return await _signed(party, order, streams)
        finally:
            await spare.process.wait()

    def _taken(self) -> Spare | None:
        """The process that is ready, if it still is. The next one is made once this job has got going."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        asyncio.get_running_loop().call_later(SPARE_AFTER_S, lambda: asyncio.ensure_future(self.prepare()))
        if spare.process.returncode is not None:
            spare.control.close()
            return None
        return spare


class KeptApart:
    """Vaults that another operating-system user starts, at whose socket `path` we ask."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def prepare(self) -> None:
        """Nothing: that is for who keeps them."""

    async def close(self) -> None:
        """Nothing: that is for who keeps them."""

    async def open(self, vault: Vault, opening: Open) -> None:
        """Ask for a vault for the job."""
        await vault.connect(self._path, opening)

    async def sign(self, party: str, order: Sign) -> Signed:
        """Ask for a signature."""
        try:
            streams = await asyncio.open_unix_connection(self._path, limit=LINE_NBYTES)
        except OSError as failure:
            raise PeerFailure("vault.unreachable", party=party, detail=str(failure)) from failure
        return await _signed(party, order, streams)


async def _signed(party: str, order: Sign, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> Signed:
    line = _Line(*streams, {party})
    try:
        await line.say(order)
        event = await line.event()
    finally:
        line.close()
    if isinstance(event, Failed):
        raise event.error()
    if not isinstance(event, Signed):
        raise PeerFailure("vault.died", party=party)
    return event


class _Line:
    """The pipe to a vault, whole lines at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, aliases: Iterable[str]) -> None:
        self._reader, self._writer, self._aliases = reader, writer, frozenset(aliases)

    async def say(self, line: BaseModel) -> None:
        with contextlib.suppress(ConnectionError):  # the reading side will see that it is gone
            self._writer.write(line.model_dump_json().encode() + b"\n")
            await self._writer.drain()

    async def event(self) -> PublicEvent | None:
        """The next event; None if the vault is gone, or says what is not for our eyes, whatever it is."""
        try:
            line = await self._reader.readline()
            return parse(line, self._aliases) if line else None
        except (ConnectionError, ValidationError):  # it was killed, or that is no event
            return None
        except ValueError:  # a line that never ends
            return None

    def close(self) -> None:
        self._writer.close()


async def _spawn(
    home: Path, control: socket.socket, ends: Mapping[str, socket.socket], run: str | None
) -> asyncio.subprocess.Process:
    """Start the process; the sockets are its own from here on.

    Until it knows for which `run` it is, what goes wrong with it is said where our own errors are.
    """
    passed = [control.fileno(), *(end.fileno() for end in ends.values())]
    log = open_log(home, run) if run is not None else os.dup(2)
    try:
        return await asyncio.create_subprocess_exec(
            *vault_words(home, control, ends),
            pass_fds=passed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,  # Ctrl-C goes to the flow, which closes the pipe
        )
    finally:
        os.close(log)
        for end in (control, *ends.values()):
            end.close()


def vault_words(home: Path, control: socket.socket, ends: Mapping[str, socket.socket]) -> list[str]:
    """The command of a vault's process."""
    peers = [word for peer, end in ends.items() for word in ("--peer", f"{peer}={end.fileno()}")]
    # -P, or whoever can write into the folder that we are in could have its code run here
    module = [sys.executable, "-P", "-m", "isthmus.flows.vault"]
    return [*module, "--home", str(home), "--control", str(control.fileno()), *peers]


def environment() -> dict[str, str]:
    """What a process that reads rows gets of our environment: nothing of Prefect's, whose keys are not for it.

    One thread for mathematics: several vaults share a machine, and one thread adds up in one order.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
