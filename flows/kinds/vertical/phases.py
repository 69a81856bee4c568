"""What a party does in each phase of a vertical job, inside its vault, beside what every job has.

::

    agree     which alignment of an earlier attempt all still hold
    align     linkage keys, private set intersection, the alignment is kept in the party's state
    train     split training; checkpoints; the party's own part of the model is saved
    evaluate  joint scoring of the held-out patients; only the active party sees scores
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....parties.errors import PolicyRefusal
from ....parties.events import Count, CountName, Fingerprint, Phase, Progress, Resumed
from ....parties.home import PartyHome
from ....parties.network.channel import Channel
from ....parties.network.message import Step, Topic
from ....parties.state import SavedAlignment
from ....parties.store import Store
from ....parties.table import Identifier
from ....psi import Alignment, align_active, align_passive
from ...phases import Phases
from ...publisher import Publisher
from .job import VerticalJob
from .own_data import look_at

if TYPE_CHECKING:
    from .learning import Learning


def phases_of(
    home: PartyHome, job: VerticalJob, run: str, channels: Mapping[str, Channel], tell: Publisher, fresh: bool
) -> VerticalPhases:
    """One party's side of a vertical job."""
    return VerticalPhases(home, job, run, channels, tell, fresh)


@dataclass(frozen=True)
class Aligned:
    """What alignment leaves for training: the rows, by their ids in the shared order, and the columns granted."""

    store: Store
    columns: tuple[str, ...]
    row_ids: NDArray[Any]
    digest: str


class VerticalPhases(Phases[VerticalJob]):
    """One party's side of one attempt at a vertical job."""

    def __init__(
        self, home: PartyHome, job: VerticalJob, run: str, channels: Mapping[str, Channel], tell: Publisher, fresh: bool
    ) -> None:
        super().__init__(home, job, run, channels, tell, fresh)
        self._is_active = job.active.name == home.name
        self._row_ids: Sequence[str] = ()
        self._alignment_digest = ""
        self._known: SavedAlignment | None = None
        self._learning: Learning | None = None

    # --- agree -------------------------------------------------------------------------------------------------------

    def look_at_own(self) -> None:
        """Rows, identifiers, columns and label."""
        self._store = Store(self.home, self.job.dataset(self.me))
        self._all_row_ids = row_ids = self._store.row_ids()
        self._identifiers = look_at(self._store, self.job, self.me, self.grant.columns, row_ids)
        self._source_digest = _digest_of_identifiers(row_ids, self._identifiers)
        self.tell(Count(name="rows", value=len(row_ids)))
        self.tell(Count(name="columns", value=len(self.grant.columns)))

    def offer(self) -> dict[str, Any]:
        """The digest of the alignment that an earlier attempt reached."""
        known = self.state.load_alignment(self._run_name)
        if known is not None and known.source_digest != self._source_digest:
            known = None  # rows have come or gone, or were corrected, since
        self._known = known
        return {"alignment": known.digest if known else ""}

    def agreed(self, theirs: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on with that alignment if all hold it, else with none."""
        known = self._known
        digests = {peer: str(said.get("alignment", "")) for peer, said in theirs.items()}
        same = self._agree_on_alignment(known.digest if known else "", digests)
        if known is not None and same:
            self._row_ids, self._alignment_digest = known.row_ids, known.digest
        else:
            self.checkpoints.clear()

    def _agree_on_alignment(self, mine: str, theirs: Mapping[str, str]) -> bool:
        """Whether all hold the same alignment of an earlier attempt; the active party, who speaks to all, decides."""
        if self._is_active:
            same = bool(mine) and all(other == mine for other in theirs.values())
            for channel in self.channels.values():
                channel.send(Topic.AGREE, Step.RESUME, {"same": same})
            return same
        (channel,) = self.channels.values()
        return bool(channel.receive(Topic.AGREE, Step.RESUME).fields.get("same")) and bool(mine)

    # --- align -------------------------------------------------------------------------------------------------------

    def align(self) -> None:
        """Find the shared patients, or go on with those that an earlier attempt found."""
        if self._alignment_digest:
            self.tell(Resumed(phase=Phase.ALIGN))
            if len(self._row_ids) < self.grant.at_least:  # the policy may have been tightened since
                raise PolicyRefusal("policy.too_few")
        else:
            self._align_anew()
        self.tell(Count(name="shared", value=len(self._row_ids)))
        self.tell(Fingerprint(name="alignment", value=self._alignment_digest))

    def _align_anew(self) -> None:
        row_ids, identifiers = self._all_row_ids, self._identifiers
        options: dict[str, Any] = {
            "floor": self.grant.at_least,
            "job_digest": self.digest,
            "on_progress": self._align_progress,
        }
        alignment: Alignment
        if self._is_active:
            alignment = align_active(self.channels, identifiers, self.job.align.passes, **options)
        else:
            (channel,) = self.channels.values()
            alignment = align_passive(channel, identifiers, self.job.align.passes, **options)
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
                self.tell(Count(name=name, value=value, linkage_pass=counts.linkage_pass))
        self.state.save_alignment(
            self._run_name, SavedAlignment(alignment.digest, self._source_digest, self._row_ids, passes)
        )

    def _align_progress(self, index: int, passes: int, done: int, total: int) -> None:
        self.tell(Progress(phase=Phase.ALIGN, index=index, units=passes, done=done, total=total))

    # --- train, evaluate ---------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train on the shared patients."""
        from .learning import Learning  # with torch, which what comes before does not wait for

        assert self.run is not None
        row_ids = np.array(self._row_ids, dtype=object)
        aligned = Aligned(self._store, self.grant.columns, row_ids, self._alignment_digest)
        self._learning = Learning(self.home, self.job, self.run, self.channels, self.tell, aligned)
        self._learning.train()

    def evaluate(self) -> None:
        """Score the held-out patients together."""
        assert self._learning is not None
        self._learning.evaluate()


def _digest_of_identifiers(row_ids: NDArray[Any], identifiers: Mapping[str, Identifier]) -> str:
    """SHA-256 over what an alignment is made from; it stays at the party."""
    digest = hashlib.sha256(repr(row_ids.tolist()).encode())
    for name, identifier in sorted(identifiers.items()):
        digest.update(f"{name}\n{identifier.date_format}\n".encode())
        for texts in identifier.columns:
            digest.update(repr(texts.tolist()).encode())
    return digest.hexdigest()
