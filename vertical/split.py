"""Split training: one active party A with the label, any number of passive parties k, staleness 0.

::

    SETUP  SETUP    A→k  what both must hold alike: job, alignment, rows, seed, model, the order of the first epoch
           READY    k→A  the steps (epochs) that k has checkpoints of
           RESUME   A→k  the step to go on from: the greatest that all parties have, or 0
    TRAIN  each epoch, each batch of the shared order (indices never travel):
           FORWARD  k→A  the cut layer of the batch: float32 (batch, cut width)
           BACKWARD A→k  the gradient of the loss by it, of the same shape; every party steps its own Adam
           each epoch, then:
           FORWARD  k→A  the cut layer of the validation rows, without dropout
           EPOCH    A→k  whether this epoch is the best so far, and whether to stop; every party writes a checkpoint
    EVALUATE
           FORWARD  k→A  the cut layer of the rows to score

**Who learns what**: A learns a cut layer for every shared patient and the scores. The cut layer is a function of k's
columns with few unknowns: one column under logistic regression is known but for its scale and sign. k learns a gradient
for every training patient, and from those A's labels: under logistic regression each gradient's sign is the label, and
under a network norm and direction tell the outcomes apart (Li et al. 2022). k also learns in which epochs the
validation AUC was the best so far. This module neither measures nor hides any of that. No weights are sent.

**Adversary**: semi-honest. Shapes, types and finiteness of all that a peer sends are checked; that it is honest is not.

With staleness 0 and float32, this is the same computation as `central.train_central`, bit for bit.

A passive party may begin with a bottom that was trained before (`trunk`) instead of random weights, which are not sent
either. Then A is told more: cut layers that carry what k has learnt of its other rows; and, where the trunk was trained
by a label of k's own, that label of the patients trained on, since these cut layers are **not out of fold**. The trunk
must not have seen the validation and test rows (`transfer.pretrain.pretrain_without`).

**Resume**: A writes its checkpoint of an epoch before it sends EPOCH, k writes its own after it has received it and
before it sends anything of the next epoch. So at any moment no party is more than one epoch ahead of another, and as
each keeps its last two, there is always a step that all have.

**Papers**: Gupta and Raskar, "Distributed learning of deep neural network over multiple agents", 2018; Vepakomma et
al., "Split learning for health", 2018; Ceballos et al., "SplitNN-driven vertical partitioning", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..horizontal.tabular import Encoded, TabularEncoder
from ..parties.checkpoint import Checkpoints
from ..parties.network.channel import Channel
from ..parties.network.message import Message, Step, Topic
from ..parties.table import Column
from .batches import Parts, batches, epoch_order, split_rows
from .models import ActiveModel, Bottom, SplitPlan, Trunk, passive_bottom
from .parts import ActivePart, PassivePart
from .setup import Identity, begin_active, begin_passive
from .training import (
    Learner,
    OnEpoch,
    Stopping,
    Teller,
    check_finite,
    check_parts,
    chunks,
    loss_of,
    validation_auc,
)


def train_active(
    channels: Mapping[str, Channel],
    columns: Sequence[Column],
    label: NDArray[np.float32],
    plan: SplitPlan,
    *,
    party: str,
    job_digest: str,
    alignment_digest: str,
    private_seed: int,
    checkpoints: Checkpoints,
    on_epoch: OnEpoch | None = None,
) -> ActivePart:
    """The active party's side.

    `columns` (which may be none) and `label` (0 and 1) are in the alignment's order. `private_seed` draws this party's
    initial weights and dropout. Raises `InputError` ``data.split`` and ``train.diverged``, and `PeerFailure`.
    """
    count = len(label)
    parts = split_rows(count, plan.validation_share, plan.test_share, plan.seed, alignment_digest)
    check_parts(label, parts)
    encoder = TabularEncoder.fit(columns, parts.train)
    rows = encoder.transform(columns, count)
    model = ActiveModel(plan, encoder, len(channels), private_seed)
    learner, stopping = Learner(model, plan), Stopping(plan.patience)
    identity = Identity(job_digest, alignment_digest)
    epoch = begin_active(channels, plan, parts, count, identity, checkpoints)
    if epoch:
        arrays, meta = checkpoints.load(epoch)
        learner.load(arrays)
        stopping.history = [(loss, score) for loss, score in meta["history"]]
    tell = Teller(plan, parts, on_epoch)
    tell.resumed(epoch, stopping)
    outcome = torch.from_numpy(label)
    while epoch < plan.epochs and not stopping.stop:
        epoch += 1
        loss = _active_epoch(channels, learner, model, rows, outcome, plan, parts, epoch, tell)
        logits = _joint_logits(channels, Topic.TRAIN, model, rows, parts.validation, plan)
        check_finite(logits, epoch)
        stopping.note(loss, validation_auc(label, parts, logits))
        if stopping.is_best:
            learner.keep_best()
        checkpoints.save(epoch, learner.arrays(), identity.meta(history=stopping.history))
        verdict = {"epoch": epoch, "best": stopping.is_best, "stop": stopping.stop or epoch == plan.epochs}
        for channel in channels.values():
            channel.send(Topic.TRAIN, Step.EPOCH, verdict)
        tell.ended(epoch, stopping)
    learner.restore_best()
    return ActivePart(plan, party, encoder, rows, model, stopping.best_epoch)


def train_passive(
    channel: Channel,
    columns: Sequence[Column],
    plan: SplitPlan,
    *,
    party: str,
    job_digest: str,
    alignment_digest: str,
    private_seed: int,
    checkpoints: Checkpoints,
    trunk: Trunk | None = None,
    on_epoch: OnEpoch | None = None,
) -> PassivePart:
    """A passive party's side; arguments are those of `train_active`. Raises `PeerFailure` and `InputError`.

    `trunk` is the encoder and first weights of a bottom that was trained before, which is left as it is.
    """
    count = len(columns[0].values)
    parts = split_rows(count, plan.validation_share, plan.test_share, plan.seed, alignment_digest)
    encoder, model = passive_bottom(columns, parts.train, plan, private_seed, trunk)
    rows = encoder.transform(columns, count)
    learner = Learner(model, plan)
    identity = Identity(job_digest, alignment_digest)
    epoch = begin_passive(channel, plan, parts, count, identity, checkpoints)
    stop = False
    if epoch:
        arrays, meta = checkpoints.load(epoch)
        learner.load(arrays)
        stop = meta["stop"]
    tell = Teller(plan, parts, on_epoch)
    tell.resumed(epoch, None)
    while not stop:
        epoch += 1
        _passive_epoch(channel, learner, model, rows, plan, parts, epoch, tell)
        _send_cuts(channel, Topic.TRAIN, model, rows, parts.validation, epoch)
        best, stop = _verdict(channel, plan, epoch)
        if best:
            learner.keep_best()
        checkpoints.save(epoch, learner.arrays(), identity.meta(stop=stop))
        tell.ended(epoch, None)
    learner.restore_best()
    return PassivePart(plan, party, encoder, rows, model)


def score_active(channels: Mapping[str, Channel], part: ActivePart, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities of the label for rows of the alignment, ``(rows,)``; every passive party runs `score_passive`."""
    logits = _joint_logits(channels, Topic.EVALUATE, part.model, part.rows, rows, part.plan)
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def score_passive(channel: Channel, part: PassivePart, rows: NDArray[np.int64]) -> None:
    """Send the cut layer of rows of the alignment."""
    _send_cuts(channel, Topic.EVALUATE, part.model, part.rows, rows, None)


