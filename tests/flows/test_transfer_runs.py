"""Whole transfer jobs: what comes out, what leaves, what a second attempt makes of the first."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.flows.check import check_job
from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.errors import InputError, InternalError, IsthmusError
from isthmus.parties.events import Chosen, Count, Curve, Metric, Phase, Resumed, Traffic
from isthmus.parties.network import channel
from isthmus.parties.network.message import Message, Step, Topic
from isthmus.transfer import gate
from isthmus.transfer.linear import LinearModel

RUN = "test-job-1"


@pytest.fixture(autouse=True)
def few_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cut into folds: what is asked here does not hang on how steady the gate is."""
    monkeypatch.setattr(gate, "_REPEATS", 1)
    monkeypatch.setattr(gate, "FOLDS", 3)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Every message that any party lays out to be sent."""
    found: list[Message] = []
    original = channel.encode

    def noting(message: Message) -> Sequence[Any]:
        found.append(message)
        return original(message)

    monkeypatch.setattr(channel, "encode", noting)
    return found


def _twin(world: Any, folder: Path) -> Any:
    """A copy of a world with all that it has aligned: only so two runs put the patients in one order."""
    twin = copy.copy(world)
    twin.folder, twin.homes, twin.runs = folder, folder / "homes", folder / "runs"
    shutil.copytree(world.homes, twin.homes)
    return twin


def _given(sent: Sequence[Message]) -> np.ndarray:
    chunks = [array for message in sent if message.step is Step.EMBEDDING for array in message.arrays.values()]
    return np.concatenate(chunks)


def _parts(world: Any) -> dict[str, Any]:
    """What every party has kept, by party and file."""
    paths = world.homes.glob("*/models/*/*")
    return {f"{path.parts[-4]} {path.stem}": read_tensors(path)[0] for path in paths}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        part.keys() == other[name].keys() and all(np.array_equal(part[key], other[name][key]) for key in part)
        for name, part in one.items()
    )


def test_a_target_keeps_what_its_gate_chose_and_a_model_that_it_runs_alone(transfer_world: Any) -> None:
    journal = transfer_world.run_inside()
    assert [event.of for _, event in journal.of(Chosen)] == ["transferred"]
    counts = {event.name: event.value for party, event in journal.of(Count) if party == "lab"}
    assert (counts["shared"], counts["labelled"], counts["own_labelled"], counts["soft_labels"]) == (70, 60, 30, 70)
    told = {(event.of, event.part): event for _, event in journal.of(Metric) if event.name == "auc"}
    validated = {(of, "validation") for of in ("target", "source", "transferred", "distilled")}
    assert told.keys() == {*validated, ("chosen", "test")}
    assert all(event.rows == 60 for event in told.values())
    (gain,) = [e.value for _, e in journal.of(Metric) if (e.name, e.of) == ("auc_gain", "transferred")]
    expected = told["transferred", "validation"].value - told["target", "validation"].value
    assert gain == pytest.approx(expected)
    assert _parts(transfer_world).keys() == {"insurer part", "lab part", "lab distilled"}
    for name, width in (("part", 1), ("distilled", 0)):
        arrays, meta = read_tensors(next(transfer_world.homes.glob(f"lab/models/*/{name}.safetensors")))
        assert len(LinearModel.from_tensors(arrays, meta).mean) == width


def test_nothing_but_the_scores_of_shared_patients_leaves_the_source_after_the_alignment(
    transfer_world: Any, sent: list[Message]
) -> None:
    said = {(item.sender, item.receiver, item.topic): item.nbytes for item in check_job(
        transfer_world.load_job(), transfer_world.homes
    ).leaving}  # fmt: skip
    journal = transfer_world.run_inside()
    learning = [message for message in sent if message.topic not in (Topic.AGREE, Topic.ALIGN)]
    assert {message.topic for message in learning} == {Topic.TRAIN}
    arrays = [array for message in learning for array in message.arrays.values()]
    assert [array.shape for array in arrays] == [(70, 1)]
    fields = [dict(message.fields) for message in learning if message.fields]
    assert [one for one in fields if one.keys() not in ({"working"}, {"chunk"}, {"end"})] == [
        {"rows": 70, "width": 1}, {"split": False},
    ]  # fmt: skip
    left = {(party, event.peer, event.topic): event.sent for party, event in journal.of(Traffic) if event.sent}
    assert left.keys() == said.keys()
    assert {way: nbytes for way, nbytes in left.items() if nbytes > said[way]} == {}


def test_what_is_told_of_a_patient_does_not_hang_on_that_patients_own_label_at_the_source(
    transfer_world: Any, sent: list[Message], tmp_path: Path
) -> None:
    transfer_world.run_inside(phases=ALIGN_PHASES)
    twin = _twin(transfer_world, tmp_path / "twin")
    transfer_world.run_inside()
    before = _given(sent)
    sent.clear()
    twin.sql("insurer", "UPDATE t SET died = 1 - died WHERE id = 'i0200'")
    twin.run_inside()
    unlike = np.flatnonzero(_given(sent) != before)
    order = _order(transfer_world)
    assert order.index("l0200") not in unlike
    assert len(unlike) > 40  # of all others whose model has learnt that label


def _order(world: Any) -> list[str]:
    from isthmus.parties.home import PartyHome
    from isthmus.parties.state import State

    alignment = State(PartyHome(world.homes / "lab")).load_alignment(RUN)
    assert alignment is not None
    return list(alignment.row_ids)


@pytest.mark.parametrize("broken", [("lab", Phase.TRAIN), ("insurer", Phase.TRAIN), ("lab", Phase.EVALUATE)], ids=str)
def test_a_second_attempt_ends_with_the_models_of_one_that_was_not_stopped(
    transfer_world: Any, tmp_path: Path, broken: tuple[str, Phase]
) -> None:
    transfer_world.run_inside(phases=ALIGN_PHASES)
    twin = _twin(transfer_world, tmp_path / "twin")
    twin.run_inside()
    with pytest.raises(InternalError) as caught:
        transfer_world.run_inside(leaves=dict([broken]), timeout_s=10)
    assert (caught.value.code, caught.value.facts) == ("internal", {"party": broken[0]})
    assert not [name for name in _parts(transfer_world) if name.startswith("lab")]
    journal = transfer_world.run_inside()
    reloaded = [event.model for party, event in journal.of(Resumed) if event.phase is Phase.PREPARE]
    assert reloaded == [1, 2, 3]
    assert _same(_parts(transfer_world), _parts(twin))


def test_a_target_without_labels_learns_from_the_sources_scores(transfer_world: Any) -> None:
    transfer_world.job["target"].pop("label")
    journal = transfer_world.run_inside()
    (fidelity,) = [event for _, event in journal.of(Metric) if event.of == "distilled"]
    assert (fidelity.name, fidelity.part) == ("r2", "validation")
    assert not list(journal.of(Chosen))
    (part,) = transfer_world.homes.glob("lab/models/*/*")
    assert read_tensors(part)[1]["kind"] == "distilled"


def test_a_source_without_a_label_gives_an_embedding(transfer_world: Any, sent: list[Message]) -> None:
    transfer_world.job["source"].pop("label")
    transfer_world.job |= {"give": "embedding"}
    transfer_world.job["pretraining"] |= {"how": "self_supervised"}
    transfer_world.run_inside()
    assert _given(sent).shape == (70, 4)


def test_both_train_on_together_where_enough_is_shared(transfer_world: Any) -> None:
    transfer_world.sql("lab", "UPDATE t SET died = 1 WHERE died IS NULL")
    transfer_world.job["split"] = {"at_least": 60, "epochs": 3, "batch_size": 16, "top": [4]}
    # Of each outcome there may be few among the 14 who are held out: which they are is another in every alignment.
    transfer_world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(cohort=1))
    said = {(item.sender, item.receiver, item.topic): item.nbytes for item in check_job(
        transfer_world.load_job(), transfer_world.homes
    ).leaving}  # fmt: skip
    journal = transfer_world.run_inside()
    held_out = {event.of for _, event in journal.of(Metric) if event.part == "test" and event.name == "auc"}
    assert held_out == {"target", "source", "transferred", "split", "chosen"}
    assert list(transfer_world.homes.glob("insurer/models/*/tuned.safetensors"))
    left = {(party, event.peer, event.topic): event.sent for party, event in journal.of(Traffic) if event.sent}
    assert left.keys() == said.keys()
    assert {way: nbytes for way, nbytes in left.items() if nbytes > said[way]} == {}


def test_patients_without_an_outcome_keep_the_parties_from_training_on(transfer_world: Any) -> None:
    transfer_world.job["split"] = {"at_least": 50}
    journal = transfer_world.run_inside()
    assert not [event for _, event in journal.of(Metric) if event.of == "split"]


def test_a_transfer_that_does_harm_is_told_and_not_used(transfer_world: Any) -> None:
    transfer_world.sql("insurer", "UPDATE t SET died = CAST(substr(id, 5, 1) AS INTEGER) % 2")  # says nothing, in
    transfer_world.job["pretraining"] |= {"hidden": [16, 16]}  # many words
    transfer_world.job |= {"give": "embedding", "fit": {"c": 1_000}}
    transfer_world.edit_party("insurer", lambda content: content["policy"].update(max_embedding=16))
    journal = transfer_world.run_inside()
    assert [event.of for _, event in journal.of(Chosen)] == ["target"]
    losses = {event.of: event.value for _, event in journal.of(Metric) if event.name == "log_loss"}
    assert losses["transferred"] > losses["target"]
    assert len(list(transfer_world.homes.glob("lab/models/*/*"))) == 1


def test_a_policy_that_publishes_nothing_lets_no_number_of_the_gate_go(transfer_world: Any) -> None:
    transfer_world.edit_party("lab", lambda content: content["policy"].update(publish=[]))
    journal = transfer_world.run_inside()
    assert not [event for _, event in journal.events if isinstance(event, Chosen | Metric)]
    assert {party for party, _ in journal.of(Count)} == {"insurer"}
    (part,) = transfer_world.homes.glob("lab/models/*/part.safetensors")
    assert read_tensors(part)[1]["kind"] in gate.CANDIDATES  # so there was something to tell


def test_few_patients_of_an_outcome_are_not_told_of(transfer_world: Any) -> None:
    transfer_world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(cohort=40))
    journal = transfer_world.run_inside()
    assert not list(journal.of(Metric))
    assert not list(journal.of(Chosen))
    assert not list(journal.of(Curve))
    counts = {event.name for party, event in journal.of(Count) if party == "lab" and event.linkage_pass is None}
    assert counts == {"rows", "columns", "shared"}  # soft labels would tell what the gate chose


def test_patients_held_out_of_tuning_are_told_of_only_if_they_are_enough_by_themselves(transfer_world: Any) -> None:
    transfer_world.sql("lab", "UPDATE t SET died = 1 WHERE died IS NULL")
    transfer_world.job["split"] = {"at_least": 60, "epochs": 1, "batch_size": 16, "top": [4]}
    transfer_world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(cohort=15))
    journal = transfer_world.run_inside()
    assert {event.part for _, event in journal.of(Metric)} == {"validation"}
    assert not list(journal.of(Curve))


def test_in_one_run_a_patient_is_told_of_by_one_embedding_alone(transfer_world: Any) -> None:
    with pytest.raises(IsthmusError):  # the target takes the numbers, and then breaks down
        transfer_world.run_inside(leaves={"lab": Phase.EVALUATE, "insurer": Phase.CLOSE}, timeout_s=10)
    transfer_world.sql("insurer", "UPDATE t SET died = 1 - died WHERE id = 'i0200'")
    with pytest.raises(InputError) as caught:
        transfer_world.run_inside(timeout_s=10)
    assert caught.value.code == "embedding.repeated"
    transfer_world.run_inside(fresh=True, run="test-job-2")


def test_an_unlabelled_targets_numbers_ask_for_a_cohort_too(transfer_world: Any) -> None:
    transfer_world.job["target"].pop("label")
    transfer_world.edit_party("lab", lambda content: content["policy"]["release"]["results"].update(cohort=71))
    journal = transfer_world.run_inside()
    assert not list(journal.of(Metric))
