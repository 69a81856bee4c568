"""Vaults behind a socket: who may connect, how many are at work at once, and what a vault does with what it is told."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.orders import LINE_NBYTES, Open
from isthmus.flows.vault_handle import environment, vault_words
from isthmus.flows.vault_service import VaultService
from isthmus.parties.errors import InputError
from isthmus.parties.events import Failed, parse
from isthmus.parties.network.local import socket_pair

from ..vertical_world import VerticalWorld


class Slow(VaultService):
    """Its vaults do nothing for a while, and take a moment to begin."""

    most = going = 0

    async def _vault(self, connection: socket.socket) -> None:
        await asyncio.sleep(0.01)
        self.going += 1
        self.most = max(self.most, self.going)
        await asyncio.sleep(0.5)
        self.going -= 1


def serving(service: VaultService, do: Callable[[], Any]) -> Any:
    """What something comes to while the service serves."""

    async def whole() -> Any:
        stopped = asyncio.Event()
        serve = asyncio.ensure_future(service.serve(stopped))
        while not service.path.exists():
            await asyncio.sleep(0.01)
        try:
            return await asyncio.to_thread(do)
        finally:
            stopped.set()
            await serve

    return asyncio.run(whole())


def knock(path: Path, many: int) -> list[bytes]:
    """What so many connections are told."""
    all_ = [socket.socket(socket.AF_UNIX) for _ in range(many)]
    said = []
    for one in all_:
        one.settimeout(10)
        one.connect(str(path))
    for one in all_:
        with one:
            said.append(one.recv(65536))
    return said


def test_no_more_vaults_are_at_work_than_may_however_many_connect_at_once(tmp_path: Path) -> None:
    service = Slow(tmp_path / "lab", tmp_path / "s", frozenset({os.getuid()}), limit=3)
    said = serving(service, lambda: knock(service.path, 12))
    refused = [parse(line, {"lab"}) for line in said if line]
    assert service.most == 3
    assert len(refused) == 9
    assert all(isinstance(event, Failed) and event.code == "vault.busy" for event in refused)


def test_a_place_is_free_again_once_a_vault_has_ended(tmp_path: Path) -> None:
    service = Slow(tmp_path / "lab", tmp_path / "s", frozenset({os.getuid()}), limit=1)
    assert serving(service, lambda: [knock(service.path, 1) for _ in range(3)]) == [[b""]] * 3


def test_a_user_who_is_not_named_gets_nothing(tmp_path: Path) -> None:
    service = Slow(tmp_path / "lab", tmp_path / "s", frozenset({os.getuid() + 1}))
    assert serving(service, lambda: knock(service.path, 3)) == [b""] * 3
    assert service.most == 0


@pytest.mark.parametrize(("group", "mode"), [(None, 0o600), (os.getgid(), 0o660)])
def test_the_socket_is_for_its_owner_and_the_group_that_is_named(tmp_path: Path, group: int | None, mode: int) -> None:
    service = Slow(tmp_path / "lab", tmp_path / "s", frozenset({os.getuid()}), group)
    assert serving(service, lambda: stat.S_IMODE(service.path.stat().st_mode)) == mode
    assert not service.path.exists()


def test_the_socket_of_a_service_that_was_killed_is_taken_over_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    service = Slow(tmp_path / "lab", path, frozenset({os.getuid()}))
    service._listen().close()
    with socket.socket(socket.AF_UNIX) as live:
        path.unlink()
        live.bind(str(path))
        live.listen()
        with pytest.raises(InputError, match=r"disk\.denied"):
            service._listen()


# --- what a vault does with what it is told -------------------------------------------------------------------------


@contextmanager
def vault(world: VerticalWorld) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A vault's process of lab's, and the flow's end of its pipe."""
    ours, theirs = socket_pair()
    home = world.homes / "lab"
    words = vault_words(home, theirs, {})
    with ours, theirs:
        process = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], env=environment(), stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        theirs.close()
        ours.settimeout(60)
        try:
            yield process, ours
        finally:
            process.kill()
            process.wait()


def opening(world: VerticalWorld, **changes: Any) -> bytes:
    job = world.load_job()
    return Open(job=job.canonical(), run=job.run_name(1), **changes).model_dump_json().encode() + b"\n"


def test_a_vault_ends_at_a_line_without_end(world: VerticalWorld) -> None:
    with vault(world) as (process, ours):
        with pytest.raises(OSError):
            for _ in range(10 * LINE_NBYTES // 65536):
                ours.sendall(b"x" * 65536)
        process.wait(30)


def test_a_vault_ends_at_a_flood_of_commands(world: VerticalWorld) -> None:
    with vault(world) as (process, ours):
        with pytest.raises(OSError):
            ours.sendall(opening(world))
            for _ in range(1000):
                ours.sendall(b'{"phase": "align"}\n' * 1000)
        process.wait(30)


def test_a_vault_without_a_way_to_a_peer_does_not_begin(world: VerticalWorld) -> None:
    """Whoever is not there would not be asked whether it was given the same job."""
    with vault(world) as (process, ours):
        ours.sendall(opening(world) + b'{"phase": "agree"}\n{"phase": "align"}\n')
        event = parse(ours.makefile("rb").readline(), world.load_job().aliases())
        assert isinstance(event, Failed)
        assert event.code == "internal"
        process.wait(30)
