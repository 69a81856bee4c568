"""Split fine-tuning: source S and target T train on together, on the patients they share, from what S has learnt.

It is `vertical.split` with S as the passive party, whose bottom begins as the trunk that `pretrain` made of S's own
rows, and T as the active party, whose bottom and top are new. The messages are those of that module. What is added is
what the trunk knows already.

Every party derives the same three parts of the shared patients (`vertical.split_rows`). The trunk is pretrained on all
of S's rows **but the validation and test parts** (`pretrain_without`): they decide when to stop and whether the tuned
model is better than what the gate would keep, so no model may have seen them, S's as little as T's.

**Who learns what**, beside what `vertical.split` says: T is sent the cut layer of every training patient in every epoch
and so sees the trunk move; its first cut layer is S's embedding, which carries what S has learnt from its other
patients and their labels. Unlike what `embedding` gives it is **not out of fold**: the trunk has seen the training
patients' labels at S, so their cut layers say more of these than S would predict for a stranger. In a job that gives
a score, tuning gives a whole embedding's width instead. S is sent gradients, from which it can tell the labels of T's
training patients; a job that only gives an embedding tells S nothing of them. That S begins with a trunk is known to T
from the job; the trunk's weights are not sent.

**Adversary**: semi-honest, as in `vertical.split`.

**Measured** (`bench-transfer`, SUPPORT2, 1,000 and 2,000 of 4,000 patients shared, eight seeds): beginning with the
trunk beats random weights by less than 0.01 of AUC in the median, and the linear model on the source's score is as good
as either. A tenth of the learning rate for the trunk, or a trunk that has seen no shared patient at all, made no
difference that could be told from chance.

**Papers**: those of `vertical.split`; Yosinski et al., "How transferable are features in deep neural networks?", 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..parties.checkpoint import Checkpoints
from ..parties.network.channel import Channel
from ..parties.table import Column
from ..vertical import ActivePart, PassivePart, SplitPlan, train_active, train_passive
from ..vertical.models import Trunk
from ..vertical.training import OnEpoch


def tune_target(
    channel: Channel,
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
    """T's side; its `label` (0 and 1) is known for every shared patient.

    `columns` and `label` are ``(shared,)``, in the alignment's order. Errors are those of `vertical.train_active`.
    """
    return train_active(
        {channel.peer: channel},
        columns,
        label,
        plan,
        party=party,
        job_digest=job_digest,
        alignment_digest=alignment_digest,
        private_seed=private_seed,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )


def tune_source(
    channel: Channel,
    columns: Sequence[Column],
    plan: SplitPlan,
    *,
    trunk: Trunk,
    party: str,
    job_digest: str,
    alignment_digest: str,
    private_seed: int,
    checkpoints: Checkpoints,
    on_epoch: OnEpoch | None = None,
) -> PassivePart:
    """S's side, from a `trunk` whose hidden widths are the plan's `bottom`; it is left as it is.

    `columns` are S's of the shared patients, ``(shared,)`` in the alignment's order. Errors: `vertical.train_passive`.
    """
    return train_passive(
        channel,
        columns,
        plan,
        trunk=trunk,
        party=party,
        job_digest=job_digest,
        alignment_digest=alignment_digest,
        private_seed=private_seed,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )
