"""What a party does in the phases of a vertical job that learn. They need torch, which `phases` does without."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....horizontal import metrics
from ....parties.checkpoint import Checkpoints, write_tensors
from ....parties.events import Count, Curve, Fingerprint, Metric, Phase, Progress, Resumed
from ....parties.home import PartyHome
from ....parties.network.channel import Channel
from ....parties.state import Run, State
from ....vertical import (
    ActivePart,
    EpochReport,
    PassivePart,
    SplitPlan,
    score_active,
    score_passive,
    split_rows,
    train_active,
    train_passive,
)
from ...phases import digest_of_rows
from ...publisher import Publisher
from ..aligned_phases import Aligned
from .job import LogisticModel, VerticalJob

SCORES_FILE = "scores.safetensors"


def plan_of(job: VerticalJob) -> SplitPlan:
    """The split training that a job asks for."""
    training = job.training.model_dump()
    if isinstance(job.model, LogisticModel):
        return SplitPlan(kind="logistic", **training)
    return SplitPlan(
        kind="network",
        bottom=job.model.bottom,
        top=job.model.top,
        merge=job.model.merge,
        dropout=job.model.dropout,
        **training,
    )


class Learning:
    """One party's side of training and evaluation, on rows that are aligned."""

    def __init__(
        self,
        home: PartyHome,
        job: VerticalJob,
        run: Run,
        channels: Mapping[str, Channel],
        tell: Publisher,
        aligned: Aligned,
    ) -> None:
        torch.set_num_threads(1)  # several vaults share a machine; and one thread adds up in one order
        self._home, self._job, self._run, self._channels, self._tell = home, job, run, channels, tell
        self._aligned = aligned
        self._checkpoints = Checkpoints(home.run_folder(run.run) / "checkpoints", party=home.name)
        self._part: ActivePart | PassivePart | None = None
        self._label: NDArray[np.float32] | None = None

    def train(self) -> None:
        """Train the split model and save this party's part of it."""
        aligned, label = self._aligned, self._job.party(self._home.name).label
        columns = aligned.store.columns(aligned.columns, aligned.row_ids)
        if label is not None:
            self._label = aligned.store.label(label, aligned.row_ids)
        data_digest = digest_of_rows(columns, self._label)
        if data_digest != self._run.data_digest:
            self._checkpoints.clear()  # what was learnt from other rows is no beginning
        State(self._home).note_data(self._run.run, sql_digest=aligned.store.sql_digest, data_digest=data_digest)
        options: dict[str, Any] = {
            "party": self._home.name,
            "job_digest": self._run.job_digest,
            "alignment_digest": self._aligned.digest,
            "private_seed": self._run.private_seed,
            "checkpoints": self._checkpoints,
            "on_epoch": self._train_progress,
        }
        plan = plan_of(self._job)
        if self._label is not None:
            self._part = train_active(self._channels, columns, self._label, plan, **options)
        else:
            (channel,) = self._channels.values()
            self._part = train_passive(channel, columns, plan, **options)
        path = self._home.model_folder(self._run.run) / "part.safetensors"
        self._part.save(path)
        self._tell(Fingerprint(name="model", value=hashlib.sha256(path.read_bytes()).hexdigest()))

    def _train_progress(self, report: EpochReport) -> None:
        if report.resumed_from is not None:
            self._tell(Resumed(phase=Phase.TRAIN, epoch=report.resumed_from))
        self._tell(
            Progress(
                phase=Phase.TRAIN, index=report.epoch, units=report.epochs, done=report.batch, total=report.batches
            )
        )
        if report.batch < report.batches:
            return
        if report.loss is not None:
            self._tell(Metric(name="log_loss", part="train", value=report.loss, epoch=report.epoch))
        if report.validation_auc is not None:
            self._tell(Metric(name="auc", part="validation", value=report.validation_auc, epoch=report.epoch))

    def evaluate(self) -> None:
        """Score the held-out patients together; the active party judges, and keeps the scores at home."""
        assert self._part is not None
        training = self._job.training
        parts = split_rows(
            len(self._aligned.row_ids),
            training.validation_share,
            training.test_share,
            training.seed,
            self._aligned.digest,
        )
        self._tell(Count(name="train_rows", value=len(parts.train)))
        self._tell(Count(name="validation_rows", value=len(parts.validation)))
        self._tell(Count(name="test_rows", value=len(parts.test)))
        if isinstance(self._part, PassivePart):
            (channel,) = self._channels.values()
            score_passive(channel, self._part, parts.test)
        else:
            assert self._label is not None
            scores = score_active(self._channels, self._part, parts.test)
            label = self._label[parts.test]
            write_tensors(
                self._home.run_folder(self._run.run) / SCORES_FILE,
                {"rows": parts.test, "label": label, "score": scores},
                {"run": self._run.run},
                party=self._home.name,
            )
            for metric in metrics.binary_metrics(label, scores):
                self._tell(Metric(part="test", **metric._asdict()))
            self._tell(Metric(name="best_epoch", part="validation", value=self._part.best_epoch))
            x, y = metrics.roc_curve(label, scores)
            self._tell(Curve(name="roc", part="test", x=tuple(x.tolist()), y=tuple(y.tolist())))
            x, y = metrics.calibration_curve(label, scores)
            self._tell(Curve(name="calibration", part="test", x=tuple(x.tolist()), y=tuple(y.tolist())))
