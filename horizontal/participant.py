"""A party's side of the rounds: it waits for orders, trains, and gives its update. `rounds` has the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError
from ..parties.network.channel import Channel
from ..parties.network.message import Message, Step, Topic
from .fixed_point import EXACT
from .local import LocalTraining, OnBatch, Trained
from .members import receive_vector
from .plan import RoundsPlan
from .private import Private
from .problem import LocalProblem, Validation
from .summing import Giving, Sum, asked_in
from .tally import Tally, spread
from .transform import Packing, Vector, clipped
from .updates import UpdateGiving
from .vector import Layout, vector_digest

PHASES = 5  # of an exchange: others may be waited for as long in each, while C has nothing for this party
ROWS = "training rows"


@dataclass(frozen=True)
class PartyOutcome:
    """What a party ends with, beside the shared model that its module then holds.

    `round` is how many rounds made that model, `personal` Ditto's own model as a vector of the layout.
    """

    round: int
    layout: Layout
    personal: Vector | None = None


def join_rounds(
    channel: Channel,
    problem: LocalProblem,
    plan: RoundsPlan,
    *,
    parties: Sequence[str],
    job_digest: str,
    attempt: int,
    checkpoints: Checkpoints,
    giving: Giving | None = None,
    on_batch: OnBatch | None = None,
) -> PartyOutcome:
    """Take part in a training until its result is there; the problem's module then holds the result.

    `parties` are all parties of the job in its order, `giving` is for a plan that is `secure`. Private tensors are
    those of the round whose model was kept. Raises `InputError` ``model.parameters``, ``job.not_agreed``,
    ``update.not_finite``, ``update.too_large``, ``train.diverged``, what `giving` refuses, and `PeerFailure`.
    """
    if plan.secure != (giving is not None):
        raise ValueError("a secure plan, and no other, needs a giving")
    party = _Participant(channel, problem, plan, tuple(parties), job_digest, attempt, checkpoints, giving, on_batch)
    party.set_up()
    return party.run()


class _Participant:
    def __init__(
        self,
        channel: Channel,
        problem: LocalProblem,
        plan: RoundsPlan,
        parties: tuple[str, ...],
        job_digest: str,
        attempt: int,
        checkpoints: Checkpoints,
        giving: Giving | None,
        on_batch: OnBatch | None,
    ) -> None:
        self._channel, self._problem, self._plan, self._parties = channel, problem, plan, parties
        self._me, self._job, self._attempt, self._checkpoints = channel.me, job_digest, attempt, checkpoints
        self._layout = plan.scope.layout(problem.module)
        self._two = plan.objective.kind == "scaffold"  # the control travels behind the model
        self._packing = Packing(plan.transforms, self._layout.size * (2 if self._two else 1))
        self._private = Private(problem.module, plan, self._layout, self._packing)
        self._training = LocalTraining(problem, plan, self._layout, self._me, on_batch)
        self._giving, self._updates = giving, UpdateGiving(channel)
        self._latest = -1  # the round that was asked for last, in this attempt

    def set_up(self) -> None:
        """SETUP and READY: the same job, plan and layout."""
        ours = {"job": self._job, "plan": self._plan.digest(), "layout": self._layout.digest()}
        theirs = self._channel.receive(Topic.SETUP, Step.SETUP, timeout_s=self._patience_s()).fields
        self._channel.send(Topic.SETUP, Step.READY, {"sum": theirs.get("sum"), **ours, "steps": self._steps()})
        if theirs.get("layout") != ours["layout"]:
            raise InputError("model.parameters", party=self._me)
        if {name: theirs.get(name) for name in ours} != ours:
            raise InputError("job.not_agreed", party=self._me, peer=self._channel.peer, field="rounds")

    def run(self) -> PartyOutcome:
        """Do what C orders, until the result comes."""
        talk: Giving | UpdateGiving = self._giving or self._updates
        orders = (Step.ROUND, Step.ASK, Step.RESUME, Step.RESULT, *talk.steps)
        while True:
            order = self._channel.receive(Topic.TRAIN, *orders, timeout_s=self._patience_s())
            match order.step:
                case Step.ROUND if order.fields.get("wait") is True:
                    continue
                case Step.ROUND:
                    self._round(order)
                case Step.ASK:
                    self._count(order)
                case Step.RESUME:
                    self._resume(order)
                case Step.RESULT:
                    return self._end(order)
                case _:
                    talk.handle(order)

    def _patience_s(self) -> float:
        return PHASES * self._plan.deadline_s + self._channel.timeout_s

    # --- before the first round --------------------------------------------------------------------------------------

    def _steps(self) -> list[int] | None:
        """The rounds that this party has a checkpoint of; None if it has nothing to keep, and can go on anywhere."""
        if not self._private.needed:
            return None
        wanted = {"job": self._job, "plan": self._plan.digest()}
        return [step for step in self._checkpoints.steps() if wanted.items() <= self._checkpoints.load(step)[1].items()]

    def _resume(self, order: Message) -> None:
        """RESUME: C goes on with this round; the state is that after the last round before it."""
        step = order.fields.get("step")
        if type(step) is not int or step < 0:
            raise self._channel.refuse(Topic.TRAIN, "no round to go on from")
        earlier = [label for label in self._steps() or [] if label <= step]
        if earlier:
            self._private.load(*self._checkpoints.load(earlier[-1]))
        self._checkpoints.drop_after(step)

    def _count(self, order: Message) -> None:
        """ASK: training rows, so that weights can be shares of all of them."""
        if self._giving is None:
            raise self._channel.refuse(Topic.TRAIN, "a sum in a plain training")
        rows = self._problem.train_rows
        one = self._sum(order, "", strict=False)
        one = replace(one, content=rows_content(self._job, one.parties))
        data = hashlib.sha256(f"isthmus {ROWS} {rows}".encode()).hexdigest()
        self._giving.offer(one, np.array([rows], np.float64), EXACT, data=data)

    # --- a round -----------------------------------------------------------------------------------------------------

    def _round(self, first: Message) -> None:
        """ROUND: judge the model that came, train it, give the update."""
        size = self._packing.size
        vector, fields = receive_vector(self._channel, Topic.TRAIN, Step.ROUND, first, size, "<f4")
        order = Message(Topic.TRAIN, Step.ROUND, {**fields, "sum": first.fields.get("sum")})
        round, train, counted, best = (fields.get(name) for name in ("round", "train", "counted", "best"))
        if type(round) is not int or type(train) is not bool or type(counted) is not int or type(best) is not int:
            raise self._channel.refuse(Topic.TRAIN, "a round without its fields")
        if not self._latest < round <= self._plan.rounds or train != (round < self._plan.rounds):
            raise self._channel.refuse(Topic.TRAIN, "a round that is not due")
        self._latest = round
        model, control = (vector[: self._layout.size], vector[self._layout.size :] if self._two else None)
        self._training.set(model)
        self._private.settle(counted, best)
        self._private.note(round)
        validation = self._problem.validation()
        if not train:
            self._give(order, vector, None, self._tally(validation, None))
            return
        private = self._private
        trained = self._training.run(round, model, control, private.control, private.personal)
        tally = self._tally(validation, trained)
        if not (np.isfinite(trained.update).all() and np.isfinite(tally).all()):
            raise InputError("update.not_finite", party=self._me)
        update = trained.update
        if trained.control_change is not None:
            update = np.concatenate([update, trained.control_change])
        private.trained(round, trained)
        self._give(order, vector, update, tally)

    def _give(self, order: Message, model: Vector, update: Vector | None, tally: Tally) -> None:
        """Transform an update (none if the model is only judged) and offer it; before that the state is saved."""
        number, plan, count = order.fields["sum"], self._plan, len(self._parties)
        if self._giving is None:
            packing = self._packing if update is not None else Packing((), 0)
            values = np.zeros(0, np.float32) if update is None else update
            packed, residual = packing.encode(values, self._private.residual, self._me)
            if update is not None:
                self._save(residual)
            self._updates.offer(number, packed, tally)
            return
        tail = spread(tally, count)
        one = replace(self._sum(order, vector_digest(model)), terms=round_terms(order.fields))
        if update is None:
            self._giving.offer(one, tail, plan.encoding)
            return
        for transform in plan.transforms:
            update = clipped(update, transform.norm)
        if float(np.abs(update).max(initial=0.0)) >= plan.encoding.limit:
            raise InputError("update.too_large", party=self._me)
        self._save(None)
        values64 = np.concatenate([update * np.float64(self._weight(order)), tail])
        self._giving.offer(one, values64, plan.encoding)

    def _weight(self, order: Message) -> float:
        """This party's share of all training rows, or of all parties."""
        if not self._plan.weighted:
            return 1 / len(self._parties)
        rows, mine = order.fields.get("rows"), self._problem.train_rows
        if type(rows) is not int or rows < mine:
            raise self._channel.refuse(Topic.TRAIN, "there are fewer rows in all than here")
        return mine / rows

    def _sum(self, order: Message, content: str, *, strict: bool = True) -> Sum:
        """The sum that an order asks for; this party says itself what it is over."""
        number, asked = asked_in(order, self._parties, self._channel, Topic.TRAIN)
        return Sum(self._job, self._attempt, number, content, asked, strict)

    def _tally(self, validation: Validation, trained: Trained | None) -> Tally:
        rows = self._problem.train_rows if trained is not None else 0
        loss = trained.loss if trained is not None else 0.0
        return Tally(
            rows,
            rows * loss,
            validation.rows,
            validation.rows * validation.loss,
            validation.scored,
            validation.scored * validation.score,
        )

    def _save(self, residual: Vector | None) -> None:
        """Write down what this party must remember, before anything of the round leaves."""
        self._private.left_over(residual)
        if self._private.needed:
            arrays, meta = self._private.content()
            self._checkpoints.save(self._private.label, arrays, {**meta, "job": self._job, "plan": self._plan.digest()})

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self, first: Message) -> PartyOutcome:
        """RESULT: the model that was kept, and what was private when it was judged."""
        size = self._layout.size
        model, fields = receive_vector(self._channel, Topic.TRAIN, Step.RESULT, first, size, "<f4")
        round = fields.get("round")
        if type(round) is not int:
            raise self._channel.refuse(Topic.TRAIN, "a result of no round")
        self._training.set(model)
        self._private.restore(round)
        return PartyOutcome(round, self._layout, self._private.personal)


def round_terms(fields: Mapping[str, object]) -> str:
    """What all parties of a round's sum must have been told alike, beside the model: it bears on their numbers.

    If one were told the truth and the others that there are a million million rows, the sum would be the one's update.
    """
    told = json.dumps([fields.get(name) for name in ("round", "train", "rows")])
    return hashlib.sha256(f"isthmus round {told}".encode()).hexdigest()


def rows_content(job_digest: str, parties: Sequence[str]) -> str:
    """What the sum of training rows is over."""
    return hashlib.sha256(f"isthmus {ROWS} of {job_digest} {json.dumps(list(parties))}".encode()).hexdigest()
