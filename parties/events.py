"""All that a vault can tell its flow.

A vault holds rows; the flow that commands it belongs to Prefect, whose server nobody has to trust with data. Between
the two runs one pipe, and what goes up that pipe is a `PublicEvent`: numbers, members of enumerations, digests, and
names that the job itself holds (`Alias`). None of these types can carry free text, and `parse` checks them again on
the flow's side against the names in the job, so the promise does not rest on the vault's care.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter

from .catalogue import CATALOGUE
from .errors import IsthmusError, error_of
from .network.message import Step, Topic
from .released import Alias, CategorySummary, Cells, Natural, NumberSummary, Steps
from .released import Event as _Event


class Phase(StrEnum):
    """The steps of a job, in their order."""

    AGREE = "agree"
    ALIGN = "align"
    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    MEASURE = "measure"
    CLOSE = "close"
    COMPARE = "compare"  # in a simulation only: what each party could do alone


def _known_code(value: str) -> str:
    if value not in CATALOGUE:
        raise ValueError("not an error code")
    return value


Code = Annotated[str, AfterValidator(_known_code)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
JobField = Literal["kind", "name", "purpose", "parties", "align", "model", "training",
    "coordinator", "columns", "label", "strategy", "rounds", "split", "subgroups", "secure_aggregation",
    "standardise", "alone", "secure_bits", "code", "tables", "curves", "at_least", "quantiles", "bins",
    "exchange", "start", "source", "target", "give", "pretraining", "fit", "distill", "seed", "tuning",
    "party",
]  # fmt: skip
Part = Literal["train", "validation", "test"]
FactName = Literal["party", "peer", "dataset", "column", "identifier", "kind"]
CountName = Literal[
    "rows", "columns", "keys_null", "keys_repeated", "keys_used", "matched", "shared",
    "train_rows", "validation_rows", "test_rows", "patients", "labelled", "soft_labels", "own_labelled",
]  # fmt: skip
MetricName = Literal[
    "auc", "average_precision", "log_loss", "brier", "accuracy", "prevalence", "rmse", "mae", "r2", "c_index",
    "best_epoch", "best_round", "auc_gain",
]  # fmt: skip
Candidate = Literal[
    "target", "source", "transferred", "split",  # of a transfer between parties
    "alone", "start", "tuned",  # of a model tuned at one party
]  # fmt: skip
NumberName = Literal["count", "entry", "asked", "allowed", "seconds", "epoch", "round"]


class Started(_Event):
    """A phase has begun."""

    event: Literal["started"] = "started"
    phase: Phase


class Progress(_Event):
    """How far a phase is: `done` of `total` in unit number `index` of `units` (a pass of PSI, an epoch)."""

    event: Literal["progress"] = "progress"
    phase: Phase
    index: Natural
    units: Natural
    done: Natural
    total: Natural


class Count(_Event):
    """A number of rows (of `columns`: of columns), in one pass of linkage where it names one."""

    event: Literal["count"] = "count"
    name: CountName
    value: Natural
    linkage_pass: Natural | None = None


class Metric(_Event):
    """A number that says how well a model does, with its 95 % interval where there is one.

    In horizontal jobs `of` says whose: of all parties' rows by sums over them, of this party's own, or of what it
    reaches alone; and `subgroup` and `level` which patients: the places of a category and a level in the job. In jobs
    that transfer, `of` says which of the models that the gate compares.
    """

    event: Literal["metric"] = "metric"
    name: MetricName
    part: Part
    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    epoch: Natural | None = None
    of: Literal["pooled", "own", "chosen", "distilled"] | Candidate | None = None
    subgroup: Natural | None = None
    level: Natural | None = None
    rows: Natural | None = None  # that it stands for


class Chosen(_Event):
    """Which of the models that it compared a gate has kept."""

    event: Literal["chosen"] = "chosen"
    of: Candidate


class HeldOut(_Event):
    """Who says which rows a party holds out: the model that it starts from, which has not seen them, or the job."""

    event: Literal["held_out"] = "held_out"
    by: Literal["start", "job"]


class Curve(_Event):
    """A line of at most 101 points for a plot, on a grid or over groups of patients: never a point per patient."""

    event: Literal["curve"] = "curve"
    name: Literal["roc", "calibration"]
    part: Part
    x: tuple[FiniteFloat, ...] = Field(max_length=101)
    y: tuple[FiniteFloat, ...] = Field(max_length=101)


class Round(_Event):
    """A round has ended: the model that it began with judged, and who was in its sum."""

    event: Literal["round"] = "round"
    round: Natural
    loss: FiniteFloat | None = None  # of training, in this round
    validation_loss: FiniteFloat | None = None
    validation_score: FiniteFloat | None = None
    parties: tuple[Alias, ...] = ()


class Difference(_Event):
    """What a party's data lack of what the job's columns say."""

    event: Literal["difference"] = "difference"
    column: Alias
    what: Literal["missing", "type", "unit", "levels"]


class Drift(_Event):
    """How far a party's column lies from all parties': standardised mean difference, share of missing values."""

    event: Literal["drift"] = "drift"
    column: Alias
    smd: FiniteFloat | None = None
    missing: FiniteFloat | None = None


class Traffic(_Event):
    """Bytes that left for a peer and came from it, by topic."""

    event: Literal["traffic"] = "traffic"
    peer: Alias
    topic: Topic
    sent: Natural
    received: Natural


class Reachable(_Event):
    """The exchange can be reached, or no longer."""

    event: Literal["reachable"] = "reachable"
    up: bool


class Fingerprint(_Event):
    """A digest that the parties compare, or that an auditor may note down."""

    event: Literal["fingerprint"] = "fingerprint"
    name: Literal["job", "alignment", "ledger", "model"]
    value: Digest


class Signed(_Event):
    """The member has signed one run of a job: the parts of its `parties.starts.Start` that the flow does not know."""

    event: Literal["signed"] = "signed"
    until: Natural  # seconds since 1970, UTC
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Resumed(_Event):
    """The party goes on after an epoch, a round or a model of an earlier attempt, or reuses its alignment."""

    event: Literal["resumed"] = "resumed"
    phase: Phase
    epoch: Natural | None = None
    round: Natural | None = None
    model: Natural | None = None


class Finished(_Event):
    """A phase has ended well."""

    event: Literal["finished"] = "finished"
    phase: Phase
    seconds: FiniteFloat


class Failed(_Event):
    """A phase has failed: the code, and the facts that the job itself names."""

    event: Literal["failed"] = "failed"
    phase: Phase
    code: Code
    names: dict[FactName, Alias] = Field(default_factory=dict)
    numbers: dict[NumberName, Natural] = Field(default_factory=dict)
    topic: Topic | None = None
    step: Step | None = None
    part: Part | None = None
    field: JobField | None = None
    digest: Digest | None = None  # of the signature under the job

    def error(self, where: str = "") -> IsthmusError:
        """The error itself, in words."""
        facts: dict[str, Any] = {str(name): fact for name, fact in (*self.names.items(), *self.numbers.items())}
        words = {"topic": self.topic, "step": self.step, "part": self.part, "field": self.field, "digest": self.digest}
        facts |= {name: str(word) for name, word in words.items() if word}
        return error_of(self.code, where=where, **facts)


PublicEvent = Annotated[
    Started
    | Progress
    | Count
    | Metric
    | Chosen
    | HeldOut
    | Curve
    | Round
    | Difference
    | Drift
    | NumberSummary
    | CategorySummary
    | Cells
    | Steps
    | Traffic
    | Reachable
    | Fingerprint
    | Signed
    | Resumed
    | Finished
    | Failed,
    Field(discriminator="event"),
]
_ADAPTER: TypeAdapter[PublicEvent] = TypeAdapter(PublicEvent)


def parse(line: str | bytes, aliases: Iterable[str]) -> PublicEvent:
    """Read one event that a vault wrote.

    Raises `pydantic.ValidationError` for anything that is not an event, or that names what the job does not name.
    """
    return _ADAPTER.validate_json(line, context={"aliases": frozenset(aliases)})


def public_failure(phase: Phase, error: IsthmusError, aliases: Iterable[str]) -> Failed:
    """What may leave of an error: its code, and those facts that are the job's own names or numbers."""
    known = frozenset(aliases)
    facts: Mapping[str, Any] = error.facts
    return Failed.model_validate(
        {
            "phase": phase,
            "code": error.code,
            "names": {n: v for n, v in facts.items() if n in get_args(FactName) and v in known},
            "numbers": {n: v for n, v in facts.items() if n in get_args(NumberName) and _is_natural(v)},
            "topic": _member(facts.get("topic"), list(Topic)),
            "step": _member(facts.get("step"), list(Step)),
            "part": _member(facts.get("part"), get_args(Part)),
            "field": _member(facts.get("field"), get_args(JobField)),
            "digest": facts.get("digest") if error.code == "policy.approval" else None,
        },
        context={"aliases": known},
    )


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _member(value: object, known: Sequence[str]) -> str | None:
    return next((word for word in known if word == value), None)
