"""A vault's main: the process of one party that can read its rows and keys.

It is commanded over one pipe (JSON lines, see `orders`) and answers with `PublicEvent`s, nothing else. It speaks to
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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..parties.errors import InputError, InternalError, IsthmusError, PolicyRefusal
from ..parties.events import Finished, Phase, Reachable, Started
from ..parties.home import PartyHome
from ..parties.ledger import Ledger
from ..parties.pause import watch_pause
from ..parties.reach import Reach, ReachByExchange, ReachBySockets, RunWays
from .jobs import Job, job_of
from .kinds import room
from .orders import LINE_NBYTES, Command, Open, Sign
from .phases import Opening, Phases
from .publisher import Publisher
from .signed import sign_for_flow
from .vault_log import open_log

PAUSED_S = 1.0  # for telling the flow that the party is paused
MOST_COMMANDS = 4 * len(Phase)  # that wait: a flow says the next when the last is done
GOODBYE_S = 2.0  # for telling the peers, once the flow is gone
_ORDER: TypeAdapter[Open | Sign] = TypeAdapter(Open | Sign)
_log = logging.getLogger("isthmus.vault")


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
    ends = {name: int(number) for name, number in (peer.rsplit("=", 1) for peer in options.peer)}
    serving = Serving(options.home, ends, commands)
    threading.Thread(target=_listen, args=(control, commands, serving.let_go), daemon=True).start()
    try:
        opening = _ORDER.validate_json(commands.get())
        try:
            _log_to(options.home, opening.run)
        except IsthmusError as failure:
            Publisher(control.sendall, {options.home.name}).failure(Phase.AGREE, failure)
            return failure.exit_code
        job = job_of(opening.job if isinstance(opening, Open) else opening.sign)
    except (ValidationError, IsthmusError) as failure:
        _log.error("the first line is no job: %s", failure)
        problem = "what the flow said first is no job"
        Publisher(control.sendall, ()).failure(Phase.AGREE, InputError("job.invalid", problem=problem))
        return InputError.exit_code
    if isinstance(opening, Sign):
        return _sign(job, options.home, Publisher(control.sendall, {options.home.name}))
    tell = Publisher(control.sendall, job.aliases())
    watch_pause(options.home, lambda: _end_at_once(tell, options.home.name))
    return serving.serve(opening, job, tell)


class Serving:
    """One vault at work. `folder` is the party's home, `ends` the sockets to its peers by their file descriptors."""

    def __init__(self, folder: Path, ends: Mapping[str, int], commands: queue.Queue[bytes]) -> None:
        self._folder, self._ends, self._commands = folder, ends, commands
        self._phases: Phases[Any] | None = None
        self._reach: Reach | None = None

    def serve(self, opening: Open, job: Job, tell: Publisher) -> int:
        """Do the phases that are commanded, until CLOSE or the first failure; returns the process's exit code."""
        party, at = self._folder.name, [Phase.AGREE]
        failure: IsthmusError
        try:
            self._prepare(opening, job, tell)
            self._obey(job, tell, at)
            return 0
        except IsthmusError as error:
            _log.error("%s: %s %s", at[-1], error, error.detail, exc_info=isinstance(error, InternalError))
            failure = error
        except Exception:
            _log.exception("%s: a fault of ours", at[-1])
            failure = InternalError("internal", party=party)
        self.let_go()  # first: the flow ends us once it knows, and the peers would wait for us
        with suppress(OSError):  # a flow that is gone: `main` has to end at once, not in the libraries' own time
            tell.failure(at[-1], failure)
        return failure.exit_code

    def let_go(self) -> None:
        """Say goodbye to the peers and close the ways to them. Safe to call twice, and from any thread."""
        for channel in list(self._phases.channels.values()) if self._phases else ():
            with suppress(IsthmusError):  # what brought us here is told by others
                channel.close()
        if self._reach is not None:
            self._reach.close()

    def _prepare(self, opening: Open, job: Job, tell: Publisher) -> None:
        home = PartyHome(self._folder)
        tell.obey(home.config.policy)
        self._reach = _reach(home, opening, job, self._ends, tell)
        said = Opening(opening.run, self._reach, opening.fresh, opening.start)
        self._phases = room(job.kind, "phases").phases_of(home, job, said, tell)

    def _obey(self, job: Job, tell: Publisher, at: list[Phase]) -> None:
        """Do one phase after the other; `at` ends with the one that is being done."""
        phases, due = self._phases, Phase.AGREE
        assert phases is not None and self._reach is not None
        while at[-1] is not Phase.CLOSE:
            phase = Command.model_validate_json(self._commands.get()).phase
            at.append(phase)
            work: Callable[[], None] = getattr(phases, phase.value)
            if phase not in (due, Phase.CLOSE):  # what judges comes before what learns
                detail = f"{phase} was commanded where {due} was due"
                raise InternalError("internal", party=phases.me, detail=detail)
            due = job.phases[job.phases.index(phase) + 1] if phase is not Phase.CLOSE else phase
            began = time.monotonic()
            tell(Started(phase=phase))
            work()
            phases.done |= phase is job.phases[-2]  # the last before CLOSE
            if phase is Phase.CLOSE:
                self._reach.close()
            tell(Finished(phase=phase, seconds=time.monotonic() - began))


