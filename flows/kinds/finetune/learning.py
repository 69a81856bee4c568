"""The phases of a finetune job that learn. They need torch."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import torch

from ....horizontal.local import BatchReport
from ....horizontal.model_file import SavedModel, Seen, arrays_of
from ....parties.events import Chosen, Count, CountName, Fingerprint, Metric, Part, Phase, Progress
from ....transfer.finetune import CANDIDATES, Candidate, Finetuned, TuningPlan, finetune
from ...phases import digest_of_rows
from .job import FinetuneJob
from .phases import FinetunePhases

MODEL_FILE = "part.safetensors"
_TRAINED: tuple[Candidate, ...] = ("alone", "tuned")  # in the order in which `finetune` trains them
_log = logging.getLogger("isthmus.vault")


def plan_of(job: FinetuneJob) -> TuningPlan:
    """How a job asks to tune."""
    tuning = job.tuning
    return TuningPlan(
        head=tuning.head,
        frozen=tuning.trunk == "frozen",
        epochs=tuning.epochs,
        batch_size=tuning.batch_size,
        learning_rate=tuning.learning_rate,
        patience=tuning.patience,
        seed=tuning.seed,
    )


class Learning:
    """The party's training and evaluation."""

    def __init__(self, phases: FinetunePhases) -> None:
        torch.set_num_threads(1)  # one thread adds up in one order
        assert phases.run is not None
        self._phases, self._job, self._run = phases, phases.job, phases.run
        self._found: Finetuned | None = None

    def train(self) -> None:
        """Tune, train alone, let the gate choose, and save what it keeps."""
        phases, job, own, parts = self._phases, self._job, self._phases.own, self._phases.parts
        digest = digest_of_rows(own.columns, phases.target.values, phases.target.event, parts.train, parts.validation)
        phases.state.note_data(self._run.run, sql_digest=own.store.sql_digest, data_digest=digest)
        found = self._found = finetune(
            own.start,
            own.start.encoder.transform(own.columns, len(own.row_ids)),
            phases.target,
            parts,
            plan_of(job),
            party=phases.me,
            private_seed=self._run.private_seed,
            on_batch=self._told,
        )
        _log.info("the gate keeps %s: %s", found.chosen, found.validation)
        if self._tell_metrics(found, "validation"):  # a choice is made of scores
            for of, outcome in found.epochs.items():
                phases.tell(Metric(name="best_epoch", part="validation", of=of, value=outcome.best_round))
            phases.tell(Chosen(of=found.chosen))
        path = phases.home.model_folder(self._run.run) / MODEL_FILE
        self._kept(found).save(path, party=phases.me)
        phases.tell(Fingerprint(name="model", value=hashlib.sha256(path.read_bytes()).hexdigest()))

    def evaluate(self) -> None:
        """Judge all three on held-out rows, and by how much the others are better or worse than the start."""
        phases, parts = self._phases, self._phases.parts
        assert self._found is not None
        counts: tuple[tuple[CountName, int], ...] = (
            ("train_rows", len(parts.train)),
            ("validation_rows", len(parts.validation)),
            ("test_rows", len(parts.test)),
        )
        for name, count in counts:
            if count >= phases.grant.cohort:
                phases.tell(Count(name=name, value=count))
        self._tell_metrics(self._found, "test")

    def _tell_metrics(self, found: Finetuned, part: Part) -> bool:
        """Tell all metrics of a part, unless it has too few patients; whether they were told."""
        phases, rows = self._phases, getattr(self._phases.parts, part)
        if not phases.target[rows].may_be_told_of(phases.grant.cohort):
            return False
        for of in CANDIDATES:
            for one in found.problems[of].metrics(rows):
                phases.tell(Metric(part=part, of=of, rows=len(rows), **one._asdict()))
            if (gain := found.auc_gain(of, rows)) is not None:
                phases.tell(Metric(part=part, of=of, rows=len(rows), **gain._asdict()))
        return True

    def _kept(self, found: Finetuned) -> SavedModel:
        """The model that the gate keeps, with what it takes to go on from it once more.

        What the start has seen has gone into it as well, unless it is the one that was trained alone.
        """
        problem, outcome = found.problems[found.chosen], found.epochs.get(found.chosen)
        start, me = self._phases.own.start, self._phases.me
        seen = Seen(self._job.label.columns, self._phases.split)
        return replace(
            start,
            party=me,
            seen={**({} if found.chosen == "alone" else start.seen), me: seen},
            round=start.round if outcome is None else outcome.best_round,
            arrays=arrays_of(problem.module),
        )

    def _told(self, of: Candidate, report: BatchReport) -> None:
        """An epoch at a time, of as many as the job says: batches, or how often one is told of, count training rows."""
        if report.batch == report.batches:
            place = _TRAINED.index(of) + 1
            self._phases.tell(
                Progress(phase=Phase.TRAIN, index=place, units=len(_TRAINED), done=report.round, total=report.rounds)
            )
