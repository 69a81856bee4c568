"""The target's side of the phases that learn: it takes what the source gives, decides what to keep, and judges it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....horizontal import metrics
from ....parties.checkpoint import write_tensors
from ....parties.events import Chosen, Count, Curve, Fingerprint, Metric
from ....parties.state import State
from ....transfer.distill import Student, distill, distill_score
from ....transfer.embedding import receive_embedding
from ....transfer.gate import CANDIDATES, Comparison, check_labels, fit, judge
from ....transfer.linear import LinearModel, LinearPlan
from ....transfer.patients import Patients
from ....transfer.tuning import tune_target
from ....vertical import ActivePart, score_active
from ...phases import digest_of_rows
from .own_data import read_label
from .plan import parts_of, tuning_of

if TYPE_CHECKING:
    from .phases import TransferPhases

PART_FILE, STUDENT_FILE = "part.safetensors", "distilled.safetensors"


class TargetLearning:
    """What the target does once the patients are aligned."""

    _part: ActivePart | None = None  # of split tuning

    def __init__(self, phases: TransferPhases) -> None:
        torch.set_num_threads(1)  # several vaults share a machine; and one thread adds up in one order
        assert phases.run is not None
        self._phases, self._job, self._run = phases, phases.job, phases.run
        self._plan = LinearPlan(**phases.job.fit.model_dump())

    def prepare(self) -> None:
        """Read the shared patients, and further ones whose outcome is known: they make the target alone stronger.

        Raises `InputError` ``transfer.few_labels`` before the source has trained for long.
        """
        phases = self._phases
        store, shared, everybody = phases.store, phases.aligned.row_ids, phases.all_row_ids
        label = read_label(store, self._job, phases.me, everybody)
        further: list[Any] = []
        if label is not None:
            known = everybody[~np.isnan(label)].tolist()
            here = set(shared.tolist())
            further = [row for row in known if row not in here]
        row_ids = np.array([*shared, *further], dtype=object)
        own = store.columns(phases.grant.columns, row_ids)
        outcome = np.full(len(row_ids), np.nan)
        if label is not None:
            outcome = read_label(store, self._job, phases.me, row_ids).astype(np.float64)  # type: ignore[union-attr]
        self._patients = Patients(tuple(own), np.zeros((len(shared), self._job.width)), outcome)
        if label is not None:
            check_labels(self._patients, phases.me)
        data_digest = digest_of_rows(own, outcome)
        if data_digest != self._run.data_digest:
            phases.checkpoints.clear()  # what was learnt from other rows is no beginning
        State(phases.home).note_data(self._run.run, sql_digest=store.sql_digest, data_digest=data_digest)

    def train(self) -> None:
        """Take the embedding; where the job asks for it and enough is shared, train on together with the source."""
        phases, patients = self._phases, self._patients
        # The source learns that there are so many; were some not labelled, it would have to learn which.
        least, labelled = self._job.split.at_least, len(patients.judged)
        tuned = least is not None and labelled == patients.shared >= least
        given = receive_embedding(phases.channel, patients.shared, self._job.width, split=tuned)
        self._patients = patients = Patients(patients.own, given, patients.label)
        if tuned:
            tuning, label = tuning_of(self._job), patients.label[: patients.shared].astype(np.float32)
            own = patients.take(np.arange(patients.shared)).own
            self._part = tune_target(phases.channel, own, label, tuning, **phases.tuning_options())

    def evaluate(self) -> None:
        """Decide what to keep, judge it, distil, save."""
        phases, patients = self._phases, self._patients
        folder = phases.home.model_folder(self._run.run)
        student: Student | None
        if self._job.target.label is None:
            student = distill_score(patients, self._plan, seed=self._job.seed, party=phases.me)
            self._save(student.model, PART_FILE, "distilled")
        else:
            chosen = self._judge()
            student = self._distil(chosen)
            if chosen == "split":
                assert self._part is not None
                self._part.save(folder / PART_FILE)
            else:
                self._save(fit(chosen, patients, self._plan), PART_FILE, chosen)
            if student is not None:
                self._save(student.model, STUDENT_FILE, "distilled")
        if student is not None:
            self._tell_student(student)
        digest = hashlib.sha256((folder / PART_FILE).read_bytes()).hexdigest()
        phases.tell(Fingerprint(name="model", value=digest))

    # --- below: judging ----------------------------------------------------------------------------------------------

    def _judge(self) -> str:
        """Compare the models, tell how they do, and return which is kept."""
        patients, tell = self._patients, self._phases.tell
        scored = self._scored_together()  # while the source is still there
        gate = judge(patients, self._plan, seed=self._job.seed, party=self._phases.me)
        chosen: str = gate.validated.chosen
        told = self._may_be_told
        if scored is not None:
            chosen, held_out = self._choose_split(gate.validated, *scored)
        if not told:
            return chosen
        labelled = len(gate.rows)
        tell(Count(name="labelled", value=labelled))
        further = int((~np.isnan(patients.label[patients.shared :])).sum())
        if further == 0 or further >= self._phases.grant.cohort:
            tell(Count(name="own_labelled", value=further))
        for name in CANDIDATES:
            self._tell_model(gate.validated, name, "validation", name)
        if scored is not None:
            for compared in held_out.predictions:
                self._tell_model(held_out, compared, "test", compared)
            self._tell_model(held_out, chosen, "test", "chosen")
            self._tell_curve(held_out, chosen)
        else:
            self._tell_model(gate.nested, "chosen", "test", "chosen")
            self._tell_curve(gate.validated, chosen)
        tell(Chosen(of=chosen))  # type: ignore[arg-type]
        return chosen

    def _scored_together(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """What the model that both tuned says of the validation and of the test patients."""
        if self._part is None:
            return None
        parts, channels = parts_of(self._job, self._phases.aligned), self._phases.channels
        return score_active(channels, self._part, parts.validation), score_active(channels, self._part, parts.test)

    def _choose_split(
        self, validated: Comparison, validation: NDArray[np.float64], test: NDArray[np.float64]
    ) -> tuple[str, Comparison]:
        """Whether the tuned model is kept, and all models on the test patients, by whom nothing was chosen.

        The best of the others by all but the test patients competes with it on the validation patients.
        """
        parts = parts_of(self._job, self._phases.aligned)
        others = validated.choose_on(np.sort(np.concatenate([parts.train, parts.validation])), {}).chosen
        final = validated.choose_on(parts.validation, {"split": validation})
        contest = Comparison(final.label, {name: final.predictions[name] for name in (others, "split")})
        return contest.chosen, validated.choose_on(parts.test, {"split": test})

    @property
    def _may_be_told(self) -> bool:
        """Whether so many patients of each outcome are judged as the policy asks for."""
        label = self._patients.label[self._patients.judged]
        return min(int((label == 1).sum()), int((label == 0).sum())) >= self._phases.grant.cohort

    def _tell_model(self, comparison: Comparison, name: str, part: Any, of: Any) -> None:
        rows, tell = len(comparison.label), self._phases.tell
        tell(Metric(part=part, of=of, rows=rows, **comparison.auc(name)._asdict()))
        tell(Metric(name="log_loss", part=part, of=of, rows=rows, value=comparison.log_loss(name)))
        if name != "target":
            gain = comparison.gain(name)
            tell(Metric(name="auc_gain", part=part, of=of, rows=rows, value=gain.value, low=gain.low, high=gain.high))

    def _tell_curve(self, comparison: Comparison, name: str) -> None:
        x, y = metrics.roc_curve(comparison.label, comparison.predictions[name])
        self._phases.tell(Curve(name="roc", part="test", x=tuple(x.tolist()), y=tuple(y.tolist())))

    # --- below: distilling, saving -----------------------------------------------------------------------------------

    def _distil(self, chosen: str) -> Student | None:
        """A model without the source, unless the target's own is kept anyway."""
        if not self._job.distill or chosen == "target":
            return None
        teacher: Any = "transferred" if chosen == "split" else chosen
        return distill(self._patients, teacher, self._plan, seed=self._job.seed)

    def _tell_student(self, student: Student) -> None:
        tell = self._phases.tell
        tell(Count(name="soft_labels", value=student.soft_labels))
        if student.validated is None:
            tell(Metric(name="r2", part="validation", of="distilled", value=student.fidelity))
        elif self._may_be_told:
            self._tell_model(student.validated, "student", "validation", "distilled")

    def _save(self, model: LinearModel, name: str, what: str) -> None:
        arrays, meta = model.to_tensors()
        path = self._phases.home.model_folder(self._run.run) / name
        said = {"party": self._phases.me, "kind": what, "give": self._job.give, **meta}
        write_tensors(path, arrays, said, party=self._phases.me)
