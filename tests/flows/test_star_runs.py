"""Whole horizontal and statistics jobs: what comes out, who may drop out, what may be asked again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.flows.kinds import room
from isthmus.flows.report import summarise, write_report
from isthmus.flows.runs import open_run
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.errors import IsthmusError, PolicyRefusal
from isthmus.parties.events import Drift, Failed, Metric, Phase, Round
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.message import Topic

FIVE = ("north", "south", "east", "west", "central")


def _weights(star: Any, run: str = "star-job-1") -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    found = {}
    for name in star.parties:
        path = star.homes / name / "models" / run / "part.safetensors"
        if path.is_file():
            found[name] = read_tensors(path)[0]
    return found


def test_every_hospital_ends_with_the_same_model_and_the_report_says_how_good_it_is(star: Any) -> None:
    journal = star.run_inside()
    weights = _weights(star)
    assert list(weights) == ["north", "south", "east"]
    for name, value in weights["north"].items():
        assert np.array_equal(value, weights["south"][name])
        assert np.array_equal(value, weights["east"][name])
    pooled = {event.name for party, event in journal.of(Metric) if party == "hub" and event.of == "pooled"}
    assert {"auc", "brier", "accuracy"} <= pooled
    assert [event.round for _, event in journal.of(Round)] == [0, 1, 2, 3]
    assert {party for party, _ in journal.of(Drift)} == set(star.parties)
    for name in star.parties:
        own = {(event.of, event.name) for party, event in journal.of(Metric) if party == name}
        assert {("own", "auc"), ("alone", "auc")} <= own
    with open_run(star.runs, star.load_job()) as run:
        report = write_report(run.folder, summarise(star.load_job(), journal, run.record))
    assert "north" in report.page.read_text()


def test_what_left_each_member_is_in_its_ledger(star: Any) -> None:
    star.job["alone"] = False
    star.run_inside()
    for name in star.members:
        ledger = Ledger(PartyHome(star.homes / name))
        ledger.verify()
        peers = {"hub"} if name != "hub" else set(star.parties)
        topics = {Topic.AGREE, Topic.STATISTICS, Topic.SETUP, Topic.TRAIN, Topic.EVALUATE}
        closed = {(entry.peer, entry.topic) for entry in ledger.entries() if entry.event == "close"}
        assert closed == {(peer, topic) for peer in peers for topic in topics}


@pytest.mark.parametrize("model", ["cox", "linear"])
def test_linear_models_learn_numbers_and_survival(star: Any, model: str) -> None:
    star.job |= {"model": {"kind": model}, "alone": False}
    star.job["label"] = {
        "cox": {"duration": "days", "event": "dead"},
        "linear": {"column": "days", "task": "regression"},
    }[model]
    star.job["rounds"]["learning_rate"] = 0.001
    journal = star.run_inside()
    main = room("horizontal", "report").MAIN[star.load_job().task][0]
    assert [event.value for party, event in journal.of(Metric) if party == "hub" and event.name == main]


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.TRAIN, Phase.EVALUATE])
def test_a_party_that_breaks_down_is_left_out_above_the_quorum(make_star: Any, tmp_path: Any, phase: Phase) -> None:
    star = make_star(tmp_path, parties=FIVE)
    star.job["alone"] = False
    star.job["rounds"] |= {"count": 2, "quorum": 4}
    journal = star.run_inside(leaves={"south": phase})
    assert set(_weights(star)) >= set(FIVE) - {"south"}
    last = list(journal.of(Round))[-1][1]
    assert set(last.parties) == set(FIVE) - ({"south"} if phase is not Phase.EVALUATE else set())
    (auc,) = (e for p, e in journal.of(Metric) if (p, e.name, e.subgroup) == ("hub", "auc", None))
    assert auc.of == "pooled"


def test_below_the_quorum_the_job_stops_and_says_so(star: Any) -> None:
    star.job["rounds"]["quorum"] = 3
    with pytest.raises(IsthmusError):
        star.run_inside(leaves={"south": Phase.TRAIN})
    codes = {party: failed.code for party, failed in star.journal.of(Failed)}
    assert codes["hub"] == "rounds.quorum"
    assert codes["north"] == codes["east"] == "peer.gone"


def test_a_run_goes_on_after_a_break_down_to_the_same_weights(star: Any, make_star: Any, tmp_path: Any) -> None:
    twin = make_star(tmp_path / "twin")
    for one in (star, twin):
        one.job["strategy"] = "scaffold"
        one.job["alone"] = False
    twin.run_inside()
    with pytest.raises(IsthmusError):
        star.run_inside(leaves={"south": Phase.EVALUATE})
    star.run_inside()
    for name, value in _weights(twin)["north"].items():
        assert np.array_equal(value, _weights(star)["north"][name]), name


def _counts_of(make_star: Any, folder: Any, parties: tuple[str, ...]) -> Any:
    """A statistics job without numbers and curves, of which it takes long to say what may be told."""
    star = make_star(folder, parties=parties, kind="statistics")
    star.job |= {"columns": [column for column in star.job["columns"] if column["name"] == "sex"], "curves": []}
    return star


@pytest.mark.parametrize("kind", ["horizontal", "statistics"])
def test_the_same_job_can_run_again(make_star: Any, tmp_path: Any, kind: str) -> None:
    star = make_star(tmp_path) if kind == "horizontal" else _counts_of(make_star, tmp_path, FIVE[:3])
    star.run_inside("star-job-1")
    star.run_inside("star-job-2")


def test_statistics_are_not_given_again_without_one_party(make_star: Any, tmp_path: Any) -> None:
    star = _counts_of(make_star, tmp_path, FIVE[:4])
    star.run_inside("star-job-1")
    star.job["parties"] = [party for party in star.job["parties"] if party["name"] != "west"]
    with pytest.raises(PolicyRefusal) as caught:
        star.run_inside("star-job-2")
    assert caught.value.code == "secagg.repeated"


def test_statistics_of_other_rows_are_other_statistics(make_star: Any, tmp_path: Any) -> None:
    star = _counts_of(make_star, tmp_path, FIVE[:4])
    star.run_inside("star-job-1")
    star.job["parties"] = [party for party in star.job["parties"] if party["name"] != "west"]
    for name in star.parties:
        star.sql(name, "DELETE FROM t WHERE id LIKE '%0007'")
    star.run_inside("star-job-2")


def test_under_ditto_every_hospital_keeps_a_model_of_its_own(star: Any) -> None:
    star.job |= {"strategy": "ditto", "alone": False}
    star.run_inside()
    weights = _weights(star)
    assert not np.array_equal(weights["north"]["output.weight"], weights["south"]["output.weight"])
