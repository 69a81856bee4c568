"""What the parties of a job about shared patients do alike: they read what they bring, and align.

::

    agree     which alignment of an earlier attempt all still hold
    align     linkage keys, private set intersection, the alignment is kept in the party's state
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...parties.errors import InputError, PolicyRefusal
from ...parties.events import Count, CountName, Fingerprint, Phase, Progress, Resumed
from ...parties.network.message import Step, Topic
from ...parties.state import SavedAlignment
from ...parties.store import Store
from ...parties.table import Identifier
from ...psi import Alignment, align_active, align_passive, unreadable_dates
from ..phases import Phases
from .aligned import AlignedJob

J = TypeVar("J", bound=AlignedJob)


@dataclass(frozen=True)
class Aligned:
    """What alignment leaves for training: the rows, by their ids in the shared order, and the columns granted."""

    store: Store
    columns: tuple[str, ...]
    row_ids: NDArray[Any]
    digest: str


def read_identifiers(store: Store, job: AlignedJob, party: str, row_ids: NDArray[Any]) -> dict[str, Identifier]:
    """The identifiers that the job's passes name, of all rows.

    Raises `InputError` ``data.identifier_format``, and those of `Store`.
    """
    names = list(dict.fromkeys(name for key in job.align.passes for name in key))
    identifiers = store.identifiers(names, row_ids)
    for name in unreadable_dates(identifiers):
        raise InputError("data.identifier_format", party=party, dataset=store.name, identifier=name)
    return identifiers


def positions(everybody: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """Where the ids `wanted` stand among all row ids."""
    place = {row: position for position, row in enumerate(everybody.tolist())}
    return np.array([place[row] for row in wanted.tolist()], dtype=np.int64)


class AlignedPhases(Phases[J]):
    """One party's side up to the alignment: `store`, `all_row_ids`, and then `aligned`."""

    store: Store
    all_row_ids: NDArray[Any]
    _identifiers: dict[str, Identifier]
    _row_ids: Sequence[str] = ()
    _alignment_digest = ""
    _known: SavedAlignment | None = None

    # --- agree -------------------------------------------------------------------------------------------------------

    def look_at_own(self) -> None:
        """Rows, identifiers, and whatever else the kind brings."""
        self.store = Store(self.home, self.job.dataset(self.me))
        self.all_row_ids = self.store.row_ids()
        self._identifiers = self.read_own()
        self._source_digest = _digest_of_identifiers(self.all_row_ids, self._identifiers)
        self.tell(Count(name="rows", value=len(self.all_row_ids)))
        self.tell(Count(name="columns", value=len(self.grant.columns)))

    @abstractmethod
    def read_own(self) -> dict[str, Identifier]:
        """Read everything that the job will use once; returns the identifiers of all rows."""

    def offer(self) -> dict[str, Any]:
        """The digest of the alignment that an earlier attempt reached."""
        known = self.state.load_alignment(self.opening.run)
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
        """Whether all hold the same alignment of an earlier attempt; the leader, who speaks to all, decides."""
        if self.leads:
            same = bool(mine) and all(other == mine for other in theirs.values())
            for channel in self.channels.values():
                channel.send(Topic.AGREE, Step.RESUME, {"same": same})
            return same
        (channel,) = self.channels.values()
        return bool(channel.receive(Topic.AGREE, Step.RESUME).fields.get("same")) and bool(mine)

    @property
    def leads(self) -> bool:
        """Whether this party is the one that speaks to all others."""
        return self.job.leader == self.me

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

    @property
    def aligned(self) -> Aligned:
        """The shared patients."""
        row_ids = np.array(self._row_ids, dtype=object)
        return Aligned(self.store, self.grant.columns, row_ids, self._alignment_digest)

    def _align_anew(self) -> None:
        row_ids, identifiers = self.all_row_ids, self._identifiers
        options: dict[str, Any] = {
            "floor": self.grant.at_least,
            "job_digest": self.digest,
            "on_progress": self._align_progress,
        }
        alignment: Alignment
        if self.leads:
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
            self.opening.run, SavedAlignment(alignment.digest, self._source_digest, self._row_ids, passes)
        )

    def _align_progress(self, index: int, passes: int, done: int, total: int) -> None:
        self.tell(Progress(phase=Phase.ALIGN, index=index, units=passes, done=done, total=total))


def _digest_of_identifiers(row_ids: NDArray[Any], identifiers: Mapping[str, Identifier]) -> str:
    """SHA-256 over what an alignment is made from; it stays at the party."""
    digest = hashlib.sha256(repr(row_ids.tolist()).encode())
    for name, identifier in sorted(identifiers.items()):
        digest.update(f"{name}\n{identifier.date_format}\n".encode())
        for texts in identifier.columns:
            digest.update(repr(texts.tolist()).encode())
    return digest.hexdigest()
