"""What the party brings to a finetune job, looked at before it trains: by its vault, and by `isthmus check`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from ....horizontal.model_file import SavedModel
from ....horizontal.model_spec import ModelSpec
from ....horizontal.schema import ColumnSpec, Difference, differences, readable
from ....horizontal.splits import Parts, SplitRule
from ....horizontal.targets import Target
from ....parties.errors import InputError
from ....parties.home import PartyHome
from ....parties.store import Store
from ....parties.table import Column
from ....transfer.finetune import find_model, load_start
from ..horizontal.own_data import read_parts, read_target
from .job import FinetuneJob


class OwnColumns(NamedTuple):
    """The model to start from, and the party's columns where they are what its encoder says."""

    start: SavedModel
    store: Store
    row_ids: NDArray[Any]
    columns: list[Column]  # those that can be read
    differences: list[Difference]


def read_columns(home: PartyHome, job: FinetuneJob) -> OwnColumns:
    """Find the model and read the columns that it takes.

    The file says nothing of units: that they are those of the training is for the party to see to. Raises `InputError`
    ``model.start_missing`` and ``model.start_differs``, and those of `Store`.
    """
    if job.start.digest is None:  # the coordinator fills it in
        raise InputError("model.start_missing", party=home.name)
    spec = ModelSpec("network", job.model.hidden, job.model.dropout)
    content = find_model(home, job.start.digest)
    start = load_start(content, spec, job.columns, job.task, party=home.name)
    store = Store(home, job.party.dataset)
    row_ids, kinds = store.row_ids(), store.kinds()
    numbers = [ColumnSpec(code.name, "number") for code in start.encoder.numbers]
    specs = numbers + [ColumnSpec(code.name, "category", code.levels) for code in start.encoder.categories]
    columns = store.columns(readable(specs, kinds), row_ids)
    return OwnColumns(start, store, row_ids, columns, differences(specs, kinds, columns, {}))


def split_of(job: FinetuneJob, start: SavedModel) -> tuple[SplitRule, Literal["start", "job"]]:
    """How rows are held out, and who says so: the start if it has seen rows of this party, else the job.

    Rows that the start has not seen stay unseen. They can only be found again by the same label, and by a column that
    the job names too, so that the policy has judged it. Raises `InputError` ``model.start_differs`` (label, split).
    """
    asked = SplitRule(job.split.validation_share, job.split.test_share, job.tuning.seed, job.split.column)
    seen = start.seen.get(job.party.name)
    if seen is None:
        return asked, "job"
    if seen.label != job.label.columns:
        raise InputError("model.start_differs", party=job.party.name, field="label")
    rule = seen.split
    if rule.column != asked.column or (rule.column is None and rule.validation_share == 0):
        raise InputError("model.start_differs", party=job.party.name, field="split")
    return rule, "start"


def read_rows(own: OwnColumns, job: FinetuneJob, rule: SplitRule) -> tuple[Target, Parts]:
    """The target, and which rows train, choose and are held out.

    Raises `InputError` ``data.few_rows`` and those of `Store`.
    """
    target = read_target(own.store, job.label, own.row_ids, may_be_constant=False)
    return target, read_parts(own.store, rule, job.party.name, own.row_ids, target)
