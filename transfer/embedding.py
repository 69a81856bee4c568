"""What a source S tells a target T of the patients they share: its frozen embedding or score, once.

::

    TRAIN  EMBEDDING  S→T  {"working": true}, now and then, while S learns from its own rows (`pretrain`)
           EMBEDDING  S→T  {"rows": .., "width": ..}
           EMBEDDING  S→T  the values of the shared patients, out of fold: float32 (at most 4,096, width), in the
                           alignment's order, chunk by chunk
           READY      T→S  {"split": ..}: whether both now train on together

**Who learns what**: T learns `width` numbers for every shared patient, each a function of that patient's columns at S
and of S's model. A **score** (width 1) is what S's model predicts: T may take it for S's opinion of the patient, and
learns as much of S's label as the model knows. From an **embedding** the patient's columns at S can be guessed, the
better the wider it is and the more T knows already (Mahendran and Vedaldi 2015). S's weights are not sent; T can
imitate the model on the shared patients, no further than it knows their columns. **Out of fold** means that a patient's
numbers come from a model that was trained without that row. It keeps T from trusting them too much; **it hides no
label**. Labels of all other rows are in the model, so a patient's label can be told from the numbers of others that are
like it (a household, if a column names it), and comparing numbers of patients with equal columns, of which some models
have seen the one and not the other, can tell it too: shown for small folds, many epochs and one column. So a fold is at
least as large as S's policy's `cohort`, and its `max_epochs` bounds the training. Folds are of rows: a patient whom S
holds twice is trained on by the other row. Of S's other patients T learns what they have taught the model, and how long
S trains.

S learns which patients are shared, which the alignment told; at the end whether T wants to go on, from which it can
tell whether T knows the outcome of as many as the job asks for; and, where the job stops before, whether T knows too
few outcomes of these patients (``transfer.few_labels``). A source that makes up its set of patients can ask for the
outcome of one of them by that.

**Training on** is `vertical.split` with S as the passive party, whose bottom begins as a trunk that S has pretrained on
all its rows but the validation and test parts of the shared ones, and T as the active party. It tells both more, as
that module says: T the whole width of S's trunk for every shared patient, also in a job that gives a score, and no
longer out of fold; S gradients, from which it can tell T's labels. Measured (`bench-transfer`, SUPPORT2, 1,000 and
2,000 of 4,000 patients shared, eight seeds), it gains little: the trunk beats random weights by less than .01 of AUC in
the median, and the linear model on S's score is as good as either.

One embedding is given per run: an attempt that goes on gives the same numbers, or none (``embedding.repeated``).
Another run or another job tells more about the same patients, the more the more its settings differ; no count of them
is kept here, so `max_embedding` bounds what leaves at a time.

**Adversary**: semi-honest. Shape, type, order and finiteness of what S sends are checked; whether S gives what its
model says, and out of fold, T cannot see. The gate then judges by T's own labels whether it helps.

**Papers**: Liu, Kang, Xing, Chen and Yang, "A secure federated transfer learning framework", 2020, which trains both
representations together under encryption; here one is frozen and sent in the clear. Wolpert, "Stacked generalization",
1992, for the folds. Mahendran and Vedaldi, "Understanding deep image representations by inverting them", 2015.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError
from ..parties.network.beats import after_beats
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from .pretrain import is_constant

CHUNK_ROWS = 4096


def give_embedding(channel: Channel, values: NDArray[np.float32], *, may_split: bool) -> bool:
    """S's side: give the values ``(shared, width)``; the answer says whether both train on together.

    While S works towards them, it is `parties.network.beats.speaking` with `Topic.TRAIN`, ``then=Step.EMBEDDING``.
    Raises `PeerFailure`, also for a yes where the job and the number of shared patients do not allow it (`may_split`).
    """
    rows, width = values.shape
    channel.send(Topic.TRAIN, Step.EMBEDDING, {"rows": rows, "width": width})
    channel.send_chunks(
        Topic.TRAIN, Step.EMBEDDING, (values[start : start + CHUNK_ROWS] for start in range(0, rows, CHUNK_ROWS))
    )
    answer = channel.receive(Topic.TRAIN, Step.READY)
    split = answer.fields.get("split")
    if answer.arrays or answer.fields != {"split": split} or type(split) is not bool:
        raise channel.refuse(Topic.TRAIN, "whether to train on is yes or no")
    if split and not may_split:
        raise channel.refuse(Topic.TRAIN, "training on is not this job's")
    return split


def receive_embedding(channel: Channel, rows: int, width: int, *, split: bool) -> NDArray[np.float64]:
    """T's side: what S says of the shared patients, ``(rows, width)`` in the alignment's order; answers `split`.

    Waits for as long as S says that it is working. Raises `PeerFailure`, and `InputError` ``embedding.constant`` if
    every patient is told of alike.
    """
    announced = after_beats(channel, Topic.TRAIN, Step.EMBEDDING)
    if announced.arrays or announced.fields != {"rows": rows, "width": width}:
        raise channel.refuse(Topic.TRAIN, f"an embedding of ({rows}, {width}) was due")
    values = np.concatenate([*_checked_chunks(channel, rows, width), np.zeros((0, width), np.float32)])
    if len(values) != rows:
        raise channel.refuse(Topic.TRAIN, f"the embedding ends before its {rows} rows")
    if is_constant(values):
        raise InputError("embedding.constant", party=channel.peer)
    channel.send(Topic.TRAIN, Step.READY, {"split": split})
    return values.astype(np.float64)


def _checked_chunks(channel: Channel, rows: int, width: int) -> Iterator[NDArray[np.float32]]:
    """Chunks as they come, each as long as it can be; NaN was refused when the message was decoded."""
    left = rows
    for chunk in channel.receive_chunks(Topic.TRAIN, Step.EMBEDDING):
        if chunk.dtype != np.float32 or chunk.shape != (min(CHUNK_ROWS, left), width) or not left:
            raise channel.refuse(Topic.TRAIN, f"a chunk of the embedding is not float32 (rows, {width})")
        left -= len(chunk)
        yield chunk
