"""Policy: denied until it is allowed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isthmus.flows.kinds import KINDS
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.home import PartyHome
from isthmus.parties.policy import Grant, Policy, Rate, Release, Terms, parse_rate

TERMS = Terms(
    kind="vertical",
    purpose="mortality risk",
    party="insurer",
    peers=("lab",),
    dataset="members",
    columns=("age", "sex"),
    labels=("died",),
    at_least=20,
    membership_learners=("lab",),
    epochs=30,
)
RELEASE: dict[str, Any] = {
    "columns": ("age", "sex", "smoker"), "labels": ("died",), "at_least": 50, "may_learn_membership": ("lab",)
}  # fmt: skip
ALLOWED: dict[str, Any] = {
    "kinds": ("vertical",), "purposes": ("Mortality  risk ",), "peers": ("lab",), "max_epochs": 30
}  # fmt: skip


def _policy(*, dataset: dict[str, Any] | None = None, **changes: Any) -> Policy:
    released = {"members": Release(**{**RELEASE, **(dataset or {})})}
    return Policy(**{**ALLOWED, "release": released, **changes})


def _refusal(policy: Policy, terms: Terms = TERMS) -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as caught:
        policy.check(terms)
    return caught.value


def test_a_policy_that_allows_all_that_is_asked_grants_it() -> None:
    assert _policy().check(TERMS) == Grant(("age", "sex"), 50)


REFUSALS = [
    ("policy.kind", {"kinds": ()}, {"party": "insurer", "kind": "vertical"}),
    ("policy.purpose", {"purposes": ("marketing",)}, {"party": "insurer"}),
    ("policy.peer", {"peers": ("clinic",)}, {"party": "insurer", "peer": "lab"}),
    ("policy.dataset", {"release": {}}, {"party": "insurer", "dataset": "members"}),
    ("policy.epochs", {"max_epochs": 29}, {"party": "insurer", "asked": 30, "allowed": 29}),
]


@pytest.mark.parametrize(("code", "changes", "facts"), REFUSALS, ids=[case[0] for case in REFUSALS])
def test_what_the_policy_lacks_is_refused_by_name(code: str, changes: dict[str, Any], facts: dict[str, Any]) -> None:
    refusal = _refusal(_policy(**changes))
    assert (refusal.code, refusal.facts) == (code, facts)


RELEASES = [
    ("policy.column", {"columns": ("age",)}, {"party": "insurer", "dataset": "members", "column": "sex"}),
    ("policy.label", {"labels": ("age",)}, {"party": "insurer", "column": "died"}),
    ("policy.membership", {"may_learn_membership": ()}, {"party": "insurer", "peer": "lab"}),
]


@pytest.mark.parametrize(("code", "release", "facts"), RELEASES, ids=[case[0] for case in RELEASES])
def test_what_the_dataset_does_not_release_is_refused_by_name(
    code: str, release: dict[str, Any], facts: dict[str, Any]
) -> None:
    refusal = _refusal(_policy(dataset=release))
    assert (refusal.code, refusal.facts) == (code, facts)


def test_a_label_is_no_column_and_a_column_no_label() -> None:
    assert _refusal(_policy(), replace(TERMS, columns=("died",), labels=())).code == "policy.column"
    assert _refusal(_policy(), replace(TERMS, labels=("age",))).code == "policy.label"


def test_a_star_stands_for_what_is_released_and_nothing_else() -> None:
    assert _policy().check(replace(TERMS, columns=("*",))).columns == ("age", "sex", "smoker")
    assert _policy().check(replace(TERMS, columns=("sex", "*"))).columns == ("sex", "age", "smoker")
    assert _policy(dataset={"columns": ()}).check(replace(TERMS, columns=("*",))).columns == ()
    assert _refusal(_policy(), replace(TERMS, columns=("*", "postcode"))).facts["column"] == "postcode"


def test_a_label_is_not_among_the_features_that_a_star_stands_for() -> None:
    policy = _policy(dataset={"columns": ("age", "died")})
    assert policy.check(replace(TERMS, columns=("*",))).columns == ("age",)


def test_a_policy_can_name_every_kind_of_job_and_no_other() -> None:
    assert Policy(kinds=KINDS).kinds == KINDS
    with pytest.raises(ValidationError, match="Input should be"):
        Policy(kinds=("diagonal",))  # type: ignore[arg-type]


def test_a_star_cannot_stand_in_a_policy() -> None:
    for field in ("columns", "labels", "may_learn_membership"):
        with pytest.raises(ValidationError, match="a policy names each one"):
            _policy(dataset={field: ("*",)})


@pytest.mark.parametrize("purpose", ["MORTALITY RISK", " mortality\n risk", "mortality  risk"])
def test_case_and_spaces_do_not_change_a_purpose(purpose: str) -> None:
    assert _policy().check(replace(TERMS, purpose=purpose))


@pytest.mark.parametrize("purpose", ["", "mortalityrisk", "mortality risk and marketing", "mortality"])
def test_words_do(purpose: str) -> None:
    assert _refusal(_policy(), replace(TERMS, purpose=purpose)).code == "policy.purpose"


@pytest.mark.parametrize(("job", "policy", "floor"), [(20, 50, 50), (50, 20, 50), (50, 50, 50)])
def test_the_higher_floor_holds(job: int, policy: int, floor: int) -> None:
    assert _policy(dataset={"at_least": policy}).check(replace(TERMS, at_least=job)).at_least == floor


def test_every_peer_and_every_learner_has_to_be_allowed() -> None:
    three = replace(TERMS, peers=("lab", "clinic"))
    assert _refusal(_policy(), three).facts["peer"] == "clinic"
    learners = replace(TERMS, membership_learners=("lab", "clinic"))
    assert _refusal(_policy(), learners).facts["peer"] == "clinic"


def test_a_release_without_a_floor_lets_nobody_be_linked_and_no_number_be_told() -> None:
    assert _refusal(_policy(dataset={"at_least": None})).code == "policy.no_floor"
    assert _refusal(_policy(), replace(TERMS, cohort=5)).code == "policy.cohort"
    for field in ("at_least", "cohort"):
        with pytest.raises(ValidationError):
            Release(**{field: 0})


@pytest.mark.parametrize(("job", "policy", "cohort"), [(5, 10, 10), (10, 5, 10)])
def test_the_higher_cohort_holds(job: int, policy: int, cohort: int) -> None:
    assert _policy(dataset={"cohort": policy}).check(replace(TERMS, cohort=job)).cohort == cohort


def test_rounds_own_models_and_plain_updates_have_to_be_allowed() -> None:
    rounds = replace(TERMS, rounds=30)
    assert _refusal(_policy(), rounds).facts == {"party": "insurer", "asked": 30, "allowed": 0}
    assert _policy(max_rounds=30).check(rounds)
    model = replace(TERMS, model="ours.Net")
    assert (
        _refusal(
            _policy(
                models=("ours.Net2", "ours"),
            ),
            model,
        ).code
        == "policy.model"
    )
    assert _policy(models=("ours.Net",)).check(model)
    plain = replace(TERMS, plain_updates=True)
    assert _refusal(_policy(), plain).code == "policy.plain_updates"
    assert _policy(plain_updates="allow").check(plain)


def test_a_coordinator_is_granted_no_column_and_refused_like_anybody() -> None:
    coordinator = Terms("horizontal", "mortality risk", "hub", ("lab",), None)
    assert Policy(kinds=("horizontal",), purposes=("mortality risk",), peers=("lab",)).check(coordinator) == Grant()
    assert _refusal(Policy(), coordinator).code == "policy.kind"


names = st.sampled_from(["lab", "clinic", "age", "sex", "died", "members", "*", ""])


@given(
    kind=st.sampled_from(["vertical", "horizontal", ""]),
    purpose=st.text(max_size=20),
    peers=st.lists(names, max_size=3).map(tuple),
    dataset=names,
    columns=st.lists(names, max_size=3).map(tuple),
    labels=st.lists(names, max_size=1).map(tuple),
    epochs=st.integers(0, 100),
)
def test_an_empty_policy_denies_everything(**asked: Any) -> None:
    terms = replace(TERMS, **asked, membership_learners=asked["peers"])
    assert _refusal(Policy(), terms).exit_code == 3


@given(columns=st.lists(names, max_size=4).map(tuple), released=st.sets(st.sampled_from(["age", "sex", "died"])))
def test_nothing_is_granted_that_is_not_released(columns: tuple[str, ...], released: set[str]) -> None:
    policy = _policy(dataset={"columns": tuple(released)})
    try:
        granted = policy.check(replace(TERMS, columns=columns)).columns
    except PolicyRefusal:
        assert set(columns) - released - {"*"}
    else:
        assert set(granted) <= released
        assert len(set(granted)) == len(granted)


# --- who may start what ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate", "span"),
    [
        ("4 per day", Rate(4, "day"), timedelta(hours=24)),
        ("1 per hour", Rate(1, "hour"), timedelta(minutes=60)),
        (" 20  PER Week\n", Rate(20, "week"), timedelta(days=7)),
        ("999999 per month", Rate(999_999, "month"), timedelta(days=30)),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate, span: timedelta) -> None:
    assert parse_rate(text) == rate
    assert rate.span == span
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "4", 4, "per day", "0 per day", "-1 per day", "4 per year", "4 a day", "4/day", "1.5 per day",
             "4 per day per day", "1000000 per day", "٤ per day", None, ["4 per day"], {"count": 4, "window": "day"}]
)  # fmt: skip
def test_anything_else_is_no_rate_and_says_how_to_write_one(text: Any) -> None:
    with pytest.raises(ValidationError, match="such as '4 per day'"):
        Policy.model_validate({"starts": {"insurer": {"vertical": text}}})


def test_a_party_yaml_says_where_its_rate_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "party.yaml").write_text("name: lab\npolicy: {starts: {insurer: {vertical: often}}}\n")
    with pytest.raises(InputError) as caught:
        PartyHome(tmp_path / "lab")
    assert caught.value.facts == {
        "party": "lab",
        "field": "policy.starts.insurer.vertical",
        "problem": "a rate is a number per hour, day, week or month, such as '4 per day'",
    }


def test_nobody_may_start_anything_unless_the_policy_names_the_member_and_the_kind() -> None:
    assert Policy().rate("insurer", "vertical") is None
    policy = Policy.model_validate({"starts": {"insurer": {"vertical": "4 per day"}}})
    assert policy.rate("insurer", "vertical") == Rate(4, "day")
    assert policy.rate("insurer", "statistics") is None
    assert policy.rate("lab", "vertical") is None
    assert Policy.model_validate({"starts": {"insurer": {}}}).rate("insurer", "vertical") is None


def test_starters_and_kinds_are_named_one_by_one() -> None:
    with pytest.raises(ValidationError, match="a policy names each member"):
        Policy.model_validate({"starts": {"*": {"vertical": "4 per day"}}})
    for wrong in ({"starts": {"insurer": {"diagonal": "4 per day"}}}, {"approve": ["*"]}):
        with pytest.raises(ValidationError, match="Input should be"):
            Policy.model_validate(wrong)


def test_a_policy_survives_json() -> None:
    policy = Policy.model_validate({"starts": {"insurer": {"vertical": "4 per day"}}, "approve": ["transfer"]})
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert policy.model_dump()["starts"] == {"insurer": {"vertical": "4 per day"}}


def test_who_may_start_and_what_waits_change_nothing_of_what_a_job_gets() -> None:
    policy = _policy(starts={"clinic": {"vertical": "1 per day"}}, approve=("vertical",))
    assert policy.check(TERMS) == _policy().check(TERMS)
