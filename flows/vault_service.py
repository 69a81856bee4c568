"""`isthmus vault start`: a party's vaults as another operating-system user than its worker, behind a Unix socket.

::

    1  worker → socket    connects
    2  service            sees who connects (the socket's peer credentials), and how many vaults are at work
    3  service → vault    starts a vault's process with that very connection as its pipe; from there on it is out of it

So the worker, and whoever has taken it over, can have jobs judged and done like any worker, and read what a public
event carries. It cannot read the data file, a key, a model or the vaults' memory: those are another user's.

Adversary: a hijacked worker process. What it may still do is what its member's signature, policy and peers allow it.
The service holds nothing against root, or against the user that it runs as.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import select
import signal
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

from ..parties.errors import InputError, IsthmusError, PeerFailure, disk_errors
from ..parties.events import Phase, public_failure
from .vault_handle import environment, vault_words

LIMIT = 8  # vaults at a time
STOP_S = 10.0  # for a vault whose connection has ended
LOOK_S = 1.0
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: pid, uid, gid
_log = logging.getLogger("isthmus.vaults")


@dataclass
class VaultService:
    """Starts the vaults of the home in `folder` for whoever of `users` connects to `path`."""

    folder: Path
    path: Path
    users: frozenset[int]
    group: int | None = None
    limit: int = LIMIT
    _vaults: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    _taken: int = 0  # of the limit: also by vaults that are just being started

    async def serve(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped`; then end every vault.

        Raises `InputError` ``disk.denied`` for a socket that it cannot have.
        """
        listener = self._listen()
        accepting = asyncio.ensure_future(self._accept(listener))
        try:
            await stopped.wait()
        finally:
            accepting.cancel()
            listener.close()
            self.path.unlink(missing_ok=True)
            for process in list(self._vaults.values()):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(accepting, return_exceptions=True)

    def _listen(self) -> socket.socket:
        with disk_errors(self.folder.name):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_socket():  # of a service that was killed; one that is alive is refused below
                with socket.socket(socket.AF_UNIX) as probe:
                    if probe.connect_ex(str(self.path)) == 0:
                        raise InputError("disk.denied", party=self.folder.name, where=str(self.path))
                self.path.unlink()
            listener = socket.socket(socket.AF_UNIX)
            listener.setblocking(False)
            mask = os.umask(0o177)  # nobody may connect before the mode is what it should be
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(mask)
            if self.group is not None:
                os.chown(self.path, -1, self.group)
            os.chmod(self.path, 0o660 if self.group is not None else 0o600)
            listener.listen(16)
        return listener

    async def _accept(self, listener: socket.socket) -> None:
        loop, serving = asyncio.get_running_loop(), set()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # no more files, say: whoever waits is taken later
                _log.exception("the socket")
                await asyncio.sleep(LOOK_S)
                continue
            one = asyncio.ensure_future(self._serve_one(connection))
            serving.add(one)
            one.add_done_callback(serving.discard)

    async def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            try:
                _, user, _ = _CREDENTIALS.unpack(
                    connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
                if user not in self.users:
                    _log.warning("user %d is not let in", user)
                    return
                if self._taken >= self.limit:
                    raise PeerFailure("vault.busy", party=self.folder.name)
                self._taken += 1
                try:
                    await self._vault(connection)
                finally:
                    self._taken -= 1
            except IsthmusError as failure:
                event = public_failure(Phase.AGREE, failure, {self.folder.name})
                with contextlib.suppress(OSError):
                    connection.send(event.model_dump_json().encode() + b"\n")
            except Exception:
                _log.exception("a connection")

    async def _vault(self, connection: socket.socket) -> None:
        """One vault, from its start to its end. Its log is its own, once it knows for which run."""
        connection.setblocking(True)
        process = await asyncio.create_subprocess_exec(
            *vault_words(self.folder, connection, {}),
            pass_fds=[connection.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        _log.info("vault %d", process.pid)
        self._vaults[process.pid] = process
        gone = select.poll()
        gone.register(connection, select.POLLRDHUP)
        patience = STOP_S
        try:
            while process.returncode is None and patience > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), LOOK_S)
                if gone.poll(0):  # at which a vault ends by itself
                    patience -= LOOK_S
            if process.returncode is None:
                process.kill()
            code = await process.wait()
        finally:
            del self._vaults[process.pid]
        _log.info("vault %d has ended: %d", process.pid, code)


def user_id(name: str) -> int:
    """The number of an operating-system user, by name or number; raises `InputError` ``vault.user``."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError as failure:
        raise InputError("vault.user", user=name) from failure


def group_id(name: str) -> int:
    """The number of an operating-system group, by name or number; raises `InputError` ``vault.user``."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError as failure:
        raise InputError("vault.user", user=name) from failure


async def serve_vaults(service: VaultService) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await service.serve(stopped)