# --- one epoch -------------------------------------------------------------------------------------------------------


def _active_epoch(
    channels: Mapping[str, Channel],
    learner: Learner,
    model: ActiveModel,
    rows: Encoded,
    label: Tensor,
    plan: SplitPlan,
    parts: Parts,
    epoch: int,
    tell: Teller,
) -> float:
    """One pass over the training rows; the mean loss a row."""
    model.train()
    total = 0.0
    order = epoch_order(parts.train, plan.seed, epoch)
    for number, batch in enumerate(batches(order, plan.batch_size), 1):
        index = torch.from_numpy(batch)
        own = model.own_cut(rows[index])  # while the passive parties are at theirs
        leaves = [cut.detach().requires_grad_() for cut in own]
        cuts = [_received_cut(channel, Topic.TRAIN, len(batch), plan).requires_grad_() for channel in channels.values()]
        loss = loss_of(model.top(leaves + cuts), label[index])
        value = loss.item()
        check_finite(value, epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        for channel, cut in zip(channels.values(), cuts, strict=True):
            assert cut.grad is not None
            gradient = cut.grad.numpy()
            check_finite(gradient, epoch)
            channel.send(Topic.TRAIN, Step.BACKWARD, arrays={"gradient": gradient})
        for cut, leaf in zip(own, leaves, strict=True):  # from here on while the passive parties step theirs
            cut.backward(leaf.grad)  # type: ignore[no-untyped-call]
        learner.step()
        total += value * len(batch)
        tell.batch(epoch, number)
    return total / len(order)


def _passive_epoch(
    channel: Channel,
    learner: Learner,
    model: Bottom,
    rows: Encoded,
    plan: SplitPlan,
    parts: Parts,
    epoch: int,
    tell: Teller,
) -> None:
    model.train()
    order = epoch_order(parts.train, plan.seed, epoch)
    for number, batch in enumerate(batches(order, plan.batch_size), 1):
        cut = model(rows[torch.from_numpy(batch)])
        _send_cut(channel, Topic.TRAIN, cut.detach(), epoch)
        message = channel.receive(Topic.TRAIN, Step.BACKWARD)
        cut.backward(_checked(channel, message, "gradient", len(batch), plan))
        learner.step()
        tell.batch(epoch, number)


def _joint_logits(
    channels: Mapping[str, Channel],
    topic: Topic,
    model: ActiveModel,
    rows: Encoded,
    chosen: NDArray[np.int64],
    plan: SplitPlan,
) -> NDArray[np.float32]:
    model.eval()
    logits = []
    with torch.no_grad():
        for chunk in chunks(chosen):
            own = model.own_cut(rows[torch.from_numpy(chunk)])
            cuts = [_received_cut(channel, topic, len(chunk), plan) for channel in channels.values()]
            logits.append(model.top(own + cuts).numpy())
    return np.concatenate(logits) if logits else np.zeros(0, np.float32)


def _verdict(channel: Channel, plan: SplitPlan, epoch: int) -> tuple[bool, bool]:
    """EPOCH at k: whether this epoch is the best so far, and whether to stop."""
    message = channel.receive(Topic.TRAIN, Step.EPOCH)
    fields = message.fields
    best, stop = fields.get("best"), fields.get("stop")
    if message.arrays or fields != {"epoch": epoch, "best": best, "stop": stop}:
        raise channel.refuse(Topic.TRAIN, f"the end of epoch {epoch} was due")
    if type(best) is not bool or type(stop) is not bool:
        raise channel.refuse(Topic.TRAIN, "a verdict is yes or no")
    if (epoch == 1 and not best) or (epoch == plan.epochs and not stop):
        raise channel.refuse(Topic.TRAIN, "the first epoch is the best so far, and none comes after the job's last")
    return best, stop


def _send_cuts(
    channel: Channel, topic: Topic, model: Bottom, rows: Encoded, chosen: NDArray[np.int64], epoch: int | None
) -> None:
    model.eval()
    with torch.no_grad():
        for chunk in chunks(chosen):
            _send_cut(channel, topic, model(rows[torch.from_numpy(chunk)]), epoch)


def _send_cut(channel: Channel, topic: Topic, cut: Tensor, epoch: int | None) -> None:
    values = cut.numpy()
    if epoch is not None:
        check_finite(values, epoch)
    channel.send(topic, Step.FORWARD, arrays={"cut": values})


def _received_cut(channel: Channel, topic: Topic, count: int, plan: SplitPlan) -> Tensor:
    return _checked(channel, channel.receive(topic, Step.FORWARD), "cut", count, plan)


def _checked(channel: Channel, message: Message, name: str, count: int, plan: SplitPlan) -> Tensor:
    """The only array of a message, which must be float32 (count, cut width); NaN was refused when it was decoded."""
    array = message.arrays.get(name)
    if array is None or len(message.arrays) > 1 or message.fields:
        raise channel.refuse(message.topic, f"{name} and nothing else was due")
    if array.dtype != np.float32 or array.shape != (count, plan.cut_width):
        raise channel.refuse(message.topic, f"{name} is not float32 ({count}, {plan.cut_width})")
    return torch.from_numpy(array)