def _reach(home: PartyHome, opening: Open, job: Job, ends: Mapping[str, int], tell: Publisher) -> Reach:
    log = Ledger(home).job(opening.run, job.digest())
    run = RunWays(home, job.meeting(opening.run), job.digest(), log, opening.timeout_s)
    peers = tuple(sorted({name for link in job.links if home.name in link for name in link} - {home.name}))
    if not opening.by_exchange:
        if lacking := set(peers) - ends.keys():  # whoever is not there would not be asked to agree
            raise InternalError("internal", party=home.name, detail=f"there is no socket to {sorted(lacking)}")
        return ReachBySockets(run, {peer: socket.socket(fileno=number) for peer, number in ends.items()})
    return ReachByExchange(run, peers, exchange=job.exchange, on_state=lambda up: tell(Reachable(up=up)))


def _log_to(home: Path, run: str) -> None:
    """From here on, whatever this process says goes into the party's own file, whatever library says it."""
    log = open_log(home, run)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def _sign(job: Job, folder: Path, tell: Publisher) -> int:
    """Put the member's name under one run of a job, if its policy lets its flow have that; the exit code."""
    try:
        tell(sign_for_flow(job, PartyHome(folder)))
    except IsthmusError as failure:
        _log.error("sign: %s %s", failure, failure.detail)
        tell.failure(Phase.AGREE, failure)
        return failure.exit_code
    except Exception:
        _log.exception("sign: a fault of ours")
        tell.failure(Phase.AGREE, InternalError("internal", party=folder.name))
        return InternalError.exit_code
    return 0


def _end_at_once(tell: Publisher, party: str) -> None:
    """Somebody at the party has paused it: whatever is going on, it ends here. What was killed can be resumed."""
    _log.error("paused")
    last = threading.Timer(PAUSED_S, os._exit, (PolicyRefusal.exit_code,))  # also if the flow does not read
    last.daemon = True
    last.start()
    with suppress(OSError):  # the flow may be gone as well
        tell.failure(Phase.CLOSE, PolicyRefusal("policy.paused", party=party))
    os._exit(PolicyRefusal.exit_code)


def _listen(control: socket.socket, commands: queue.Queue[bytes], let_go: Callable[[], None]) -> None:
    """Queue the flow's lines; when the flow is gone, or floods us, so are we, whatever the main thread is doing.

    The peers are told, if that is quickly done. Nothing else needs tidying up: files are renamed into place when they
    are whole, and state is written in transactions.
    """
    with control.makefile("rb") as lines:
        while line := lines.readline(LINE_NBYTES):
            if not line.endswith(b"\n") or commands.qsize() >= MOST_COMMANDS:
                break  # half a line at the end of the pipe, or more than a flow ever says
            commands.put(line)
    goodbye = threading.Thread(target=let_go, daemon=True)
    goodbye.start()
    goodbye.join(GOODBYE_S)
    os._exit(0)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # what the libraries would tidy up takes as long as a phase
