"""What a member does in each phase of a statistics job, inside its vault, beside what every star has.

::

    agree    columns and survival times are read
    measure  sums over all parties' rows; only the coordinator sees them, and tells what stands for enough patients
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ....horizontal.counting import OwnRows
from ....horizontal.statistics import collect
from ....horizontal.statistics_party import StatisticsParty
from ....parties.events import Phase
from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ...phases import Opening
from ...publisher import Publisher
from ..star_phases import StarCoordinatorPhases, StarPartyPhases
from .job import StatisticsJob
from .told import events_of

DEADLINE_S = 300.0  # for a party's answer, of each kind


def phases_of(
    home: PartyHome, job: StatisticsJob, opening: Opening, tell: Publisher
) -> StatisticsPartyPhases | StatisticsCoordinatorPhases:
    """One member's side of a statistics job."""
    kind = StatisticsCoordinatorPhases if home.name == job.coordinator else StatisticsPartyPhases
    return kind(home, job, opening, tell)


class StatisticsPartyPhases(StarPartyPhases[StatisticsJob]):
    """One party's side of one attempt at a statistics job."""

    def read_more(self) -> None:
        """Survival times."""
        times: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
            curve.name: self.store.durations(curve.duration, curve.event, self.row_ids) for curve in self.job.curves
        }
        request = self.job.request()
        self._rows = None
        if not self.differs:
            self._rows = OwnRows(request, self.columns, times, len(self.row_ids), party=self.me)

    def digest_of_data(self) -> str:
        """SHA-256 over all that is counted."""
        return self._rows.digest() if self._rows is not None else ""

    def measure(self) -> None:
        """Answer what the coordinator asks."""
        assert self._rows is not None
        StatisticsParty(
            self.channel,
            self.giving(Topic.STATISTICS),
            self.job.request(),
            self._rows,
            parties=self.job.names,
            job_digest=self.digest,
            attempt=self.attempt,
            floor=self.floor,
            dataset=self.store.name,
            wait_s=DEADLINE_S + self.channel.timeout_s,
        ).run()


class StatisticsCoordinatorPhases(StarCoordinatorPhases[StatisticsJob]):
    """The coordinator's side of one attempt at a statistics job."""

    def measure(self) -> None:
        """Add up, and tell what may be told."""
        result = collect(
            self.members,
            self.gathering(),
            self.job.request(),
            job_digest=self.digest,
            attempt=self.attempt,
            floor=max(self.floor, self.job.at_least),
            deadline_s=DEADLINE_S,
            on_pass=self.tell_sums(Phase.MEASURE),
        )
        for event in events_of(result):
            self.tell(event)
