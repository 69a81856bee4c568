"""What is wrong with a transfer job, its homes or its data is said with a code, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isthmus.flows.check import check_job
from isthmus.flows.kinds.transfer.job import TransferJob
from isthmus.parties.errors import InputError, InternalError, IsthmusError
from isthmus.parties.events import Phase

Change = Callable[[dict[str, Any]], Any]


def _refused(world: Any, code: str, exit_code: int, **options: Any) -> IsthmusError:
    with pytest.raises(IsthmusError) as caught:
        world.run_inside(**options)
    assert caught.value.code == code, caught.value.text()
    assert caught.value.exit_code == exit_code
    assert not list(world.homes.glob("*/models/*/*"))
    assert not list(world.homes.rglob("*.partial"))
    return caught.value


def _job(**changes: Any) -> Change:
    return lambda job: job.update(changes)


def _of(party: str, **changes: Any) -> Change:
    return lambda job: job[party].update(changes)


JOBS = [
    ("an unlabelled target without distillation", [_of("target", label=None), _job(distill=False)], "no label"),
    ("an unlabelled target with an embedding", [_of("target", label=None), _job(give="embedding")], "no label"),
    ("a supervised source without a label", [_of("source", label=None)], "learns from a label and none is named"),
    ("a self-supervised source with a label", [_job(pretraining={"how": "self_supervised"})], "learns without a label"),
    (
        "a score without a label",
        [_of("source", label=None), _job(pretraining={"how": "self_supervised"})],
        "there is no score",
    ),
    ("a source without columns", [_of("source", columns=[])], "brings no columns"),
    ("one party twice", [_of("source", name="lab")], "the same name"),
    ("a label among the columns", [_of("source", columns=["age", "died"])], "cannot be a column as well"),
    ("tuning without a label", [_of("target", label=None), _job(split={"at_least": 100})], "needs a label"),
    ("shares that leave nothing", [_job(split={"validation_share": 0.45, "test_share": 0.4})], "less than a fifth"),
    ("one fold", [_job(pretraining={"folds": 1})], "greater than or equal to 2"),
    ("a kind of gift that there is not", [_job(give="rows")], "'score' or 'embedding'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in JOBS], ids=[case[0] for case in JOBS])
def test_what_no_job_can_be_is_said_when_it_is_read(transfer_world: Any, changes: list[Change], words: str) -> None:
    for change in changes:
        change(transfer_world.job)
    with pytest.raises(InputError, match=words) as caught:
        TransferJob.from_file(transfer_world.job_file())
    assert caught.value.code == "job.invalid"


def _policy(**changes: Any) -> Change:
    return lambda content: content["policy"].update(changes)


def _release(dataset: str, **changes: Any) -> Change:
    return lambda content: content["policy"]["release"][dataset].update(changes)


POLICY = [
    ("policy.kind", "insurer", _policy(kinds=["vertical"])),
    ("policy.embedding", "insurer", _policy(max_embedding=0)),
    ("policy.label", "insurer", _release("members", labels=[])),
    ("policy.label", "lab", _release("results", labels=[])),
    ("policy.cohort", "lab", _release("results", cohort=None)),
    ("policy.membership", "lab", _release("results", may_learn_membership=[])),
    ("policy.cohort", "insurer", _release("members", cohort=None)),
    ("policy.too_few", "insurer", _release("members", cohort=24)),
    ("policy.epochs", "insurer", _policy(max_epochs=5)),
    ("policy.no_floor", "insurer", _release("members", at_least=None)),
    ("policy.too_few", "insurer", _release("members", at_least=71)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "party", "change"), POLICY, ids=[f"{case[0]} {case[1]}" for case in POLICY])
def test_what_a_party_does_not_allow_is_refused(transfer_world: Any, code: str, party: str, change: Change) -> None:
    transfer_world.edit_party(party, change)
    _refused(transfer_world, code, 3)


def test_a_policy_that_says_nothing_of_embeddings_lets_none_go(transfer_world: Any) -> None:
    transfer_world.edit_party("insurer", lambda content: content["policy"].pop("max_embedding"))
    error = _refused(transfer_world, "policy.embedding", 3)
    assert "lets 0 numbers of each shared patient leave, the job asks 1" in error.text()


@pytest.mark.parametrize("change", [_job(give="embedding"), _job(split={"at_least": 50})], ids=["given", "tuned"])
def test_an_embedding_wider_than_the_policy_allows_is_refused_also_where_tuning_would_send_it(
    transfer_world: Any, change: Change
) -> None:
    transfer_world.edit_party("insurer", _policy(max_embedding=3))
    change(transfer_world.job)
    _refused(transfer_world, "policy.embedding", 3)


DATA = [
    ("transfer.unlabelled", "lab", "UPDATE t SET died = NULL"),
    ("transfer.few_labels", "lab", "UPDATE t SET died = NULL WHERE id >= 'l0170' AND id NOT IN ('l0171', 'l0172')"),
    ("data.label_missing", "insurer", "UPDATE t SET died = NULL WHERE id = 'i0003'"),
    ("data.label_constant", "insurer", "UPDATE t SET died = 1"),
    ("data.label_not_binary", "lab", "UPDATE t SET died = 2 WHERE id = 'l0171'"),
    ("embedding.constant", "insurer", "UPDATE t SET age = 0.5, sex = 'low' WHERE id >= 'i0140'"),
    ("data.column_empty", "insurer", "UPDATE t SET age = NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "party", "change"), DATA, ids=[case[0] for case in DATA])
def test_data_that_nothing_can_be_learnt_from_are_named(
    transfer_world: Any, code: str, party: str, change: str
) -> None:
    transfer_world.sql(party, change)
    _refused(transfer_world, code, 2)


def test_without_a_shared_patient_nothing_but_that_they_are_too_few_is_said(transfer_world: Any) -> None:
    transfer_world.sql("lab", "UPDATE t SET ssn = 'Y' || ssn, sur = 'Y' || sur")
    _refused(transfer_world, "policy.too_few", 3)


def test_a_check_says_beforehand_what_a_run_would_stumble_over(transfer_world: Any) -> None:
    transfer_world.sql("lab", "UPDATE t SET died = NULL")
    error = check_job(transfer_world.load_job(), transfer_world.homes).error
    assert error is not None
    assert error.code == "transfer.unlabelled"


def test_a_check_says_who_learns_what(transfer_world: Any) -> None:
    transfer_world.job["split"] = {"at_least": 50}
    learns = check_job(transfer_world.load_job(), transfer_world.homes).learns
    said = [f"{who}: {what}" for who, what in learns]
    assert any("lab: one number of each shared patient" in line for line in said)
    assert any("insurer: which of its patients lab has too" in line for line in said)
    assert any("insurer: then gradients, from which lab's label" in line for line in said)


def test_a_phase_out_of_its_turn_is_not_begun(transfer_world: Any) -> None:
    error = _refused(transfer_world, "internal", 1, phases=[Phase.AGREE, Phase.PREPARE, Phase.CLOSE])
    assert isinstance(error, InternalError)
