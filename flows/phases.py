"""What every member does in every kind of job, inside its vault: agree at the beginning, close at the end.

::

    agree   policy judges the terms, and in a consortium who started the job; own data are looked at; then the way to
            the peers is opened, and the members compare the job field by field, the protocol's version and the roster
    ...     the phases of the kind
    close   channels and ledger are closed; the run is finished

A member that has finished a run keeps its last checkpoints for a while: another one may have been stopped just before
it could finish, and then all go on once more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from numpy.typing import NDArray

from ..parties.approvals import require_approval
from ..parties.checkpoint import Checkpoints
from ..parties.consortium import Consortium, consortium_of
from ..parties.errors import InputError, PeerFailure
from ..parties.events import Fingerprint, Traffic
from ..parties.home import PartyHome
from ..parties.ledger import Ledger
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from ..parties.pause import refuse_paused
from ..parties.policy import Grant
from ..parties.reach import Reach
from ..parties.starts import Start, judge_start
from ..parties.state import Run, State
from ..parties.table import Column
from .jobs import PROTOCOL_VERSION, Job
from .publisher import Publisher

J = TypeVar("J", bound=Job)


class Opening(NamedTuple):
    """What an attempt begins with beside the job itself."""

    run: str
    reach: Reach
    fresh: bool = False
    start: Start | None = None  # who has started it: judged in a consortium


# Finished runs whose checkpoints are kept, the newest: as many jobs may be under way at once with the same party.
KEPT_RUNS = 8
# What has to be the same beside the job, and the error if it is not.
_BESIDE_THE_JOB = {"version": "job.version_differs", "roster": "roster.differs", "start": "job.start_differs"}
_log = logging.getLogger("isthmus.vault")


class Phases(Generic[J]):
    """One member's side of one attempt at a job. A kind adds a method a phase, named as the phase is."""

    def __init__(self, home: PartyHome, job: J, opening: Opening, tell: Publisher) -> None:
        self.home, self.job, self.opening, self.tell = home, job, opening, tell
        self.channels: Mapping[str, Channel] = {}  # until the policy has agreed
        self.me = home.name
        self.digest = job.digest()
        self.state = State(home)
        self.checkpoints = Checkpoints(self._checkpoints_of(opening.run), party=home.name)
        self.grant = Grant()
        self.consortium: Consortium | None = None  # as its home's roster says it when the members agree
        self.run: Run | None = None
        self.done = False  # whether the kind's last phase has ended well: the vault sees to it

    def agree(self) -> None:
        """Policy first, then own data, then the job with every peer: nothing leaves before."""
        refuse_paused(self.home.folder, party=self.me)
        self.grant = self.home.config.policy.check(self.job.terms(self.me))
        consortium = self.consortium = consortium_of(self.home)  # once: what follows is all about this version
        self.opening.reach.check(consortium)
        if consortium is not None:
            self._judge_start(consortium)
        self.look_at_own()
        self.run = self._begin()
        _log.info("attempt %d at run %s", self.run.attempt, self.opening.run)
        offer = self.offer()
        start = self.opening.start
        proposal = {
            "version": PROTOCOL_VERSION,
            "roster": [consortium.version, consortium.digest] if consortium else None,
            "start": start.digest() if start and consortium else None,
            "job": self.job.canonical(),
            "attempt": self.run.attempt,
            **offer,
        }
        self.channels = self.opening.reach.open(self.run.attempt, consortium)
        self._mine = proposal
        for channel in self.channels.values():
            channel.send(Topic.AGREE, Step.JOB, proposal)
        theirs = {peer: self._compare(channel) for peer, channel in self.channels.items()}
        self.agreed(theirs)
        self.tell(Fingerprint(name="job", value=self.digest))

    def _judge_start(self, consortium: Consortium) -> None:
        """Whether a member has started this job who may, and a person here has agreed where one has to."""
        policy, start, run = self.home.config.policy, self.opening.start, self.opening.run
        if not self.job.has_run(run):  # or it would take the place of another job's
            raise InputError("run.other_job", party=self.me)
        judge_start(
            start,
            policy=policy,
            state=self.state,
            party=self.me,
            consortium=consortium.name,
            key_of=consortium.key_of,
            kind=self.job.kind,
            job_digest=self.digest,
            run=run,
            begins_anew=self.opening.fresh,
            now=datetime.now(UTC),
        )
        assert start is not None
        text = json.dumps(self.job.canonical())
        require_approval(policy, self.state, start, text, self.me, run=run)

    def _begin(self) -> Run:
        opening = self.opening
        for run in self.state.finished_runs()[KEPT_RUNS:]:
            if run != opening.run:
                shutil.rmtree(self._checkpoints_of(run), ignore_errors=True)
        seed = self.home.config.seed
        return self.state.begin_attempt(opening.run, self.digest, fixed_seed=seed, fresh=opening.fresh)

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
            try:
                channel.close(linger_s=channel.timeout_s)
            except PeerFailure:
                if peer in self.job.essential:  # it has not got all; without the others the job has gone on
                    raise
            for topic in sorted(channel.sent.keys() | channel.received.keys()):
                self.tell(Traffic(peer=peer, topic=topic, sent=channel.sent[topic], received=channel.received[topic]))
        self.tell(Fingerprint(name="ledger", value=Ledger(self.home).verify().head))
        if self.done:
            self.state.finish(self.opening.run)

    def _compare(self, channel: Channel) -> Mapping[str, Any]:
        """Stop at the first thing that differs, of the job its first field; return all that the peer said."""
        theirs = channel.receive(Topic.AGREE, Step.JOB).fields
        job, mine = theirs.get("job"), self.job.canonical()
        if not isinstance(job, dict):
            raise channel.refuse(Topic.AGREE, "no job")
        self._compare_beside(channel, theirs, "version", "roster")
        for field in sorted(mine.keys() | job.keys()):
            if mine.get(field) != job.get(field):
                known = field if field in mine else "a field that this version does not know"
                raise InputError("job.not_agreed", party=self.me, peer=channel.peer, field=known)
        self._compare_beside(channel, theirs, "start")
        return theirs

    def _compare_beside(self, channel: Channel, theirs: Mapping[str, Any], *names: str) -> None:
        for name in names:
            if theirs.get(name) != self._mine[name]:
                raise InputError(_BESIDE_THE_JOB[name], party=self.me, peer=channel.peer)


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
