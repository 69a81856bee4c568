"""What `isthmus check` says before a job with a coordinator is what the job then does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.flows import terminal
from isthmus.flows.check import check_job
from isthmus.parties.errors import InputError
from isthmus.parties.events import Traffic

PLAIN = {
    "secure_aggregation": False,
    "strategy": {"name": "fedadam", "transforms": [{"kind": "top_k", "share": 0.5}, {"kind": "int8"}]},
}


def _allow_plain(content: dict[str, Any]) -> None:
    content["policy"]["plain_updates"] = "allow"


def _assert_bounded(world: Any) -> None:
    check = check_job(world.load_job(), world.homes)
    assert check.error is None
    said = {(item.sender, item.receiver, item.topic): item.nbytes for item in check.leaving}
    told = world.run_inside().of(Traffic)
    left = {(party, event.peer, event.topic): event.sent for party, event in told if event.sent}
    assert left.keys() == said.keys()
    assert {way: (nbytes, said[way]) for way, nbytes in left.items() if nbytes > said[way]} == {}
    loose = {way: (nbytes, said[way]) for way, nbytes in left.items() if said[way] > 20 * nbytes + 10_000}
    assert loose == {}


def test_no_more_leaves_than_the_check_said(star: Any) -> None:
    star.job["strategy"] = "scaffold"  # which sends the most
    _assert_bounded(star)


def test_no_more_leaves_in_plain(star: Any) -> None:
    star.job |= PLAIN
    for name in star.members:
        star.edit_party(name, _allow_plain)
    _assert_bounded(star)


def test_no_more_leaves_of_statistics(statistics_star: Any) -> None:
    by_age = {"column": "age", "edges": [50, 60, 70]}
    statistics_star.job["tables"] = [["sex", by_age], [by_age]]
    _assert_bounded(statistics_star)


def test_a_check_leaves_nothing_behind(star: Any) -> None:
    before = sorted(star.homes.rglob("*"))
    assert check_job(star.load_job(), star.homes).error is None
    assert sorted(star.homes.rglob("*")) == before


def test_differences_are_listed_by_party(star: Any, capsys: pytest.CaptureFixture[str]) -> None:
    star.edit_party("south", lambda content: content["datasets"]["stays"].update(units={"age": "months"}))
    star.edit_party("east", lambda content: content["datasets"]["stays"].update(sql="SELECT * EXCLUDE (crea) FROM t"))
    check = check_job(star.load_job(), star.homes)
    assert {asked.party: asked.differences for asked in check.asked if asked.differences} == {
        "south": (("age", "unit"),),
        "east": (("crea", "missing"),),
    }
    with pytest.raises(InputError) as caught:
        terminal.show_check(check, star.homes, json=True)
    assert (caught.value.code, caught.value.facts) == ("schema.differs", {"count": 2})
    facts = json.loads(capsys.readouterr().out)
    assert facts["parties"][1]["differences"] == [{"column": "age", "what": "unit"}]


def test_differences_are_printed_for_people(star: Any) -> None:
    star.edit_party("south", lambda content: content["datasets"]["stays"].update(units={}))
    with terminal.console.capture() as printed, pytest.raises(InputError, match="the job names: 1"):
        terminal.show_check(check_job(star.load_job(), star.homes), star.homes, json=False)
    assert "south: column 'age' has another unit" in printed.get()
    assert "each of 3 parties" in printed.get()  # and not a line for each


def test_the_label_is_looked_at_before_anything_leaves(star: Any) -> None:
    star.job["label"] = {"column": "age"}
    star.job["columns"] = star.job["columns"][1:]
    star.edit_party("north", lambda content: content["policy"]["release"]["stays"]["labels"].append("age"))
    errors = {asked.party: asked.error for asked in check_job(star.load_job(), star.homes).asked}
    assert errors["north"] is not None and errors["north"].code == "data.label_not_binary"
    assert errors["south"] is not None and errors["south"].code == "policy.label"
    assert errors["hub"] is None


def test_a_party_without_the_others_keys_is_told_so(star: Any) -> None:
    star.edit_party("north", lambda content: content["keys"].pop("east"))
    error = check_job(star.load_job(), star.homes).error
    assert error is not None and error.code == "home.key_unknown"


def test_a_model_of_ones_own_is_found_and_not_run(star: Any) -> None:
    star.job["model"] = {"kind": "own", "path": "nowhere.at_all.Net"}
    for name in star.members:
        star.edit_party(name, lambda content: content["policy"].update(models=["nowhere.at_all.Net"]))
    check = check_job(star.load_job(), star.homes)
    assert check.error is not None and check.error.code == "model.unknown"
    assert {item.nbytes for item in check.leaving if item.topic == "train"} == {None}
