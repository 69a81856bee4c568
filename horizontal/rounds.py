"""Training in rounds: parties k with rows of their own, and a coordinator C without any.

::

    SETUP  SETUP   C→k  digests of what all must hold alike: the job, the plan, the parameters' names and shapes
           READY   k→C  k's own digests; the rounds that k has checkpoints of
    TRAIN  ASK     C→k  how many training rows are there? (secure: k answers through a masked sum, see `secagg`)
           RESUME  C→k  the round to go on with: the greatest at which C and all k can stand
           each round r, to those that are asked and owe no answer:
           ROUND   C→k  the model after r rounds (SCAFFOLD: and the common control), and whether k's last update was in
           k            judges that model on its validation rows, trains it, saves its own state
           k→C          its update and its tally: masked (`summing`, `secagg`), or plain after transforms (`updates`)
           C            mean, or robust aggregate → a step of the server's optimiser → checkpoint
           ROUND   C→k  once more after the last round, so that the last model is judged as well
           RESULT  C→k  the model that was best on all validation rows (or the last one)

**Who learns what**: k learns the model of every round, who takes part, how many training rows there are in all, and
which model was best. C learns the models, the pooled losses and scores, and under secure aggregation nothing else of
a party, but how many rows those in a sum have together. In plain it sees each update and each tally. All learn the mean
update from two rounds' models; what that gives away of rows is neither measured nor hidden here.

**Adversary**: semi-honest for parties' figures: a party may claim any row count and any validation loss. Robust
aggregators count all parties alike and stand `byzantine` parties that send any update whatever. Shapes, types,
finiteness, numbers and names of all that is received are checked; under masks NaN and range at the party.

**Late and gone**: each kind of answer has `deadline_s`. Who misses it is left out of the round, and asked again once it
has answered. With fewer than the quorum left the training stops: C raises ``rounds.quorum``, parties see C gone.

**Resume**: C saves a checkpoint after every round, k its private state before its update leaves; so k is never behind
C's last checkpoint, and never more than one round ahead. All randomness depends on the round's number: batches on the
job's seed, dropout on k's own. A training that was killed goes on to the same model, bit for bit. A masked sum that C
had added up is finished first: its parties would not help to unmask the same model twice.

**Papers**: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017;
Li et al., "Federated optimization in heterogeneous networks", MLSys 2020; Karimireddy et al., "SCAFFOLD", ICML 2020;
Reddi et al., "Adaptive federated optimization", ICLR 2021.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError, PeerFailure
from ..parties.network.message import Step, Topic
from .aggregate import Floats, aggregate, weighted_mean
from .course import Course, OnRound, RoundReport
from .fixed_point import EXACT
from .members import Members
from .optimizer import step
from .order import shuffled
from .participant import round_terms, rows_content
from .plan import RoundsPlan
from .setup import Terms, late, set_up
from .summing import Gathered, Gathering, Sum, order_of
from .tally import TALLY_SIZE, Tally, gathered
from .transform import Packing
from .updates import Update, gather_updates
from .vector import Layout, Vector, vector_digest

_PENDING_NUMBER, _ROWS_NUMBER, _FIRST_NUMBER = 1, 2, 3  # exchanges: a pending sum, the sum of rows, the rounds
_PAUSE_S = 0.01


@dataclass(frozen=True)
class RoundsOutcome:
    """The model that was kept ``(size,)``, how many rounds made it, and how all models were judged."""

    model: Vector
    round: int
    history: tuple[RoundReport, ...]


@dataclass(frozen=True)
class _Exchange:
    """What a round brought: the mean change (None if the model was only judged), the pooled tally, who was in it."""

    change: Floats | None
    tally: Tally
    survivors: tuple[str, ...]


def coordinate_rounds(
    members: Members,
    plan: RoundsPlan,
    initial: Vector,
    layout: Layout,
    *,
    coordinator: str,
    parties: Sequence[str],
    job_digest: str,
    attempt: int,
    checkpoints: Checkpoints,
    gathering: Gathering | None = None,
    on_round: OnRound | None = None,
) -> RoundsOutcome:
    """The coordinator's side; the parties run `participant.join_rounds`.

    `initial` is the model to begin with, a vector of the `layout`; where a checkpoint is there, it is not used. Under
    secure aggregation no two trainings may begin with the same one. `gathering` is for a plan that is `secure`. Raises
    `PeerFailure` ``rounds.quorum``, `InputError` ``model.parameters``, ``job.not_agreed`` and ``train.diverged``, and
    what `gathering` raises.
    """
    if plan.secure != (gathering is not None):
        raise ValueError("a secure plan, and no other, needs a gathering")
    terms = Terms(job_digest, plan.digest(), layout.digest())
    coordinated = _Coordinator(members, plan, layout, tuple(parties), coordinator, terms, attempt, gathering)
    return coordinated.run(initial, checkpoints, on_round or (lambda report: None))


class _Coordinator:
    def __init__(
        self,
        members: Members,
        plan: RoundsPlan,
        layout: Layout,
        parties: tuple[str, ...],
        me: str,
        terms: Terms,
        attempt: int,
        gathering: Gathering | None,
    ) -> None:
        self._members, self._plan, self._layout, self._parties, self._me = members, plan, layout, parties, me
        self._terms, self._attempt, self._gathering = terms, attempt, gathering
        self._two = plan.objective.kind == "scaffold"
        self._size = layout.size * (2 if self._two else 1)
        self._fewest = plan.fewest(len(parties))

    def run(self, initial: Vector, checkpoints: Checkpoints, tell: OnRound) -> RoundsOutcome:
        """All rounds, from the first or from where they were left."""
        course = set_up(self._members, self._plan, self._terms, self._me, checkpoints)
        if course is None:
            control = np.zeros(self._layout.size, np.float32) if self._two else None
            course = Course(np.array(initial, dtype=np.float32), control)
        for report in course.history:
            last = report is course.history[-1]
            tell(replace(report, resumed_from=course.round if last else None))
        self._require(len(self._members.names))
        if self._gathering is not None and not course.finished:
            self._finish_pending(self._gathering, course, checkpoints, tell)
            if self._plan.weighted and not set(self._members.names) <= set(course.rows_of):
                self._count(self._gathering, course)
                self._save(course, checkpoints)
        self._require(len(self._members.names))
        self._members.tell(self._members.names, Topic.TRAIN, Step.RESUME, 0, {"step": course.round}, answer=False)
        while not course.finished:
            tell(self._take(course, self._exchange(course)))
            self._save(course, checkpoints)
        model, round = course.kept(self._plan)
        number = _FIRST_NUMBER + self._plan.rounds + 1
        self._members.tell_vector(
            self._members.names, Topic.TRAIN, Step.RESULT, number, model, {"round": round}, answer=False
        )
        return RoundsOutcome(model, round, tuple(course.history))

    def _take(self, course: Course, exchange: _Exchange) -> RoundReport:
        """Judge the model that was sent, then step to the next one."""
        plan = self._plan
        report = course.judged(plan, exchange.tally)
        if exchange.change is None or course.out_of_patience(plan):
            course.finished = True
            return report
        size = self._layout.size
        before, change = course.model, exchange.change[:size]
        course.model, course.optimizer = step(plan.optimizer, before, change, course.optimizer)
        for part in self._layout.buffers:  # running means are averaged: no gradient moved them
            course.model[part] = before[part] + change[part]
        if course.control is not None:
            share = len(exchange.survivors) / len(self._parties)
            course.control = (course.control + share * exchange.change[size:]).astype(np.float32)
        course.round += 1
        if not np.isfinite(course.model).all():
            raise InputError("train.diverged", epoch=course.round)
        course.loss, course.survivors = exchange.tally.means()[0], exchange.survivors
        course.counted |= dict.fromkeys(exchange.survivors, course.round)
        return report

    def _save(self, course: Course, checkpoints: Checkpoints) -> None:
        arrays, meta = course.content()
        label = course.round + int(course.finished)  # the end is a step of its own
        checkpoints.save(label, arrays, {**meta, "job": self._terms.job, "plan": self._terms.plan})

    # --- one exchange ------------------------------------------------------------------------------------------------

    def _exchange(self, course: Course) -> _Exchange:
        """Send the model, gather what comes of it."""
        plan, number = self._plan, _FIRST_NUMBER + course.round
        asked, train = self._select(course.round), course.round < plan.rounds
        vector = self._broadcast(course)
        fields = {
            "round": course.round,
            "train": train,
            "parties": list(asked),
            "rows": course.rows,
            "best": course.best_round,
        }
        for name in asked:
            more = {**fields, "counted": course.counted.get(name, 0)}
            self._members.tell_vector([name], Topic.TRAIN, Step.ROUND, number, vector, more)
        others = [name for name in self._members.names if name not in asked]
        self._members.tell(others, Topic.TRAIN, Step.ROUND, number, {"wait": True}, answer=False)
        if self._gathering is None:
            return self._plain(asked, number, train)
        terms = round_terms(fields)
        one = Sum(self._terms.job, self._attempt, number, vector_digest(vector), asked, terms=terms)
        size = TALLY_SIZE + (self._size if train else 0)
        found = self._gathering.gather(
            self._members,
            Topic.TRAIN,
            one,
            size,
            plan.encoding,
            deadline_s=plan.deadline_s,
            fewest=self._fewest,
        )
        return self._decoded(found, course)

    @staticmethod
    def _broadcast(course: Course) -> Vector:
        """What is sent to the parties: the model, and behind it the common control."""
        return course.model if course.control is None else np.concatenate([course.model, course.control])

    def _select(self, round: int) -> tuple[str, ...]:
        """Whom to ask: those that owe no answer, or so many of them as the plan samples."""
        plan, deadline = self._plan, time.monotonic() + self._plan.deadline_s
        while True:
            self._require(len(self._members.names))
            idle = self._members.idle(Topic.TRAIN)
            if len(idle) >= self._fewest:
                break
            if time.monotonic() > deadline:
                self._require(len(idle))
            time.sleep(_PAUSE_S)
        chosen: Sequence[str] = self._parties
        if plan.sample is not None:
            drawn = shuffled(np.arange(len(self._parties)), f"sample {plan.seed} {round}")
            chosen = [name for place in drawn if (name := self._parties[place]) in idle][: plan.sample]
        return order_of([name for name in chosen if name in idle], self._parties)

    def _plain(self, asked: Sequence[str], number: int, train: bool) -> _Exchange:
        plan, tallies = self._plan, dict[str, Tally]()
        packing = Packing(plan.transforms, self._size) if train else Packing((), 0)
        found = gather_updates(self._members, asked, number, packing, deadline_s=plan.deadline_s)

        def noted() -> Iterator[Update]:
            for update in found:
                if update.tally.rows > 0 or not train:
                    tallies[update.party] = update.tally
                    yield update

        change: Floats | None = None
        if train and plan.aggregator.linear:
            change = weighted_mean((one.values, one.tally.rows if plan.weighted else 1.0) for one in noted())
            self._require(len(tallies))
        else:
            rows = [one.values for one in noted()]
            self._require(len(tallies))
            if train:
                change = aggregate(plan.aggregator, np.stack(rows))
        return _Exchange(change, sum(tallies.values(), Tally()), tuple(tallies))

    def _decoded(self, found: Gathered, course: Course) -> _Exchange:
        """A masked sum as a mean change and a tally."""
        self._require(len(found.survivors))
        count, train = len(self._parties), len(found.total) > TALLY_SIZE
        tally = Tally(*gathered(found.total[-TALLY_SIZE:], count))
        if not train:
            return _Exchange(None, tally, found.survivors)
        weight = tally.rows / course.rows if self._plan.weighted else len(found.survivors) / count
        return _Exchange(found.total[:-TALLY_SIZE] / weight, tally, found.survivors)

    # --- before the first round --------------------------------------------------------------------------------------

    def _finish_pending(self, gathering: Gathering, course: Course, checkpoints: Checkpoints, tell: OnRound) -> None:
        """The sum that an earlier attempt had added up, if it is the one that is due now."""
        pending = gathering.pending(Topic.TRAIN)
        if pending is None or pending.job != self._terms.job:
            return
        of_rows = pending.content == rows_content(self._terms.job, pending.parties)
        if not of_rows and pending.content != vector_digest(self._broadcast(course)):
            return
        found = gathering.resume(self._members, Topic.TRAIN, _PENDING_NUMBER, deadline_s=self._plan.deadline_s)
        if of_rows:
            if found.survivors:
                course.rows, course.rows_of = round(float(found.total[0])), found.survivors
        else:
            tell(self._take(course, self._decoded(found, course)))
        self._save(course, checkpoints)

    def _count(self, gathering: Gathering, course: Course) -> None:
        """ASK: how many training rows there are. Who does not say is asked no more: weights are shares of this."""
        names, job, limit_s = self._members.names, self._terms.job, self._plan.deadline_s
        self._members.tell(names, Topic.TRAIN, Step.ASK, _ROWS_NUMBER, {"parties": list(names)})
        one = Sum(job, self._attempt, _ROWS_NUMBER, rows_content(job, names), names, strict=False)
        found = gathering.gather(self._members, Topic.TRAIN, one, 1, EXACT, deadline_s=limit_s, fewest=self._fewest)
        self._require(len(found.survivors))
        course.rows, course.rows_of = round(float(found.total[0])), found.survivors
        for name in set(names) - set(found.survivors):
            self._members.drop(name, late(self._me, name, Topic.TRAIN, Step.OFFER, limit_s))

    def _require(self, count: int) -> None:
        if count < self._fewest:
            raise self._quorum(count, self._fewest)

    def _quorum(self, count: int, allowed: int) -> PeerFailure:
        return PeerFailure("rounds.quorum", party=self._me, count=count, allowed=allowed)
