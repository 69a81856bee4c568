"""What parties and coordinator of a star do alike, whatever they add up: columns are compared, floors are raised.

::

    AGREE  JOB     both ways  the job (`flows.phases`); k adds whether its data differ from the job's columns, its
                              smallest cohort, whether its rows are those of the last attempt; both the digest of the
                              code of the job's own model, and whether this run is finished there
           RESUME  C→k        how many parties' data differ (then all stop), the highest floor, whether to start over,
                              the number of this attempt: the highest of all members'

Where a run is finished everywhere it starts over; where one member was stopped just before that, all go on once more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from ...horizontal.members import Members
from ...horizontal.schema import ColumnSpec, Difference, differences, readable
from ...horizontal.secagg_coordinator import SecureGathering
from ...horizontal.secagg_memory import SumMemory
from ...horizontal.secagg_party import SecureGiving
from ...horizontal.summing import Gathering, Giving, PlainGathering, PlainGiving
from ...parties import events
from ...parties.consortium import Consortium, peer_keys
from ...parties.errors import InputError
from ...parties.events import Count, Phase, Progress
from ...parties.home import PartyHome
from ...parties.identity import Identity, key_of
from ...parties.network.channel import Channel
from ...parties.network.message import Step, Topic
from ...parties.store import Store
from ...parties.table import Column
from ..phases import Phases
from .star import StarJob

J = TypeVar("J", bound=StarJob)


def specs_of(job: StarJob) -> tuple[ColumnSpec, ...]:
    """The columns that a job names."""
    return tuple(ColumnSpec(**column.model_dump()) for column in job.columns)


class OwnColumns(NamedTuple):
    """What a party's store holds of the job's columns, and where that is not what the job says of them."""

    store: Store
    row_ids: NDArray[Any]
    columns: list[Column]  # those that can be read
    differences: list[Difference]


def own_columns(home: PartyHome, job: StarJob, consortium: Consortium | None) -> OwnColumns:
    """Read a party's columns, for its vault and for `isthmus check`.

    Raises `InputError` ``home.key_unknown`` for a party whose key is not in `party.yaml`, and those of `Store`.
    """
    if job.secure_aggregation:
        keys = peer_keys(home, consortium)
        for name in job.names:
            if name != home.name:
                key_of(keys, name, party=home.name)
    dataset = job.dataset(home.name)
    assert dataset is not None
    store = Store(home, dataset)
    row_ids, specs, kinds = store.row_ids(), specs_of(job), store.kinds()
    columns = store.columns(readable(specs, kinds), row_ids)
    units = home.config.datasets[dataset].units
    return OwnColumns(store, row_ids, columns, differences(specs, kinds, columns, units))


class StarPhases(Phases[J]):
    """What both sides know once they have agreed. `floor` is the highest of the job's and all parties'."""

    floor = 1
    attempt = 0  # all members' own, once they have agreed: sums are named by it

    @property
    def finished(self) -> bool:
        """Whether an earlier attempt has finished this run here."""
        assert self.run is not None
        return self.run.status == "finished"

    def code(self) -> str:
        """The digest of the code of the job's own model; empty without one."""
        return ""

    def check_code(self, peer: str, said: Mapping[str, Any]) -> None:
        """Stop unless the other side runs the same code."""
        if said.get("code") != self.code():
            raise InputError("job.not_agreed", party=self.me, peer=peer, field="code")


