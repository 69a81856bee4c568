"""The target's side of the phases that learn: it takes what the source gives, decides what to keep, and judges it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....horizontal.metrics import MetricValue, roc_curve
from ....horizontal.targets import Target
from ....parties.checkpoint import write_tensors
from ....parties.events import Chosen, Count, Curve, Fingerprint, Metric
from ....transfer.distill import distill, distill_score
from ....transfer.embedding import receive_embedding
from ....transfer.gate import CANDIDATES, Comparison, check_labels, fit, judge
from ....transfer.linear import LinearModel, LinearPlan
from ....transfer.patients import Patients
from ....vertical import ActivePart, score_active, train_active
from ...phases import digest_of_rows
from ..aligned_phases import positions
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
        outcomes = np.full(len(everybody), np.nan) if label is None else label.astype(np.float64)
        here = positions(everybody, shared)
        further = np.setdiff1d(np.flatnonzero(~np.isnan(outcomes)), here)
        chosen = np.concatenate([here, further])
        own = store.columns(phases.grant.columns, everybody[chosen])
        outcome = outcomes[chosen]
        # What the source gives is yet to come.
        self._patients = Patients(tuple(own), np.zeros((len(shared), self._job.width)), outcome)
        if label is not None:
            check_labels(self._patients, phases.me)
        data_digest = digest_of_rows(own, outcome)
        if data_digest != self._run.data_digest:
            phases.checkpoints.clear()  # what was learnt from other rows is no beginning
        phases.state.note_data(self._run.run, sql_digest=store.sql_digest, data_digest=data_digest)

    def train(self) -> None:
        """Take the embedding; where the job asks for it and enough is shared, train on together with the source."""
        phases, patients = self._phases, self._patients
        # The source learns that there are so many; were some not labelled, it would have to learn which.
        least, labelled = self._job.split.at_least, len(patients.judged)
        tuned = least is not None and labelled == patients.shared >= least
        given = receive_embedding(phases.channel, patients.shared, self._job.width, split=tuned)
        self._patients = replace(patients, given=given)
        if tuned:
            shared = patients.of_shared
            label = shared.label.astype(np.float32)
            self._part = train_active(
                phases.channels, shared.own, label, tuning_of(self._job), **phases.tuning_options()
            )

    def evaluate(self) -> None:
        """Decide what to keep, judge it, distil, save."""
        phases, patients = self._phases, self._patients
        folder = phases.home.model_folder(self._run.run)
        if self._job.target.label is None:
            names = {"party": phases.me, "source": self._job.source.name}
            student = distill_score(patients, self._plan, seed=self._job.seed, **names)
            self._save(student.model, PART_FILE, "distilled")
            if student.soft_labels >= phases.grant.cohort:
                phases.tell(Count(name="soft_labels", value=student.soft_labels))
                phases.tell(Metric(name="r2", part="validation", of="distilled", value=student.fidelity))
        else:
            chosen, best = self._judge()
            if chosen == "split":
                assert self._part is not None
                self._part.save(folder / PART_FILE)
            else:
                self._save(fit(chosen, patients, self._plan), PART_FILE, chosen)
            if self._job.distill and best != "target":  # else the target runs alone already
                self._distil(best)
        digest = hashlib.sha256((folder / PART_FILE).read_bytes()).hexdigest()
        phases.tell(Fingerprint(name="model", value=digest))

    # --- below: judging ----------------------------------------------------------------------------------------------

    def _judge(self) -> tuple[str, str]:
        """Compare the models, tell how they do; returns which is kept, and the best of those that are not tuned."""
        patients, tell = self._patients, self._phases.tell
        scored = self._scored_together()  # while the source is still there
        gate = judge(patients, self._plan, seed=self._job.seed, party=self._phases.me)
        chosen: str = gate.validated.chosen
        best, by = chosen, gate.validated
        if scored is not None:
            best, by, held_out = self._choose_split(gate.validated, *scored)
            chosen = by.chosen
            for compared in held_out.predictions:
                self._tell_model(held_out, compared, "test", compared)
            self._tell_model(held_out, chosen, "test", "chosen")
            self._tell_curve(held_out, chosen)
        else:
            self._tell_model(gate.nested, "chosen", "test", "chosen")
            self._tell_curve(gate.validated, chosen)
        for name in CANDIDATES:
            self._tell_model(gate.validated, name, "validation", name)
        if self._may_tell(gate.validated.label):
            tell(Count(name="labelled", value=len(gate.rows)))
            further = int((~np.isnan(patients.label[patients.shared :])).sum())
            if further == 0 or further >= self._phases.grant.cohort:
                tell(Count(name="own_labelled", value=further))
            if self._may_tell(by.label):
                tell(Chosen(of=chosen))  # type: ignore[arg-type]
        return chosen, best

    def _scored_together(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """What the model that both tuned says of the validation and of the test patients."""
        if self._part is None:
            return None
        parts, channels = parts_of(self._job, self._phases.aligned), self._phases.channels
        return score_active(channels, self._part, parts.validation), score_active(channels, self._part, parts.test)

    def _choose_split(
        self, validated: Comparison, validation: NDArray[np.float64], test: NDArray[np.float64]
    ) -> tuple[str, Comparison, Comparison]:
        """The best of those not tuned, by all but the test patients; that and the tuned one on the validation patients,
        by whom is chosen between the two; and all models on the test patients, by whom nothing was chosen.
        """
        parts = parts_of(self._job, self._phases.aligned)
        best = validated.choose_on(np.sort(np.concatenate([parts.train, parts.validation])), {}).chosen
        final = validated.choose_on(parts.validation, {"split": validation})
        contest = Comparison(final.label, {name: final.predictions[name] for name in (best, "split")})
        return best, contest, validated.choose_on(parts.test, {"split": test})

    def _may_tell(self, label: NDArray[np.float64]) -> bool:
        """Whether these patients are as many of each outcome as the policy asks for: each group by itself."""
        return Target("binary", label.astype(np.float32)).may_be_told_of(self._phases.grant.cohort)

    def _tell_model(self, comparison: Comparison, name: str, part: Any, of: Any) -> None:
        if not self._may_tell(comparison.label):
            return
        about = {"part": part, "of": of, "rows": len(comparison.label)}
        found = [comparison.auc(name), MetricValue("log_loss", comparison.log_loss(name))]
        if name != "target":
            found.append(comparison.gain(name))
        for one in found:
            self._phases.tell(Metric(**about, **one._asdict()))

    def _tell_curve(self, comparison: Comparison, name: str) -> None:
        if self._may_tell(comparison.label):
            x, y = roc_curve(comparison.label, comparison.predictions[name])
            self._phases.tell(Curve(name="roc", part="test", x=tuple(x.tolist()), y=tuple(y.tolist())))

    # --- below: distilling, saving -----------------------------------------------------------------------------------

    def _distil(self, teacher: str) -> None:
        """Make a model that runs without the source, out of the best one that needs it."""
        student = distill(self._patients, teacher, self._plan, seed=self._job.seed)
        self._save(student.model, STUDENT_FILE, "distilled")
        assert student.validated is not None
        self._tell_model(student.validated, "distilled", "validation", "distilled")
        if self._may_tell(student.validated.label):  # it says that the target alone was not the best
            self._phases.tell(Count(name="soft_labels", value=student.soft_labels))

    def _save(self, model: LinearModel, name: str, what: str) -> None:
        arrays, meta = model.to_tensors()
        path = self._phases.home.model_folder(self._run.run) / name
        said = {"party": self._phases.me, "kind": what, "give": self._job.give, **meta}
        write_tensors(path, arrays, said, party=self._phases.me)
