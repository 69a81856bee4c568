"""What one party's policy lacks for a job: the entries to add, all of them, where a refusal names but the first.

The policy judges again and again; each refusal is answered by what it asks for. So what is said here and what
`Policy.check` says cannot differ.
"""

from __future__ import annotations

from typing import Any

from ..parties.errors import PolicyRefusal
from ..parties.policy import ALL, Policy, Release, Terms

TO_BE_NAMED = "those that the job may have"  # instead of columns


def amended(policy: Policy, terms: Terms) -> tuple[Policy, dict[str, Any]]:
    """The policy with what it lacks to allow a job's terms, and what was added to it, in the form of party.yaml.

    Columns that a job asks for as "*" are the party's to name: none are added to the policy for it.
    """
    before = policy
    while True:
        try:
            policy.check(terms)
        except PolicyRefusal as refusal:
            policy = _answered(refusal.code, policy, terms)
        else:
            return policy, _added(before, policy, terms)


def _answered(code: str, policy: Policy, terms: Terms) -> Policy:
    """The policy with what a refusal asks for."""
    answers: dict[str, Any] = {
        "policy.kind": {"kinds": (*policy.kinds, terms.kind)},
        "policy.purpose": {"purposes": (*policy.purposes, terms.purpose)},
        "policy.peer": {"peers": (*policy.peers, *terms.peers)},
        "policy.epochs": {"max_epochs": terms.epochs},
        "policy.rounds": {"max_rounds": terms.rounds},
        "policy.embedding": {"max_embedding": terms.embedding},
        "policy.model": {"models": (*policy.models, terms.model)},
        "policy.plain_updates": {"plain_updates": "allow"},
    }
    if code in answers:
        return policy.model_copy(update=answers[code])
    assert terms.dataset is not None
    release = policy.release.get(terms.dataset, Release())
    columns = tuple(column for column in terms.columns if column not in (*release.columns, ALL))
    of_release: dict[str, Any] = {
        "policy.dataset": {},  # that it is there, with nothing in it
        "policy.column": {"columns": (*release.columns, *columns)},
        "policy.label": {"labels": (*release.labels, *terms.labels)},
        "policy.membership": {"may_learn_membership": (*release.may_learn_membership, *terms.membership_learners)},
        "policy.no_floor": {"at_least": terms.at_least},
        "policy.cohort": {"cohort": terms.cohort},
    }
    released = release.model_copy(update=of_release[code])
    return policy.model_copy(update={"release": {**policy.release, terms.dataset: released}})


def _added(before: Policy, after: Policy, terms: Terms) -> dict[str, Any]:
    """What the one policy has and the other has not."""
    entries = _differences(before, after)
    if terms.dataset is not None:
        released = after.release[terms.dataset]
        parts = _differences(before.release.get(terms.dataset, Release()), released)
        if ALL in terms.columns and not released.columns:
            parts = {"columns": [TO_BE_NAMED], **parts}
        if parts:
            entries["release"] = {terms.dataset: parts}
    return entries


def _differences(before: Policy | Release, after: Policy | Release) -> dict[str, Any]:
    """Fields that differ; of lists what is new in them."""
    found: dict[str, Any] = {}
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(new, tuple):
            new = list(dict.fromkeys(one for one in new if one not in old))
        if new != old and new and not isinstance(new, dict):
            found[name] = new
    return found
