"""What a party does in each phase of a vertical job, inside its vault.

::

    agree     policy judges the terms; own data are looked at; the members compare the job, field by field
    align     linkage keys, private set intersection, the alignment is kept in the party's state
    train     split training; checkpoints; the party's own part of the model is saved
    evaluate  joint scoring of the held-out patients; only the active party sees scores
    close     channels and ledger are closed; the run is finished
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError, PolicyRefusal
from ..parties.events import Count, CountName, Fingerprint, Phase, Progress, Resumed, Traffic
from ..parties.home import PartyHome
from ..parties.ledger import Ledger
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from ..parties.state import Run, SavedAlignment, State
from ..parties.store import Store
from ..parties.table import Identifier
from ..psi import Alignment, align_active, align_passive
from .jobs import PROTOCOL_VERSION, VerticalJob
from .own_data import look_at
from .publisher import Publisher

if TYPE_CHECKING:
    from .learning import Learning

_log = logging.getLogger("isthmus.vault")


@dataclass(frozen=True)
class Aligned:
    """What alignment leaves for training: the rows, by their ids in the shared order, and the columns granted."""

    store: Store
    columns: tuple[str, ...]
    row_ids: NDArray[Any]
    digest: str


class VerticalPhases:
    """One party's side of one attempt at a vertical job."""

    def __init__(
        self, home: PartyHome, job: VerticalJob, run: str, channels: Mapping[str, Channel], tell: Publisher, fresh: bool
    ) -> None:
        self._home, self._job, self._run_name, self._channels, self._tell = home, job, run, channels, tell
        self._fresh = fresh
        self._me = home.name
        self._is_active = job.active.name == home.name
        self._mine = job.party(home.name)
        self._digest = job.digest()
        self._state = State(home)
        self._checkpoints = Checkpoints(home.run_folder(run) / "checkpoints", party=home.name)
        self._columns: tuple[str, ...] = ()
        self._floor = 0
        self._run: Run | None = None
        self._row_ids: Sequence[str] = ()
        self._alignment_digest = ""
        self._learning: Learning | None = None
        self._evaluated = False

    # --- agree -------------------------------------------------------------------------------------------------------

    def agree(self) -> None:
        """Policy first, then own data, then the job with every peer: nothing leaves before."""
        grant = self._home.config.policy.check(self._job.terms(self._me))
        self._columns, self._floor = grant.columns, grant.at_least
        self._store = Store(self._home, self._mine.dataset)
        self._look_at_data()
        self._run = self._state.begin_attempt(
            self._run_name, self._digest, fixed_seed=self._home.config.seed, fresh=self._fresh
        )
        _log.info("attempt %d at run %s, SQL digest %s", self._run.attempt, self._run_name, self._store.sql_digest)
        known = self._state.load_alignment(self._run_name)
        if known is not None and known.source_digest != self._source_digest:
            known = None  # rows have come or gone, or were corrected, since
        proposal = {
            "version": PROTOCOL_VERSION,
            "job": self._job.canonical(),
            "attempt": self._run.attempt,
            "alignment": known.digest if known else "",
        }
        for channel in self._channels.values():
            channel.send(Topic.AGREE, Step.JOB, proposal)
        theirs = {peer: self._compare(channel) for peer, channel in self._channels.items()}
        if not self._agree_on_alignment(known.digest if known else "", theirs):
            known = None
        self._tell(Fingerprint(name="job", value=self._digest))
        if known is None:
            self._checkpoints.clear()
        else:
            self._row_ids, self._alignment_digest = known.row_ids, known.digest

    def _look_at_data(self) -> None:
        self._all_row_ids = row_ids = self._store.row_ids()
        self._identifiers = look_at(self._store, self._job, self._me, self._columns, row_ids)
        self._source_digest = _digest_of_identifiers(row_ids, self._identifiers)
        self._tell(Count(name="rows", value=len(row_ids)))
        self._tell(Count(name="columns", value=len(self._columns)))

    def _compare(self, channel: Channel) -> str:
        """Stop at the first field that differs; return the peer's alignment digest."""
        theirs = channel.receive(Topic.AGREE, Step.JOB).fields
        job, mine = theirs.get("job"), self._job.canonical()
        if theirs.get("version") != PROTOCOL_VERSION or not isinstance(job, dict):
            raise InputError("job.not_agreed", party=self._me, peer=channel.peer, field="version")
        for field in sorted(mine.keys() | job.keys()):
            if mine.get(field) != job.get(field):
                raise InputError("job.not_agreed", party=self._me, peer=channel.peer, field=str(field))
        return str(theirs.get("alignment", ""))

    def _agree_on_alignment(self, mine: str, theirs: Mapping[str, str]) -> bool:
        """Whether all hold the same alignment of an earlier attempt; the active party, who speaks to all, decides."""
        if self._is_active:
            same = bool(mine) and all(other == mine for other in theirs.values())
            for channel in self._channels.values():
                channel.send(Topic.AGREE, Step.RESUME, {"same": same})
            return same
        (channel,) = self._channels.values()
        return bool(channel.receive(Topic.AGREE, Step.RESUME).fields.get("same")) and bool(mine)

    # --- align -------------------------------------------------------------------------------------------------------

    def align(self) -> None:
        """Find the shared patients, or go on with those that an earlier attempt found."""
        if self._alignment_digest:
            self._tell(Resumed(phase=Phase.ALIGN))
            if len(self._row_ids) < self._floor:  # the policy may have been tightened since
                raise PolicyRefusal("policy.too_few")
        else:
            self._align_anew()
        self._tell(Count(name="shared", value=len(self._row_ids)))
        self._tell(Fingerprint(name="alignment", value=self._alignment_digest))

    def _align_anew(self) -> None:
        row_ids, identifiers = self._all_row_ids, self._identifiers
        options: dict[str, Any] = {
            "floor": self._floor,
            "job_digest": self._digest,
            "on_progress": self._align_progress,
        }
        alignment: Alignment
        if self._is_active:
            alignment = align_active(self._channels, identifiers, self._job.align.passes, **options)
        else:
            (channel,) = self._channels.values()
            alignment = align_passive(channel, identifiers, self._job.align.passes, **options)
        self._row_ids, self._alignment_digest = row_ids[alignment.rows].tolist(), alignment.digest
        passes = [asdict(counts) for counts in alignment.passes]
        for counts in alignment.passes:
            numbers: tuple[tuple[CountName, int], ...] = (
                ("keys_null", counts.null),
                ("keys_repeated", counts.repeated),
                ("keys_used", counts.used),
                ("matched", counts.matched),
            )
            for name, value in numbers:
                self._tell(Count(name=name, value=value, linkage_pass=counts.linkage_pass))
        self._state.save_alignment(
            self._run_name, SavedAlignment(alignment.digest, self._source_digest, self._row_ids, passes)
        )

    def _align_progress(self, index: int, passes: int, done: int, total: int) -> None:
        self._tell(Progress(phase=Phase.ALIGN, index=index, units=passes, done=done, total=total))

    # --- train, evaluate ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train on the shared patients."""
        from .learning import Learning  # with torch, which what comes before does not wait for

        assert self._run is not None
        aligned = Aligned(self._store, self._columns, np.array(self._row_ids, dtype=object), self._alignment_digest)
        self._learning = Learning(self._home, self._job, self._run, self._channels, self._tell, aligned)
        self._learning.train()

    def evaluate(self) -> None:
        """Score the held-out patients together."""
        assert self._learning is not None
        self._learning.evaluate()
        self._evaluated = True

    # --- close -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every channel and the ledger's rows; a run that was evaluated is finished."""
        for peer, channel in self._channels.items():
            channel.close()
            for topic in sorted(channel.sent.keys() | channel.received.keys()):
                self._tell(Traffic(peer=peer, topic=topic, sent=channel.sent[topic], received=channel.received[topic]))
        self._tell(Fingerprint(name="ledger", value=Ledger(self._home).verify().head))
        if self._evaluated:
            self._state.finish(self._run_name)
            self._checkpoints.clear()


def _digest_of_identifiers(row_ids: NDArray[Any], identifiers: Mapping[str, Identifier]) -> str:
    """SHA-256 over what an alignment is made from; it stays at the party."""
    digest = hashlib.sha256(repr(row_ids.tolist()).encode())
    for name, identifier in sorted(identifiers.items()):
        digest.update(f"{name}\n{identifier.date_format}\n".encode())
        for texts in identifier.columns:
            digest.update(repr(texts.tolist()).encode())
    return digest.hexdigest()
