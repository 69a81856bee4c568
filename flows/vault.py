"""A vault's main: the process of one party that can read its rows and keys.

It is commanded over one pipe (JSON lines, see `Command`) and answers with `PublicEvent`s, nothing else. It speaks to
its peers' vaults over channels. It imports no Prefect, its log goes to the party's own home, and it ends when the pipe
does: a vault whose flow is gone leaves nothing running.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..parties.errors import InternalError, IsthmusError, PolicyRefusal
from ..parties.events import Finished, Phase, Reachable, Started
from ..parties.home import PartyHome
from ..parties.ledger import Ledger
from ..parties.network.channel import TIMEOUT_S
from ..parties.pause import watch_pause
from ..parties.reach import Reach, ReachByExchange, ReachBySockets
from ..parties.starts import Start
from .jobs import Job, job_of
from .kinds import room
from .phases import Opening, Phases
from .publisher import Publisher

RUN_PATTERN = r"^[a-z][a-z0-9_-]{0,79}$"
_log = logging.getLogger("isthmus.vault")


class Open(BaseModel):
    """The first line on the pipe: which job, which run."""

    model_config = ConfigDict(extra="forbid")

    job: dict[str, Any]
    start: Start | None = None
    run: str = Field(pattern=RUN_PATTERN)
    fresh: bool = False
    by_exchange: bool = False
    timeout_s: float = Field(default=TIMEOUT_S, gt=0)


class Command(BaseModel):
    """Every further line: the phase to do next."""

    model_config = ConfigDict(extra="forbid")

    phase: Phase


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one job; returns the process's exit code."""
    parser = argparse.ArgumentParser(description="The process of one party that can read its rows.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the pipe to the flow")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FD", help="a socket to a peer's vault")
    options = parser.parse_args(arguments)
    logging.raiseExceptions = False  # a full disk must not hide the error that says so
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)  # state, models and checkpoints are the owner's alone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the flow's to handle; it closes the pipe
    control = socket.socket(fileno=options.control)
    commands: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(control, commands), daemon=True).start()
    opening = Open.model_validate_json(commands.get())
    ends = {name: int(number) for name, number in (peer.rsplit("=", 1) for peer in options.peer)}
    job = job_of(opening.job)
    tell = Publisher(control.sendall, job.aliases())
    watch_pause(options.home, lambda: _end_at_once(tell, options.home.name))
    return serve(opening, job, options.home, ends, commands, tell)


def serve(
    opening: Open, job: Job, folder: Path, ends: dict[str, int], commands: queue.Queue[bytes], tell: Publisher
) -> int:
    """Do the phases that are commanded, until CLOSE or the first failure; returns the process's exit code.

    `folder` is the party's home, `ends` the sockets to its peers by their file descriptors.
    """
    phase, party, due = Phase.AGREE, folder.name, Phase.AGREE
    phases: Phases[Any] | None = None
    reach: Reach | None = None
    try:
        home = PartyHome(folder)
        tell.obey(home.config.policy)
        reach = _reach(home, opening, job, ends, tell)
        phases = room(job.kind, "phases").phases_of(
            home, job, Opening(opening.run, reach, opening.fresh, opening.start), tell
        )
        assert phases is not None
        while phase is not Phase.CLOSE:
            phase = Command.model_validate_json(commands.get()).phase
            work: Callable[[], None] = getattr(phases, phase.value)
            if phase not in (due, Phase.CLOSE):  # what judges comes before what learns
                raise InternalError("internal", party=party, detail=f"{phase} was commanded where {due} was due")
            due = job.phases[job.phases.index(phase) + 1] if phase is not Phase.CLOSE else phase
            began = time.monotonic()
            tell(Started(phase=phase))
            work()
            phases.done |= phase is job.phases[-2]  # the last before CLOSE
            tell(Finished(phase=phase, seconds=time.monotonic() - began))
        return 0
    except IsthmusError as error:
        _log.error("%s: %s %s", phase, error, error.detail, exc_info=isinstance(error, InternalError))
        tell.failure(phase, error)
        return error.exit_code
    except Exception:
        _log.exception("%s: a fault of ours", phase)
        tell.failure(phase, InternalError("internal", party=party))
        return 1
    finally:
        for channel in phases.channels.values() if phases else ():
            with suppress(IsthmusError):  # the error that brought us here has been told already
                channel.close()
        if reach is not None:
            reach.close()


def _reach(home: PartyHome, opening: Open, job: Job, ends: dict[str, int], tell: Publisher) -> Reach:
    log = Ledger(home).job(opening.run, job.digest())
    run, digest, timeout_s = opening.run, job.digest(), opening.timeout_s
    if not opening.by_exchange:
        sockets = {peer: socket.socket(fileno=number) for peer, number in ends.items()}
        return ReachBySockets(home, sockets, run=run, job=digest, log=log, timeout_s=timeout_s)
    peers = tuple(sorted({name for link in job.links if home.name in link for name in link} - {home.name}))
    return ReachByExchange(
        home,
        peers,
        exchange=job.exchange,
        on_state=lambda up: tell(Reachable(up=up)),
        run=run,
        job=digest,
        log=log,
        timeout_s=timeout_s,
    )


def _end_at_once(tell: Publisher, party: str) -> None:
    """Somebody at the party has paused it: whatever is going on, it ends here. What was killed can be resumed."""
    _log.error("paused")
    with suppress(OSError):  # the flow may be gone as well
        tell.failure(Phase.CLOSE, PolicyRefusal("policy.paused", party=party))
    os._exit(PolicyRefusal.exit_code)


def _listen(control: socket.socket, commands: queue.Queue[bytes]) -> None:
    """Queue the flow's lines; when the flow is gone, so are we, whatever the main thread is doing.

    Nothing needs tidying up: files are renamed into place when they are whole, and state is written in transactions.
    """
    with control.makefile("rb") as lines:
        for line in lines:
            commands.put(line)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
