"""What one party's policy lacks for a job: the entries to add, all of them, where a refusal names but the first.

The policy judges again and again; each refusal is answered by what it asks for. So what is said here and what
`Policy.check` says cannot differ.
"""

from __future__ import annotations

from typing import Any

from ..parties.errors import PolicyRefusal
from ..parties.policy import ALL, Policy, Release, Terms


def amended(policy: Policy, terms: Terms) -> tuple[Policy, list[str]]:
    """The policy with what it lacks to allow a job's terms, and the entries that were added, as party.yaml has them.

    Columns that a job asks for as "*" are the party's to name: none are added for it.
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


def _added(before: Policy, after: Policy, terms: Terms) -> list[str]:
    """What the one policy has and the other has not."""
    entries = _differences(before, after)
    if terms.dataset is not None:
        released = after.release[terms.dataset]
        parts = _differences(before.release.get(terms.dataset, Release()), released)
        if ALL in terms.columns and not released.columns:
            parts.insert(0, "columns: [...]  # what the job may have")
        entries += [f"release: {terms.dataset}: {part}" for part in parts]
    return entries


def _differences(before: Policy | Release, after: Policy | Release) -> list[str]:
    """Fields that differ; of lists what is new in them."""
    found = []
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(new, tuple):
            new = list(dict.fromkeys(one for one in new if one not in old))
            found += [f"{name}: [{', '.join(new)}]"] if new else []
        elif new != old and not isinstance(new, dict):
            found.append(f"{name}: {new}")
    return found
