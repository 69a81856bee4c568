"""`isthmus check` of a horizontal job: what each party's data say, the bytes at most, who would learn what."""

from __future__ import annotations

import json

from ....horizontal.codes import NumberCode
from ....horizontal.counting import counted_shapes, size_of, spread_shapes
from ....horizontal.fixed_point import EXACT
from ....horizontal.pooled import size as pooled_size
from ....horizontal.statistics import standards_request
from ....horizontal.tally import TALLY_SIZE
from ....horizontal.transform import SCALE_ITEMS, Packing
from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.policy import Grant
from ...check import ENVELOPE_NBYTES, Leaving, Look
from ..star_check import (
    ANY_NUMBER,
    Ways,
    agreeing,
    both_ways,
    look_at_columns,
    message_nbytes,
    setup_ways,
    star_learns,
    statistics_ways,
    sum_ways,
    vector_nbytes,
)
from ..star_phases import OwnColumns, specs_of
from .job import HorizontalJob, OwnModel
from .own_data import read_parts, read_target, split_of
from .phases import code_of
from .plan import model_of, plan_of

FLOAT_NBYTES = 4
_CODE_NBYTES = 200  # of one number column's mean and scale as JSON, beside its name
_RESUMED = 2  # exchanges that an attempt which goes on may make beside the rounds: a sum left over, a count


def look(home: PartyHome, job: HorizontalJob, grant: Grant) -> Look:
    """Read what the job would use of one member. A model of one's own is found, and not run."""
    code_of(job, home.name)
    if home.name == job.coordinator:
        return Look()

    def read_more(own: OwnColumns) -> None:
        target = read_target(own.store, job.label, own.row_ids, may_be_constant=True)
        read_parts(own.store, split_of(job), home.name, own.row_ids, target)

    return look_at_columns(home, job, read_more)


def leaving(job: HorizontalJob, rows: dict[str, int | None]) -> list[Leaving]:
    """Bytes that would leave each member for another, at most. They do not depend on the rows."""
    size = _model_size(job)
    sums = "masked sums" if job.secure_aggregation else "its own sums"
    updates = "masked updates" if job.secure_aggregation else "its own updates"
    numbers = [column for column in job.columns if column.kind == "number"]
    model = "the model of every round" + (f", {size:,} numbers" if size is not None else "")
    return [
        *agreeing(job),
        *both_ways(
            job, Topic.STATISTICS, _standardising(job), f"{sums} of {len(numbers)} columns", "ranges, means, scales"
        ),
        *both_ways(job, Topic.SETUP, setup_ways(), "digests, the rounds it can go on from", "digests of the settings"),
        *both_ways(job, Topic.TRAIN, _training(job, size), updates, model),
        *both_ways(job, Topic.EVALUATE, _evaluating(job), f"{sums} of held-out patients", "the question"),
    ]


def learns(job: HorizontalJob) -> list[tuple[str, str]]:
    """Pairs of a member and something it learns, for a person to read."""
    coordinator, plan = job.coordinator, plan_of(job)
    lines = [
        ("each party", "the model of every round, which of them is kept, how many patients train it in all"),
        ("each party", "of each number column: mean and scale over all patients, whether a value is missing anywhere"),
    ]
    if job.secure_aggregation:
        lines += [
            (coordinator, "the model of every round, and the sum of all parties' updates; no update of one party"),
            (coordinator, "sums over all parties: of each number column, of losses and scores, of held-out patients"),
        ]
    else:
        own = "every party's own update in every round, from which rows can be reconstructed in part"
        lines += [
            (coordinator, f"the model of every round, {own}"),
            (coordinator, "every party's own sums: of each number column, of losses and scores, of held-out patients"),
        ]
    if not plan.aggregator.linear:
        lines.append((coordinator, f"whose updates {plan.aggregator.kind} leaves out, or counts for less"))
    lines.append(
        (
            "who reads the report",
            "what the policies publish: how well the model does, in all, by party and by subgroup; how far each "
            "party's columns lie from all; never of fewer patients than the highest floor",
        )
    )
    return lines + star_learns(job)


# --- below: bytes -----------------------------------------------------------------------------------------------------


def _standardising(job: HorizontalJob) -> Ways:
    request = standards_request(specs_of(job), 1)
    binned = 1 + 2 * len(request.numbers)  # a sum and one bin each, since no histogram is asked for
    sizes = [size_of(counted_shapes(request)), binned, size_of(spread_shapes(request))]
    result = sum(_CODE_NBYTES + len(json.dumps(spec.name)) for spec in request.numbers)
    return statistics_ways(job, sizes, len(request.numbers), result)


def _training(job: HorizontalJob, size: int | None) -> Ways | None:
    """Bytes of `horizontal.rounds`: models down, updates up, one exchange more than there are rounds."""
    if size is None:
        return None
    plan = plan_of(job)
    size *= 2 if plan.objective.kind == "scaffold" else 1  # a control travels behind the model
    numbers = dict.fromkeys(("round", "rows", "best", "counted"), ANY_NUMBER)
    order = {"train": False, "parties": list(job.names), **numbers}
    round_ways = Ways(0, vector_nbytes(size, FLOAT_NBYTES, order) + ENVELOPE_NBYTES)
    asked = {"sum": ANY_NUMBER, "parties": list(job.names)}
    if job.secure_aggregation:
        round_ways += sum_ways(job, size + TALLY_SIZE, plan.encoding)
        counting = sum_ways(job, 1, EXACT) + Ways(0, message_nbytes(asked))
    else:
        round_ways += _plain_ways(Packing(plan.transforms, size))
        counting = Ways(0, 0)
    result = Ways(0, vector_nbytes(size, FLOAT_NBYTES, {"round": ANY_NUMBER}) + 2 * ENVELOPE_NBYTES)
    return round_ways.times(plan.rounds + 1) + counting.times(_RESUMED) + result


def _plain_ways(packing: Packing) -> Ways:
    """Bytes of one party's own update, of `horizontal.updates`."""
    sizes = {"values": packing.kept, "index": packing.kept, "scale": -(-packing.kept // SCALE_ITEMS)}
    tally = {"tally": [0.0] * TALLY_SIZE}
    arrays = (vector_nbytes(sizes[name], int(dtype[-1]), tally) for name, dtype in packing.dtypes.items())
    order = message_nbytes({"sum": ANY_NUMBER})
    return Ways(order + sum(arrays), order)


def _evaluating(job: HorizontalJob) -> Ways:
    subgroups = [spec for spec in specs_of(job) if spec.name in job.subgroups]
    question = message_nbytes({"sum": ANY_NUMBER, "parties": list(job.names)}) + 2 * ENVELOPE_NBYTES
    return sum_ways(job, pooled_size(job.task, subgroups), EXACT) + Ways(0, question)


def _model_size(job: HorizontalJob) -> int | None:
    """How many numbers the shared model has, if a value is missing in every number column.

    None for a model of one's own: it would have to be run.
    """
    if isinstance(job.model, OwnModel):
        return None
    from ....horizontal.encoders import shared_encoder  # with torch
    from ....horizontal.models import build

    spec, columns = model_of(job), specs_of(job)
    numbers = [NumberCode(column.name, 0.0, 1.0, True) for column in columns if column.kind == "number"]
    encoder = shared_encoder(columns, numbers, embed=spec.embeds)
    return plan_of(job).scope.layout(build(spec, encoder, 0, job.task, party=job.coordinator)).size
