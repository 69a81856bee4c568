"""The phases of a horizontal job that learn. They need torch, which what comes before does without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from ....horizontal.alone import train_alone
from ....horizontal.asking import gather_once, give_once
from ....horizontal.codes import NumberCode
from ....horizontal.course import RoundReport
from ....horizontal.encoders import own_encoder, shared_encoder
from ....horizontal.fixed_point import EXACT
from ....horizontal.local import BatchReport
from ....horizontal.metrics import CALIBRATION_LEAST, MetricValue
from ....horizontal.model_file import SavedModel, Seen, arrays_of
from ....horizontal.models import build
from ....horizontal.participant import join_rounds
from ....horizontal.pooled import GroupMetrics, judge, size, values_of
from ....horizontal.problem import TabularProblem
from ....horizontal.rounds import coordinate_rounds
from ....horizontal.schema import ColumnSpec
from ....horizontal.tabular import TabularEncoder
from ....horizontal.vector import Layout, Vector, vector_digest
from ....parties.checkpoint import read_tensors, write_tensors
from ....parties.events import Count, Curve, Fingerprint, Metric, Phase, Progress, Resumed, Round
from ....parties.network.message import Topic
from ..star_phases import specs_of
from .job import HorizontalJob
from .own_data import split_of
from .phases import INITIAL_FILE, HorizontalCoordinatorPhases, HorizontalPartyPhases
from .plan import model_of, plan_of

MODEL_FILE = "part.safetensors"


def subgroups_of(job: HorizontalJob) -> list[ColumnSpec]:
    """The categories whose levels the model is judged for."""
    return [spec for name in job.subgroups for spec in specs_of(job) if spec.name == name]


def evaluation_content(job: HorizontalJob) -> str:
    """What the sum of an evaluation is over."""
    return hashlib.sha256(f"isthmus evaluation of {job.digest()}".encode()).hexdigest()


def training_digest(job_digest: str, numbers: Sequence[NumberCode]) -> str:
    """What all must hold alike who train together: the job, and the means and scales that they were told.

    A coordinator that tells one party other scales than the rest could make the rest's columns vanish, and the sum
    would be the one's. Sums are named by this, so there is none between parties that hold different things.
    """
    codes = json.dumps([astuple(code) for code in numbers])
    return hashlib.sha256(f"isthmus training of {job_digest} {codes}".encode()).hexdigest()


def judging_digest(training: str, model: Vector) -> str:
    """What all must hold alike who judge together: the same model, for the same reason."""
    return hashlib.sha256(f"isthmus judging of {training} {vector_digest(model)}".encode()).hexdigest()


class PartyLearning:
    """A party's side of training and evaluation. `numbers` are the pooled means and scales."""

    def __init__(self, phases: HorizontalPartyPhases, numbers: tuple[NumberCode, ...]) -> None:
        torch.set_num_threads(1)  # several vaults share a machine; and one thread adds up in one order
        assert phases.run is not None
        self._phases, self._job, self._run = phases, phases.job, phases.run
        self._plan, self._spec = plan_of(phases.job), model_of(phases.job)
        self._encoder = self._encoder_of(numbers)
        self._digest = training_digest(phases.digest, numbers)
        self._rows = self._encoder.transform(phases.columns, len(phases.row_ids))
        self._problem = self._problem_of("federated")

    def train(self) -> None:
        """Take part in the rounds, and save the model."""
        phases, job = self._phases, self._job
        outcome = join_rounds(
            phases.channel,
            self._problem,
            self._plan,
            parties=job.names,
            job_digest=self._digest,
            attempt=phases.attempt,
            checkpoints=phases.checkpoints,
            giving=phases.giving(Topic.TRAIN) if job.secure_aggregation else None,
            on_batch=self._told,
        )
        shared = self._plan.scope.split(self._problem.module)[0]
        self._judging = judging_digest(self._digest, outcome.layout.flatten(shared))
        if outcome.personal is not None:  # Ditto: what this party uses is its own model, and so that is judged
            outcome.layout.load(outcome.personal, shared)
        path = phases.home.model_folder(self._run.run) / MODEL_FILE
        SavedModel(
            party=phases.me,
            seen=dict.fromkeys(job.names, Seen(job.label.columns, split_of(job))),
            round=outcome.round,
            task=job.task,
            spec=self._spec,
            encoder=self._encoder,
            arrays=arrays_of(self._problem.module),
        ).save(path, party=phases.me)
        phases.tell(Fingerprint(name="model", value=hashlib.sha256(path.read_bytes()).hexdigest()))

    def evaluate(self) -> None:
        """Judge the model on the party's own held-out rows, give its part to the pooled figures, then train alone."""
        phases, parts = self._phases, self._phases.parts
        for name, part in (
            ("train_rows", parts.train),
            ("validation_rows", parts.validation),
            ("test_rows", parts.test),
        ):
            if len(part) >= phases.floor:
                phases.tell(Count(name=name, value=len(part)))  # type: ignore[arg-type]
        told = phases.target[parts.test].may_be_told_of(phases.floor)
        if told:
            self._tell_metrics("own", self._problem.metrics(parts.test))
        # A party that may not be told of would be what all together have over the others: it gives nothing.
        judged = parts.test if told else parts.test[:0]
        held_out = [type(c)(c.name, c.kind, c.values[judged]) for c in phases.columns]
        scores = self._problem.scores(judged)
        values = values_of(phases.target[judged], scores, subgroups_of(self._job), held_out)
        give_once(
            phases.channel,
            Topic.EVALUATE,
            phases.giving(Topic.EVALUATE),
            values,
            EXACT,
            parties=self._job.names,
            job_digest=self._judging,
            attempt=phases.attempt,
            content=evaluation_content(self._job),
            data=phases.data_digest,
            wait_s=self._plan.deadline_s + phases.channel.timeout_s,
        )
        if self._job.alone:
            alone = self._problem_of("alone")
            train_alone(alone, self._plan, phases.me, on_batch=self._told_alone)
            if told:
                self._tell_metrics("alone", alone.metrics(parts.test))

    def _encoder_of(self, numbers: tuple[NumberCode, ...]) -> TabularEncoder:
        specs, phases = specs_of(self._job), self._phases
        if self._job.standardise == "pooled":
            return shared_encoder(specs, numbers, embed=self._spec.embeds)
        indicators = [code.name for code in numbers if code.indicator]
        rows = phases.parts.train
        return own_encoder(specs, phases.columns, rows, embed=self._spec.embeds, indicators=indicators)

    def _problem_of(self, purpose: str) -> TabularProblem:
        phases, seed = self._phases, self._run.private_seed
        drawn = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest(), "big")
        module = build(self._spec, self._encoder, drawn, self._job.task, party=phases.me)
        return TabularProblem(module, self._rows, phases.target, phases.parts, party=phases.me, private_seed=drawn)

    def _tell_metrics(self, of: Any, found: list[MetricValue]) -> None:
        rows = len(self._phases.parts.test)
        for one in found:
            self._phases.tell(Metric(part="test", of=of, rows=rows, **one._asdict()))

    def _told(self, report: BatchReport) -> None:
        self._progress(Phase.TRAIN, report)

    def _told_alone(self, report: BatchReport) -> None:
        self._progress(Phase.EVALUATE, report)

    def _progress(self, phase: Phase, report: BatchReport) -> None:
        self._phases.tell(
            Progress(phase=phase, index=report.round, units=report.rounds, done=report.batch, total=report.batches)
        )


