"""The source's side of the phases that learn: it trains on all its rows, gives what it says of the shared patients."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ....parties.errors import InputError
from ....parties.events import Fingerprint, Phase, Progress, Resumed
from ....parties.network.beats import speaking
from ....parties.network.message import Step, Topic
from ....transfer.embedding import give_embedding
from ....transfer.pretrain import OnPretraining, PretrainReport, pretrain, pretrain_without
from ....vertical import PassivePart, score_passive, train_passive
from ....vertical.models import Trunk
from ...phases import digest_of_rows
from ..aligned_phases import positions
from .own_data import read_label
from .plan import parts_of, pretraining_of, tuning_of

if TYPE_CHECKING:
    from .phases import TransferPhases

PART_FILE, TUNED_FILE = "part.safetensors", "tuned.safetensors"


class SourceLearning:
    """What the source does once the patients are aligned."""

    _part: PassivePart | None = None  # of split tuning
    _trunk: Trunk | None = None  # where both may train on

    def __init__(self, phases: TransferPhases) -> None:
        torch.set_num_threads(1)  # several vaults share a machine; and one thread adds up in one order
        assert phases.run is not None
        self._phases, self._job, self._run = phases, phases.job, phases.run
        self._folder = phases.checkpoints.folder / "pretraining"

    def prepare(self) -> None:
        """Train a model a fold, while the target is told that we are still here.

        Raises `InputError` ``embedding.constant`` before anything is given.
        """
        phases, job, plan = self._phases, self._job, pretraining_of(self._job)
        aligned, everybody = phases.aligned, phases.all_row_ids
        self._columns = columns = phases.store.columns(phases.grant.columns, everybody)
        label = read_label(phases.store, job, phases.me, everybody)
        data_digest = digest_of_rows(columns, label)
        if data_digest != self._run.data_digest:
            phases.checkpoints.clear()  # what was learnt from other rows is no beginning
            shutil.rmtree(self._folder, ignore_errors=True)
        phases.state.note_data(self._run.run, sql_digest=phases.store.sql_digest, data_digest=data_digest)
        self._shared = shared = positions(everybody, aligned.row_ids)
        options: dict[str, Any] = {
            "party": phases.me,
            "private_seed": self._run.private_seed,
            "identity": f"{phases.digest} {aligned.digest} {data_digest} {_digest(self._run.private_seed)}",
            "folder": self._folder,
        }
        tunes = job.split.at_least is not None and len(shared) >= job.split.at_least
        models = plan.folds + tunes
        with speaking(phases.channel, Topic.TRAIN, then=Step.EMBEDDING):
            told = self._teller(0, models)
            self._learnt = pretrain(
                columns, label, shared, plan, alignment_digest=aligned.digest, on_report=told, **options
            )
            if tunes:
                parts = parts_of(job, aligned)
                held_out = shared[np.concatenate([parts.validation, parts.test])]
                told = self._teller(plan.folds, models)
                self._trunk = pretrain_without(columns, label, held_out, plan, on_report=told, **options)
            self._given = self._learnt.given(job.give)

    def train(self) -> None:
        """Give what was learnt about the shared patients, once; where the target wants to, train on with it."""
        phases = self._phases
        self._note_given()
        if give_embedding(phases.channel, self._given, may_split=self._trunk is not None):
            rows = [type(column)(column.name, column.kind, column.values[self._shared]) for column in self._columns]
            options = phases.tuning_options()
            self._part = train_passive(phases.channel, rows, tuning_of(self._job), trunk=self._trunk, **options)

    def evaluate(self) -> None:
        """Score what both trained, if they did; save this party's part."""
        phases = self._phases
        folder = phases.home.model_folder(self._run.run)
        if self._part is not None:
            parts = parts_of(self._job, phases.aligned)
            score_passive(phases.channel, self._part, parts.validation)
            score_passive(phases.channel, self._part, parts.test)
            self._part.save(folder / TUNED_FILE)
        self._learnt.save(folder / PART_FILE)
        digest = hashlib.sha256((folder / PART_FILE).read_bytes()).hexdigest()
        phases.tell(Fingerprint(name="model", value=digest))

    def _note_given(self) -> None:
        """Write down what is about to be given: in one run never two embeddings, whatever a peer's attempts look like.

        Raises `InputError` ``embedding.repeated``.
        """
        phases, values = self._phases, self._given
        content, peer = _digest(f"embedding of {self._run.run}"), _digest(phases.channel.peer)
        given = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
        if not phases.state.note_release(content, given, peer, strict=True):
            raise InputError("embedding.repeated", party=phases.me)

    def _teller(self, before: int, models: int) -> OnPretraining:
        """Tells how far the source is: `before` so many of its models there were others."""
        tell = self._phases.tell

        def told(report: PretrainReport) -> None:
            number = before + report.model
            if report.reloaded:
                tell(Resumed(phase=Phase.PREPARE, model=number))
            tell(Progress(phase=Phase.PREPARE, index=number, units=models, done=report.epoch, total=report.epochs))

        return told


def _digest(what: object) -> str:
    return hashlib.sha256(str(what).encode()).hexdigest()
