"""Fine-tuning: one party goes on from a model that was trained elsewhere, such as by rounds over many parties.

::

    1  the party finds the model's file in its own home, by its SHA-256            nothing leaves
    2  the trunk is the start's; the head, which patterns of its tensors name, begins afresh
    3  the head is trained, and with a trunk that is not frozen the trunk as well, on the party's own rows
    4  the gate compares three models on the party's validation rows: `start` as it is, `alone` (the same model from
       fresh weights, with the same training) and `tuned`, and keeps the best: do no harm

The gate goes by the loss of the validation rows, as `gate` does and for its reasons: measured on five hospitals with
six seeds, the mean test AUC lost by the choice was .008 by loss and .012 by AUC. Among equals the start is kept, then
the model alone. `alone` and `tuned` are also stopped by the loss of these rows and the start need not be, which
flatters them a little; rows that all three have not seen judge what was kept.

**Who learns what**: nobody anything by a message: none is sent. Whoever trained the trunk does not learn that it was
tuned. What the party itself may read out of a trunk, it could read before: it holds the file.

Who reads the reports learns what they tell. Metrics are exact, so two jobs whose held-out rows differ by one patient
tell that patient's outcome; a floor of patients does not help, only differential privacy, which is not done here, or
few jobs. The digest of the model that is kept tells nothing of one that was trained; but if it is the start, whoever
holds the start can make the same file, and so recognises the digest.

**Adversary**: whoever made the file. It is data, never code (`horizontal.model_file`), and what is hashed is what is
read. What does not fit the job is refused before it is built, and what gives no numbers on the party's rows before it
is trained. A trunk made to do harm is kept from doing so by the gate as far as validation rows show it; that it behaves
well on these rows says nothing of others that its maker had in mind.

Source: layers that transfer, frozen or fine-tuned, Yosinski et al., "How transferable are features in deep neural
networks?", NeurIPS 2014; a head of one's own over a trunk trained by many, Arivazhagan et al., "Federated learning with
personalization layers", 2019.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..horizontal.alone import AloneOutcome, train_alone
from ..horizontal.local import BatchReport
from ..horizontal.metrics import MetricValue, auc_gain
from ..horizontal.model_file import MOST_BYTES, SavedModel
from ..horizontal.model_spec import ModelSpec
from ..horizontal.models import build, network_shapes
from ..horizontal.plan import RoundsPlan
from ..horizontal.problem import TabularProblem
from ..horizontal.scope import Scope
from ..horizontal.splits import Parts
from ..horizontal.tabular import Encoded
from ..horizontal.targets import Target, Task
from ..parties.errors import InputError
from ..parties.home import PartyHome

Candidate = Literal["start", "alone", "tuned"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)  # in the order in which equals are kept
OnBatch = Callable[[Candidate, BatchReport], None]


@dataclass(frozen=True)
class TuningPlan:
    """How a model is tuned. `head` are patterns of the tensors that begin afresh; all else is the trunk.

    `epochs`, `batch_size`, `learning_rate` (of Adam, whose moments begin afresh in each epoch), `patience` (epochs
    without a better validation loss; None: never) and `seed`, which orders batches, hold for `alone` as well.
    """

    head: tuple[str, ...] = ("output.*",)
    frozen: bool = False
    epochs: int = 60
    batch_size: int = 32  # 0: all rows at once
    learning_rate: float = 0.001
    patience: int | None = 6
    seed: int = 7

    def rounds(self) -> RoundsPlan:
        """The same as rounds of one pass at one party."""
        return RoundsPlan(
            rounds=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            local_optimizer="adam",
            patience=self.patience,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Finetuned:
    """Three models of one party's, as problems that can judge them, and the one that the gate keeps.

    `validation` are the losses that it went by, `epochs` how long the trained ones were trained.
    """

    problems: Mapping[Candidate, TabularProblem]
    validation: Mapping[Candidate, float]
    epochs: Mapping[Candidate, AloneOutcome]
    chosen: Candidate

    def auc_gain(self, of: Candidate, rows: NDArray[np.int64]) -> MetricValue | None:
        """How much higher the AUC of a model is than the start's, with its 95 % interval, each resample judging both on
        the same of these rows; None for another task, for rows of one outcome, and for the start itself.
        """
        problem, before = self.problems[of], self.problems["start"]
        target = problem.target[rows]
        if of == "start" or target.task != "binary" or len(np.unique(target.values)) < 2:
            return None
        return auc_gain(target.values, problem.scores(rows), before.scores(rows))


def find_model(home: PartyHome, digest: str) -> bytes:
    """The content of the file with this SHA-256 (64 hex digits) among the models in a party's home.

    Files that cannot be read or are too large to be a model are left out. Raises `InputError` ``model.start_missing``.
    """
    unread = []
    for path in sorted((home.folder / "models").rglob("*.safetensors")):
        try:
            content = _content(path, digest)
        except OSError as failure:
            unread.append(f"{path}: {failure!r}")
            continue
        if content is not None:
            return content
    raise InputError("model.start_missing", party=home.name, detail=", ".join(unread))


def load_start(content: bytes, spec: ModelSpec, columns: tuple[str, ...], task: Task, *, party: str) -> SavedModel:
    """Read the model to start from, a network or a linear model, and compare it with what the job says of it; `columns`
    in any order. Nothing is built of it before its tensors are known to be those of the job's model.

    Raises `InputError` ``model.start_differs`` with the field that differs: model (also for a file that holds none, or
    tensors that are not this model's), columns or label (another task).
    """

    def differs(field: str, failure: Exception | None = None) -> InputError:
        return InputError("model.start_differs", party=party, field=field, detail=repr(failure) if failure else "")

    try:
        start = SavedModel.parse(content)
    except ValueError as failure:
        raise differs("model", failure) from failure
    if start.spec != spec:
        raise differs("model")
    if sorted(start.columns) != sorted(columns):
        raise differs("columns")
    if start.task != task:
        raise differs("label")
    found = {name: (array.shape, array.dtype) for name, array in start.arrays.items()}
    shapes = network_shapes(spec, start.encoder, task)
    if found != {name: (shape, np.dtype(np.float32)) for name, shape in shapes.items()}:
        raise differs("model")
    return start


def finetune(
    start: SavedModel,
    rows: Encoded,
    target: Target,
    parts: Parts,
    plan: TuningPlan,
    *,
    party: str,
    private_seed: int,
    on_batch: OnBatch | None = None,
) -> Finetuned:
    """Tune a model, train one alone, and keep the best of these and the start.

    `rows` are all of the party's, encoded by the start's own encoder, and `target` theirs. Fresh weights and dropout
    draw from `private_seed` alone, so that the same call gives the same weights bit for bit.

    Raises `InputError` ``data.few_rows``, ``train.diverged``, and ``model.start_differs`` where the rows as the start
    encodes them (columns), or what it or its trunk makes of them (model), are no numbers before anything is trained.
    """

    def problem(of: Candidate) -> TabularProblem:
        drawn = int.from_bytes(hashlib.sha256(f"finetune {of} {private_seed}".encode()).digest(), "big")
        module = build(start.spec, start.encoder, drawn, start.task, party=party)
        return TabularProblem(module, rows, target, parts, party=party, private_seed=drawn)

    def train(of: Candidate) -> AloneOutcome:
        tell = None if on_batch is None else lambda report: on_batch(of, report)
        return train_alone(problems[of], plan.rounds(), party, on_batch=tell)

    problems: dict[Candidate, TabularProblem] = {of: problem(of) for of in CANDIDATES}
    start.write_into(problems["start"].module)
    graft(start, problems["tuned"].module, plan.head, frozen=plan.frozen)
    if not torch.isfinite(rows.dense).all():
        raise InputError("model.start_differs", party=party, field="columns")
    for of in ("start", "tuned"):
        try:
            problems[of].validation()
            problems[of].scores(np.arange(len(rows)))
        except InputError as failure:
            raise InputError("model.start_differs", party=party, field="model", detail=repr(failure)) from failure
    epochs: dict[Candidate, AloneOutcome] = {"alone": train("alone"), "tuned": train("tuned")}
    validation = {of: problems[of].validation().loss for of in CANDIDATES}
    return Finetuned(problems, validation, epochs, choose(validation))


def graft(start: SavedModel, module: nn.Module, head: tuple[str, ...], *, frozen: bool) -> None:
    """Give a fresh module the trunk of the start: all but its head. A frozen trunk is left alone by training."""
    trunk = Scope(private=head).split(module)[0]
    for name, tensor in trunk.items():
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.array(start.arrays[name])))
        if isinstance(tensor, nn.Parameter):
            tensor.requires_grad_(not frozen)


def _content(path: Path, digest: str) -> bytes | None:
    """The content of a file if it is a regular one, of this digest; it is not held before it is known to be.

    Another process may write meanwhile: what is given back has the digest itself.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return None
        file.seek(0)
        content = file.read(MOST_BYTES)
    return content if hashlib.sha256(content).hexdigest() == digest else None


def choose(validation: Mapping[Candidate, float]) -> Candidate:
    """The candidate with the lowest loss; of equals the first of `CANDIDATES`."""
    return min(CANDIDATES, key=lambda of: validation[of])