class CoordinatorLearning:
    """The coordinator's side."""

    def __init__(self, phases: HorizontalCoordinatorPhases, numbers: tuple[NumberCode, ...]) -> None:
        torch.set_num_threads(1)
        assert phases.run is not None
        self._phases, self._job, self._run = phases, phases.job, phases.run
        self._plan, self._spec = plan_of(phases.job), model_of(phases.job)
        self._encoder = shared_encoder(specs_of(phases.job), numbers, embed=self._spec.embeds)
        self._digest = training_digest(phases.digest, numbers)

    def train(self) -> None:
        """Lead the rounds."""
        phases, job = self._phases, self._job
        initial, layout = self._initial()
        outcome = coordinate_rounds(
            phases.members,
            self._plan,
            initial,
            layout,
            coordinator=phases.me,
            parties=job.names,
            job_digest=self._digest,
            attempt=phases.attempt,
            checkpoints=phases.checkpoints,
            gathering=phases.gathering() if job.secure_aggregation else None,
            on_round=self._told,
        )
        self._judging = judging_digest(self._digest, outcome.model)
        if self._plan.keep == "best":
            phases.tell(Metric(name="best_round", part="validation", value=outcome.round))

    def evaluate(self) -> None:
        """Add up what the parties found, and tell what stands for enough patients."""
        phases, job = self._phases, self._job
        groups = subgroups_of(job)
        found = gather_once(
            phases.members,
            Topic.EVALUATE,
            phases.gathering(),
            size(job.task, groups),
            EXACT,
            job_digest=self._judging,
            attempt=phases.attempt,
            content=evaluation_content(job),
            deadline_s=self._plan.deadline_s,
            fewest=job.fewest,
        )
        pooled = judge(job.task, found.total, groups, max(phases.floor, CALIBRATION_LEAST))
        for group in (pooled.overall, *pooled.subgroups):
            self._tell_group(group, groups)
        for name, curve in (("roc", pooled.roc), ("calibration", pooled.calibration)):
            if curve is not None:
                x, y = (tuple(axis.tolist()) for axis in curve)
                phases.tell(Curve(name=name, part="test", x=x, y=y))  # type: ignore[arg-type]

    def _tell_group(self, group: GroupMetrics, groups: list[ColumnSpec]) -> None:
        subgroup = level = None
        if group.column is not None:
            subgroup = next(place for place, spec in enumerate(groups) if spec.name == group.column)
            levels = groups[subgroup].levels
            level = len(levels) if group.level is None else levels.index(group.level)
        for one in group.metrics:
            found = Metric(part="test", of="pooled", subgroup=subgroup, level=level, rows=group.rows, **one._asdict())
            self._phases.tell(found)

    def _initial(self) -> tuple[Vector, Layout]:
        """The model to begin with: this run's own, since no two trainings may begin with the same one (`secagg`).

        It is written down, so that an attempt which goes on begins with it as well.
        """
        phases = self._phases
        path = phases.home.run_folder(self._run.run) / INITIAL_FILE
        mixed = f"{self._run.private_seed} {self._run.run} {phases.attempt}"
        drawn = int.from_bytes(hashlib.sha256(mixed.encode()).digest(), "big")
        module = build(self._spec, self._encoder, drawn, self._job.task, party=phases.me)
        shared = self._plan.scope.split(module)[0]
        layout = Layout.of(shared)
        if path.exists():
            return np.array(read_tensors(path)[0]["model"]), layout
        initial = layout.flatten(shared)
        write_tensors(path, {"model": initial}, {}, party=phases.me)
        return initial, layout

    def _told(self, report: RoundReport) -> None:
        phases = self._phases
        if report.resumed_from is not None:
            phases.tell(Resumed(phase=Phase.TRAIN, round=report.resumed_from))
        phases.tell(
            Round(
                round=report.round,
                loss=report.loss,
                validation_loss=report.validation_loss,
                validation_score=report.validation_score,
                parties=report.survivors,
            )
        )
        phases.tell(Progress(phase=Phase.TRAIN, index=max(1, report.round), units=report.rounds, done=1, total=1))