class StarPartyPhases(StarPhases[J]):
    """A party's side: `store`, `row_ids`, the job's `columns` and the digest of all that is read, `data_digest`."""

    def look_at_own(self) -> None:
        """Read what the job names, and compare it with what the job says of it."""
        self.code()
        self.store, self.row_ids, self.columns, differing = own_columns(self.home, self.job, self.consortium)
        for one in differing:
            self.tell(events.Difference(column=one.column, what=one.what))
        self.differs = bool(differing)
        self.read_more()
        self.data_digest = self.digest_of_data()
        if len(self.row_ids) >= self.grant.cohort:
            self.tell(Count(name="rows", value=len(self.row_ids)))
        self.tell(Count(name="columns", value=len(self.columns)))

    def read_more(self) -> None:
        """Read what the kind of job needs beside the columns."""

    @abstractmethod
    def digest_of_data(self) -> str:
        """SHA-256 over all that was read."""

    def offer(self) -> dict[str, Any]:
        """What the coordinator has to know of this party before anything is added up."""
        assert self.run is not None
        changed = self.run.data_digest not in (None, self.data_digest)
        self.state.note_data(self.run.run, sql_digest=self.store.sql_digest, data_digest=self.data_digest)
        said = {"differs": self.differs, "cohort": self.grant.cohort, "changed": changed}
        return {**said, "code": self.code(), "finished": self.finished}

    def agreed(self, theirs: Mapping[str, Mapping[str, Any]]) -> None:
        """Hear whether all parties' data are what the job says, and how small a group may be."""
        self.check_code(self.channel.peer, theirs[self.channel.peer])
        fields = self.channel.receive(Topic.AGREE, Step.RESUME).fields
        differing, floor, over = fields.get("differing"), fields.get("floor"), fields.get("start_over")
        attempt = fields.get("attempt")
        if not type(differing) is type(floor) is type(attempt) is int or type(over) is not bool:
            raise self.channel.refuse(Topic.AGREE, "what was agreed is not there")
        if differing or self.differs:
            raise InputError("schema.differs", count=max(differing, 1))
        if floor < self.grant.cohort:
            raise self.channel.refuse(Topic.AGREE, "a floor below our own")
        assert self.run is not None
        if attempt < self.run.attempt:
            raise self.channel.refuse(Topic.AGREE, "an attempt that was made before")
        self.floor, self.attempt = floor, attempt
        if over or self.opening.fresh:
            self.start_over()

    def start_over(self) -> None:
        """Forget what earlier attempts learnt."""
        self.checkpoints.clear()

    @property
    def channel(self) -> Channel:
        """The only channel: to the coordinator."""
        (channel,) = self.channels.values()
        return channel

    def giving(self, topic: Topic) -> Giving:
        """This party's side of sums, as the job says."""
        if not self.job.secure_aggregation:
            return PlainGiving(self.channel, topic)
        identity, keys, memory = Identity(self.home), peer_keys(self.home, self.consortium), self._memory()
        return SecureGiving(self.channel, topic, identity, keys, memory, fewest=self.job.fewest)

    def close(self) -> None:
        """Forget the sums that this party still holds shares of."""
        if self.done:
            for topic in Topic:
                self._memory().forget(topic)
        super().close()

    def _memory(self) -> SumMemory:
        return SumMemory(self.home.run_folder(self.opening.run), self.state, party=self.me)


class StarCoordinatorPhases(StarPhases[J]):
    """The coordinator's side."""

    def look_at_own(self) -> None:
        """It has no rows; the code of the job's own model has to be here as well."""
        self.code()

    def offer(self) -> dict[str, Any]:
        """The code of the job's own model."""
        return {"code": self.code(), "finished": self.finished}

    def agreed(self, theirs: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell all parties what came of it."""
        for peer, said in theirs.items():
            self.check_code(peer, said)
            numbers = (said.get("cohort"), said.get("attempt"))
            if any(type(number) is not int for number in numbers) or type(said.get("differs")) is not bool:
                raise self.channels[peer].refuse(Topic.AGREE, "a party that says nothing of its data")
        differing = sum(said["differs"] for said in theirs.values())
        self.floor = max(1, *(said["cohort"] for said in theirs.values()))
        assert self.run is not None
        self.attempt = max(self.run.attempt, *(said["attempt"] for said in theirs.values()))
        everywhere = self.finished and all(said.get("finished") is True for said in theirs.values())
        over = self.opening.fresh or everywhere or any(said.get("changed") for said in theirs.values())
        for channel in self.channels.values():
            said = {"differing": differing, "floor": self.floor, "start_over": bool(over), "attempt": self.attempt}
            channel.send(Topic.AGREE, Step.RESUME, said)
        if differing:
            raise InputError("schema.differs", count=differing)
        if over:
            self.start_over()

    def start_over(self) -> None:
        """Forget what earlier attempts learnt."""
        self.checkpoints.clear()
        self._forget_sums()

    @property
    def members(self) -> Members:
        """The parties, as the next exchange finds them."""
        return Members({name: self.channels[name] for name in self.job.names})

    def gathering(self) -> Gathering:
        """The coordinator's side of sums, as the job says."""
        return self._secure() if self.job.secure_aggregation else PlainGathering()

    def close(self) -> None:
        """Forget the sum that was added up last."""
        if self.done:
            self._forget_sums()
        super().close()

    def tell_sums(self, phase: Phase) -> Callable[[int, int], None]:
        """What to call with the sums that are done in a phase, and how many there are."""
        return lambda done, all: self.tell(Progress(phase=phase, index=done, units=all, done=1, total=1))

    def _secure(self) -> SecureGathering:
        return SecureGathering(self.home.run_folder(self.opening.run), party=self.me)

    def _forget_sums(self) -> None:
        for topic in Topic:
            self._secure().forget(topic)
