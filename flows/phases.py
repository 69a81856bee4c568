"""What every member does in every kind of job, inside its vault: agree at the beginning, close at the end.

::

    agree   policy judges the terms; own data are looked at; the members compare the job, field by field
    ...     the phases of the kind
    close   channels and ledger are closed; the run is finished

A member that has finished a run keeps its last checkpoints until its next run: another one may have been stopped just
before it could finish, and then all go on once more.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError
from ..parties.events import Fingerprint, Traffic
from ..parties.home import PartyHome
from ..parties.ledger import Ledger
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from ..parties.policy import Grant
from ..parties.state import Run, State
from ..parties.table import Column
from .jobs import PROTOCOL_VERSION, Job
from .publisher import Publisher

J = TypeVar("J", bound=Job)
_log = logging.getLogger("isthmus.vault")


class Phases(Generic[J]):
    """One member's side of one attempt at a job. A kind adds a method a phase, named as the phase is."""

    def __init__(
        self, home: PartyHome, job: J, run: str, channels: Mapping[str, Channel], tell: Publisher, fresh: bool
    ) -> None:
        self.home, self.job, self.channels, self.tell = home, job, channels, tell
        self.me = home.name
        self.digest = job.digest()
        self.state = State(home)
        self.checkpoints = Checkpoints(self._checkpoints_of(run), party=home.name)
        self.grant = Grant()
        self.run: Run | None = None
        self.done = False  # whether the kind's last phase has ended well: the vault sees to it
        self._run_name, self._fresh = run, fresh

    def agree(self) -> None:
        """Policy first, then own data, then the job with every peer: nothing leaves before."""
        self.grant = self.home.config.policy.check(self.job.terms(self.me))
        self.look_at_own()
        self.run = self._begin()
        _log.info("attempt %d at run %s", self.run.attempt, self._run_name)
        offer = self.offer()
        proposal = {
            "version": PROTOCOL_VERSION,
            "job": self.job.canonical(),
            "attempt": self.run.attempt,
            **offer,
        }
        for channel in self.channels.values():
            channel.send(Topic.AGREE, Step.JOB, proposal)
        theirs = {peer: self._compare(channel) for peer, channel in self.channels.items()}
        self.agreed(theirs)
        self.tell(Fingerprint(name="job", value=self.digest))

    def _begin(self) -> Run:
        for run in self.state.finished_runs():
            if run != self._run_name:
                shutil.rmtree(self._checkpoints_of(run), ignore_errors=True)
        return self.state.begin_attempt(
            self._run_name, self.digest, fixed_seed=self.home.config.seed, fresh=self._fresh
        )

    def _checkpoints_of(self, run: str) -> Path:
        return self.home.run_folder(run) / "checkpoints"

    @abstractmethod
    def look_at_own(self) -> None:
        """Read once all that the job will use, and raise what is wrong with it before anybody waits."""

    def offer(self) -> dict[str, Any]:
        """What this member says beside the job itself."""
        return {}

    def agreed(self, theirs: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what the peers said beside the job, which is the same everywhere."""

    def close(self) -> None:
        """End every channel and the ledger's rows; a run whose last phase has ended well is finished."""
        for peer, channel in self.channels.items():
            channel.close()
            for topic in sorted(channel.sent.keys() | channel.received.keys()):
                self.tell(Traffic(peer=peer, topic=topic, sent=channel.sent[topic], received=channel.received[topic]))
        self.tell(Fingerprint(name="ledger", value=Ledger(self.home).verify().head))
        if self.done:
            self.state.finish(self._run_name)

    def _compare(self, channel: Channel) -> Mapping[str, Any]:
        """Stop at the first field of the job that differs; return all that the peer said."""
        theirs = channel.receive(Topic.AGREE, Step.JOB).fields
        job, mine = theirs.get("job"), self.job.canonical()
        if theirs.get("version") != PROTOCOL_VERSION or not isinstance(job, dict):
            raise InputError("job.not_agreed", party=self.me, peer=channel.peer, field="version")
        for field in sorted(mine.keys() | job.keys()):
            if mine.get(field) != job.get(field):
                raise InputError("job.not_agreed", party=self.me, peer=channel.peer, field=str(field))
        return theirs


def digest_of_rows(columns: Sequence[Column], *targets: NDArray[Any] | None) -> str:
    """SHA-256 over the values that a party learns from; it stays at the party."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.name}\n{column.kind}\n".encode())
        values = column.values
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    for target in targets:
        digest.update(b"" if target is None else target.tobytes())
    return digest.hexdigest()
