from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.errors import PeerFailure
from isthmus.vertical import EpochReport

Make = Callable[..., Any]
MOMENTS = ["in an epoch", "at the end of an epoch", "before saving", "after saving"]


class Killed(Exception):
    """Stands for a process that ends in mid-work."""


class FailingCheckpoints(Checkpoints):
    """Fails at one step, just before or just after writing it."""

    def __init__(self, folder: Path, party: str, step: int, moment: str) -> None:
        super().__init__(folder, party=party)
        self._step, self._moment = step, moment

    def save(self, step: int, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        if step == self._step and self._moment == "before saving":
            raise Killed
        super().save(step, arrays, meta)
        if step == self._step and self._moment == "after saving":
            raise Killed


def killed_at(party: str, epoch: int, moment: str, folder: Path) -> dict[str, Any]:
    """Options of a run in which one party ends at a moment."""

    def on_epoch(report: EpochReport) -> None:
        last = report.batch == report.batches
        if report.epoch == epoch and report.resumed_from is None:
            if moment == "in an epoch" and report.batch == 4:
                raise Killed
            if moment == "at the end of an epoch" and last:
                raise Killed

    return {
        "on_epoch": {party: on_epoch},
        "checkpoints": {party: FailingCheckpoints(folder / party, party, epoch, moment)},
    }


def steps(folder: Path, *parties: str) -> dict[str, list[int]]:
    return {party: Checkpoints(folder / party, party=party).steps() for party in parties}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("party", ["insurer", "lab"])
def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(
    party: str, epoch: int, moment: str, make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab", epochs=4)
    whole = run_split(case, tmp_path / "whole")
    stopped = run_split(case, tmp_path / "parts", **killed_at(party, epoch, moment, tmp_path / "parts"))
    assert isinstance(stopped.parts[party], Killed)
    (other,) = {"insurer", "lab"} - {party}
    if epoch < 4 and moment != "at the end of an epoch":
        assert isinstance(stopped.parts[other], PeerFailure)
    again = run_split(case, tmp_path / "parts")
    assert_same(again.weights(), whole.weights())
    assert again.scores.tobytes() == whole.scores.tobytes()
    assert again.parts["insurer"].best_epoch == whole.parts["insurer"].best_epoch


def test_a_party_that_saved_goes_back_to_the_step_that_both_have(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab", epochs=4)
    run_split(case, tmp_path, **killed_at("lab", 3, "before saving", tmp_path))
    assert steps(tmp_path, "insurer", "lab") == {"insurer": [2, 3], "lab": [1, 2]}
    reports: dict[str, list[EpochReport]] = {"insurer": [], "lab": []}
    again = run_split(case, tmp_path, on_epoch={party: found.append for party, found in reports.items()})
    assert_same(again.weights(), run_split(case, tmp_path / "whole").weights())
    for found in reports.values():
        # Epochs 1 and 2 are told again, the second with the word that training went on from there.
        ended = [(report.epoch, report.resumed_from) for report in found if report.batch == report.batches]
        assert ended == [(1, None), (2, 2), (3, None), (4, None)]
        assert [report.epoch for report in found if report.batch == 1] == [3, 4]


def test_the_report_of_a_resumed_training_has_the_figures_of_an_uninterrupted_one(
    make_case: Make, run_split: Make, tmp_path: Path
):
    case, figures = make_case("lab", epochs=4), []
    run_split(case, tmp_path / "parts", **killed_at("insurer", 3, "in an epoch", tmp_path / "parts"))
    for folder in ("parts", "whole"):
        reports: list[EpochReport] = []
        run_split(case, tmp_path / folder, on_epoch={"insurer": reports.append})
        figures.append([(r.epoch, r.loss, r.validation_auc) for r in reports if r.loss is not None])
    assert figures[0] == figures[1]
    assert len(figures[0]) == 4


def test_a_training_that_was_stopped_twice_by_either_side_ends_as_if_it_had_not_been(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case, folder = make_case("lab", "clinic", epochs=5, patience=5), tmp_path / "parts"
    run_split(case, folder, **killed_at("clinic", 2, "before saving", folder))
    run_split(case, folder, **killed_at("insurer", 4, "after saving", folder))
    assert_same(run_split(case, folder).weights(), run_split(case, tmp_path / "whole").weights())


@pytest.mark.parametrize("party", ["insurer", "lab"])
def test_a_training_that_had_already_stopped_is_not_gone_on_with(
    party: str, make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab", epochs=40, patience=2, learning_rate=0.05)
    whole = run_split(case, tmp_path / "whole")
    last = whole.parts["insurer"].best_epoch + 2
    assert last < 40
    folder = tmp_path / "parts"
    run_split(case, folder, **killed_at(party, last, "at the end of an epoch", folder))
    reports: list[EpochReport] = []
    again = run_split(case, folder, on_epoch={"lab": reports.append})
    assert_same(again.weights(), whole.weights())
    assert again.scores.tobytes() == whole.scores.tobytes()
    assert {report.batch for report in reports} == {reports[0].batches}, "it trained again"
    assert reports[-1].epoch == last


def test_a_finished_training_that_is_run_again_trains_no_more(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab")
    first = run_split(case, tmp_path)
    again = run_split(case, tmp_path)
    assert_same(again.weights(), first.weights())
    assert len(again.frames) < len(first.frames) / 4


@pytest.mark.parametrize("other", [{"jobs": "3" * 64}, {"alignments": "3" * 64}])
def test_checkpoints_of_another_job_or_alignment_are_not_gone_on_from(
    other: dict[str, str], make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab")
    ((name, digest),) = other.items()
    options = {name: dict.fromkeys(("insurer", "lab"), digest)}
    run_split(case, tmp_path / "used")
    found = run_split(case, tmp_path / "used", **options)
    assert_same(found.weights(), run_split(case, tmp_path / "fresh", **options).weights())


def test_a_party_without_its_checkpoints_makes_all_begin_again(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab")
    first = run_split(case, tmp_path)
    Checkpoints(tmp_path / "lab", party="lab").clear()
    again = run_split(case, tmp_path)
    assert_same(again.weights(), first.weights())
    assert len(again.frames) == len(first.frames)
