"""A vault that has said its last word is let to take leave of its peers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.jobs import job_of
from isthmus.flows.journal import Journal
from isthmus.flows.orders import Open
from isthmus.flows.vault_handle import Vault
from isthmus.parties.errors import PeerFailure
from isthmus.parties.events import Phase

# It says its last word, and takes a while to go. If the pipe is closed meanwhile, it ends at once, as vaults do.
_VAULT = """
import os, pathlib, select, socket, sys
control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control") + 1]))
lines = control.makefile("rb")
lines.readline(), lines.readline()
control.sendall({word!r} + b"\\n")
if not select.select([control], [], [], 0.5)[0]:
    pathlib.Path(sys.argv[sys.argv.index("--home") + 1], "goodbye").touch()
"""
_FAILED = b'{"event": "failed", "phase": "train", "code": "peer.gone", "names": {"party": "lab", "peer": "insurer"}}'
_FINISHED = b'{"event": "finished", "phase": "close", "seconds": 0.1}'


@pytest.mark.parametrize("word", [_FAILED, _FINISHED])
def test_a_vault_that_ends_by_itself_is_not_cut_short(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: bytes
) -> None:
    program = tmp_path / "vault"
    program.write_text(f"#!{sys.executable}\n{_VAULT.format(word=word)}")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    home = world.homes / "lab"

    async def run() -> None:
        vault = Vault("lab", job_of(world.job), Journal("test-job-1"))
        try:
            await vault.start(home, None, Open(job=world.job, run="test-job-1", timeout_s=5))
            await vault.phase(Phase.CLOSE)
        except PeerFailure as failure:
            assert failure.code == "peer.gone"
        finally:
            await vault.stop()

    asyncio.run(run())
    assert (home / "goodbye").exists()


def test_a_pause_ends_a_vault_whose_flow_does_not_read() -> None:
    program = (
        "import threading\n"
        "from isthmus.flows import vault\n"
        "class Deaf:\n"
        "    def failure(self, *_):\n"
        "        threading.Event().wait()\n"
        "vault._end_at_once(Deaf(), 'lab')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert done.returncode == 3
