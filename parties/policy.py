"""What one party allows. Everything is denied until its own engineer writes it into `party.yaml`.

A job's `Terms` are judged before any row is read; a refusal names what was asked and what to do. The policy also bounds
what the party's vault may tell its own flow (`publish`), since that flow belongs to a Prefect server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, field_validator

from .errors import PolicyRefusal

ALL = "*"
WINDOWS = {
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1), "month": timedelta(days=30)
}  # fmt: skip
KindName = Literal["vertical", "horizontal", "statistics", "transfer", "finetune"]  # of jobs: `flows.kinds` has them
Publishable = Literal["counts", "metrics", "curves"]


@dataclass(frozen=True)
class Rate:
    """At most `count` in any time as long as a `window`."""

    count: int
    window: Literal["hour", "day", "week", "month"]

    @property
    def span(self) -> timedelta:
        """How long the window is; a month has 30 days."""
        return WINDOWS[self.window]

    def __str__(self) -> str:
        return f"{self.count} per {self.window}"


def parse_rate(text: Any) -> Rate:
    """A rate as people write it, such as ``4 per day``; raises `ValueError` for anything else."""
    if isinstance(text, Rate):
        return text
    found = (
        re.fullmatch(r"([1-9][0-9]{0,5}) per (hour|day|week|month)", _plain(text)) if isinstance(text, str) else None
    )
    if found is None:
        raise ValueError("a rate is a number per hour, day, week or month, such as '4 per day'")
    return Rate(int(found[1]), found[2])  # type: ignore[arg-type]


RateText = Annotated[Rate, PlainValidator(parse_rate, json_schema_input_type=str), PlainSerializer(str)]


class Release(BaseModel):
    """What of one dataset may take part in a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[str, ...] = Field(default=(), description="Columns that may be features.")
    labels: tuple[str, ...] = Field(default=(), description="Columns that may be a label.")
    at_least: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The smallest number of shared patients; without it no patients are linked."
    )
    cohort: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The smallest group of patients of whom a number may be told (a count, a mean, a curve's step); "
        "without it none is.",
    )
    may_learn_membership: tuple[str, ...] = Field(
        default=(), description="Parties that may learn which of their own patients this party has too."
    )

    @field_validator("columns", "labels", "may_learn_membership")
    @classmethod
    def _spelled_out(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if ALL in value:
            raise ValueError(f"{ALL!r} is for jobs; a policy names each one")
        return value


class Policy(BaseModel):
    """All that a party allows; an empty policy allows nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[KindName, ...] = Field(default=(), description="Kinds of job.")
    starts: dict[str, dict[KindName, RateText]] = Field(
        default_factory=dict,
        description="Members of the consortium that may start jobs, by kind, and how often: `insurer: {vertical: 4 per "
        "day}`. In a home without a roster, which is a simulation on one machine, nobody is asked.",
    )
    approve: tuple[KindName, ...] = Field(
        default=(), description="Kinds of job that wait, each job anew, until a person approves it here."
    )
    signs: tuple[KindName, ...] = Field(
        default=(),
        description="Kinds of job that are signed in this member's name, a run at a time, when they are started at the "
        "Prefect server that its flows run on. Whoever reaches that server then starts jobs as this member.",
    )
    purposes: tuple[str, ...] = Field(default=(), description="Purposes, word for word.")
    peers: tuple[str, ...] = Field(default=(), description="Parties it works with.")
    release: dict[str, Release] = Field(default_factory=dict, description="By dataset.")
    max_epochs: int = Field(default=0, ge=0, description="The most epochs of training that a job may ask for.")
    max_rounds: int = Field(default=0, ge=0, description="The most federated rounds that a job may ask for.")
    max_embedding: int = Field(
        default=0,
        ge=0,
        description="The most numbers that an embedding, or the cut layer of split tuning, may tell of each shared "
        "patient at a time; 1 is a score, 0 none at all.",
    )
    models: tuple[str, ...] = Field(default=(), description="Model classes of one's own that may run, by dotted path.")
    plain_updates: Literal["deny", "allow"] = Field(
        default="deny", description="Whether the coordinator may see this party's own updates and sums, unmasked."
    )
    publish: tuple[Publishable, ...] = Field(
        default=(),
        description="What the party's flow, and so the Prefect server and the coordinator, may be told by its vault. "
        "Its peers tell by their own policies what they know too: shared patients, bytes that came from this party.",
    )
    pooled_baselines: Literal["deny", "allow"] = Field(
        default="deny", description="Simulations only: one process may read this party's rows beside its peers'."
    )

    @field_validator("starts")
    @classmethod
    def _starters_are_named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ALL in value:
            raise ValueError(f"{ALL!r} is for jobs; a policy names each member that may start them")
        return value

    def rate(self, starter: str, kind: str) -> Rate | None:
        """How often a member may start a kind of job; None: never."""
        return next((rate for name, rate in self.starts.get(starter, {}).items() if name == kind), None)

    def check(self, terms: Terms) -> Grant:
        """Judge a job's terms.

        Returns what the job gets, with "*" spelled out. Raises `PolicyRefusal` with the first reason found.
        """
        me = terms.party
        if terms.kind not in self.kinds:
            raise PolicyRefusal("policy.kind", party=me, kind=terms.kind)
        if _plain(terms.purpose) not in map(_plain, self.purposes):
            raise PolicyRefusal("policy.purpose", party=me)
        for peer in terms.peers:
            if peer not in self.peers:
                raise PolicyRefusal("policy.peer", party=me, peer=peer)
        if terms.epochs > self.max_epochs:
            raise PolicyRefusal("policy.epochs", party=me, asked=terms.epochs, allowed=self.max_epochs)
        if terms.rounds > self.max_rounds:
            raise PolicyRefusal("policy.rounds", party=me, asked=terms.rounds, allowed=self.max_rounds)
        if terms.embedding > self.max_embedding:
            raise PolicyRefusal("policy.embedding", party=me, asked=terms.embedding, allowed=self.max_embedding)
        if terms.model is not None and terms.model not in self.models:
            raise PolicyRefusal("policy.model", party=me)
        if terms.plain_updates and self.plain_updates != "allow":
            raise PolicyRefusal("policy.plain_updates", party=me)
        return self._release(terms) if terms.dataset is not None else Grant()

    def _release(self, terms: Terms) -> Grant:
        """Judge what is asked of a dataset."""
        me, dataset = terms.party, terms.dataset
        if dataset is None or dataset not in self.release:
            raise PolicyRefusal("policy.dataset", party=me, dataset=str(dataset))
        release = self.release[dataset]
        columns = tuple(
            dict.fromkeys(
                column for asked in terms.columns for column in (release.columns if asked == ALL else [asked])
            )
        )
        for column in columns:
            if column not in release.columns:
                raise PolicyRefusal("policy.column", party=me, dataset=dataset, column=column)
        for label in terms.labels:
            if label not in release.labels:
                raise PolicyRefusal("policy.label", party=me, column=label)
        for peer in terms.membership_learners:
            if peer not in release.may_learn_membership:
                raise PolicyRefusal("policy.membership", party=me, peer=peer)
        if terms.at_least is not None and release.at_least is None:
            raise PolicyRefusal("policy.no_floor", party=me, dataset=dataset)
        if terms.cohort is not None and release.cohort is None:
            raise PolicyRefusal("policy.cohort", party=me, dataset=dataset)
        features = tuple(column for column in columns if column not in terms.labels)
        return Grant(
            features, max(terms.at_least or 1, release.at_least or 1), max(terms.cohort or 1, release.cohort or 1)
        )


@dataclass(frozen=True)
class Terms:
    """The part of a job that one party's policy judges."""

    kind: str
    purpose: str
    party: str
    peers: tuple[str, ...]
    dataset: str | None  # None: a coordinator, who brings no rows
    columns: tuple[str, ...] = ()  # "*" stands for all that the policy releases
    labels: tuple[str, ...] = ()
    at_least: int | None = None  # the smallest number of shared patients; None: nobody is linked
    membership_learners: tuple[str, ...] = ()
    cohort: int | None = None  # the smallest group that numbers may be told of; None: none are told
    epochs: int = 0
    rounds: int = 0
    embedding: int = 0  # numbers of each shared patient that the party gives away
    model: str | None = None  # a model class of the user's own, by its dotted path
    plain_updates: bool = False  # whether the coordinator sees single updates


@dataclass(frozen=True)
class Grant:
    """What a policy lets a job have: the features by name, the labels not among them, and the floors that hold."""

    columns: tuple[str, ...] = ()
    at_least: int = 1
    cohort: int = 1


def _plain(purpose: str) -> str:
    return " ".join(purpose.casefold().split())
