"""The page before a run: what it says is what the check says, what docs/security.md says, and of every kind of job."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.flows.cli import main
from isthmus.flows.demo import make_homes
from isthmus.flows.explain import Explanation, explain_job, facts
from isthmus.flows.explain_page import html_page, text_page
from isthmus.flows.jobs import load_job
from isthmus.flows.kinds import KINDS
from isthmus.flows.signed import read_job_file
from isthmus.flows.stands import ADVERSARIES
from isthmus.parties.errors import InputError

from ..consortium import Consortium

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").replace("**", "").replace("`", "")
EXAMPLES = {load_job(path).kind: load_job(path) for path in sorted((ROOT / "examples").glob("*.yaml"))}
ROWS = {"vertical": {"insurer": 4250, "lab": 4250}, "transfer": {"insurer": 4250, "clinic": 750}}


def _elsewhere(kind: str, folder: Path, **stated: int) -> Explanation:
    return explain_job(EXAMPLES[kind], folder, runs=folder, stated=stated or ROWS.get(kind))


def _table(heading: str) -> dict[str, list[str]]:
    """The lines of the table of docs/security.md under a heading, by their first cell."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.+)\|$", section, re.MULTILINE)[2:]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in (row.split("|") for row in rows)}


def _clauses(cell: str) -> list[str]:
    return [clause.strip() for clause in cell.split(";") if clause.strip() and "see below" not in clause]


# --- every kind of job ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_is_hidden_what_is_kept_and_how_it_stands_against_everybody(
    kind: str, tmp_path: Path
) -> None:
    found = _elsewhere(kind, tmp_path)
    assert found.protects and found.keeps
    assert sorted("".join(stand.adversaries for stand in found.stands)) == sorted(ADVERSARIES)
    assert [one.elsewhere for one in found.check.asked] == [True] * len(found.job.members)
    for page in (text_page(found), html_page(found), json.dumps(facts(found))):
        for words in ("epsilon", *(kept.where for kept in found.keeps), *(one.what for one in found.protects)):
            assert words.casefold() in page.replace("&#x27;", "'").casefold()


def test_there_is_an_example_of_every_kind() -> None:
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_wider_than_a_sheet_of_paper(kind: str, tmp_path: Path) -> None:
    assert [line for line in text_page(_elsewhere(kind, tmp_path)).splitlines() if len(line) > 80] == []


def test_the_page_of_the_demo_fits_on_one_sheet(tmp_path: Path) -> None:
    make_homes(tmp_path, patients=400)
    found = explain_job(load_job(tmp_path / "vertical.yaml"), tmp_path, runs=tmp_path)
    assert found.check.error is None
    lines = text_page(found).splitlines()
    assert (len(lines) <= 60, max(map(len, lines)) <= 80) == (True, True)


# --- what docs/security.md says --------------------------------------------------------------------------------------


def test_the_adversaries_are_those_of_the_page_on_security_by_name() -> None:
    named = {key[0]: key[2:] for key in _table("The adversaries")}
    assert named == ADVERSARIES


@pytest.mark.parametrize("line", _table("What each kind of job tells, and against whom that holds").items())
def test_what_members_can_do_all_the_same_is_said_in_the_words_of_the_page_on_security(
    line: tuple[str, list[str]], tmp_path: Path
) -> None:
    name, (_, curious, deviating) = line
    kinds = [kind for kind in KINDS if kind in name]
    assert kinds
    said = {letter: "" for letter in ADVERSARIES}
    for kind in kinds:
        for stand in _elsewhere(kind, tmp_path).stands:
            for letter in stand.adversaries:
                said[letter] += stand.but
    for letter, cell in (("C", curious), ("M", deviating)):
        assert [clause for clause in _clauses(cell) if clause not in said[letter]] == []


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"finetune"}))
def test_what_others_can_do_all_the_same_is_on_the_page_on_security(kind: str, tmp_path: Path) -> None:
    can = {key[0]: f"{cells[0]} {cells[1]}" for key, cells in _table("The adversaries").items()}
    for stand in _elsewhere(kind, tmp_path).stands:
        if stand.adversaries in "NESOL":
            assert [one for one in _clauses(stand.but) if one not in can[stand.adversaries]] == []


def test_secure_aggregation_is_said_to_hold_as_far_as_the_page_on_security_says(tmp_path: Path) -> None:
    (stand,) = [one for one in _elsewhere("horizontal", tmp_path).stands if one.adversaries == "M"]
    limit = "holds against a coordinator that deviates, with fewer than a third of the parties on its side"
    assert limit in stand.holds and limit in " ".join(PAGE.split())


def test_without_secure_aggregation_nothing_is_said_to_hide_a_partys_numbers(tmp_path: Path) -> None:
    plain = type(EXAMPLES["horizontal"]).model_validate(
        {**EXAMPLES["horizontal"].canonical(), "secure_aggregation": False}
    )
    found = explain_job(plain, tmp_path, runs=tmp_path)
    assert found.protects[0].by.startswith("nothing: coordinator sees each party's own")
    assert "secure aggregation" not in text_page(found)


# --- bytes and rows --------------------------------------------------------------------------------------------------


def test_bytes_of_stated_rows_are_those_that_the_check_says_of_homes_with_as_many(world: Any, tmp_path: Path) -> None:
    here = explain_job(world.load_job(), world.homes, runs=world.runs)
    away = explain_job(world.load_job(), tmp_path / "none", runs=world.runs, stated={"insurer": 240, "lab": 230})
    assert [(one.party, one.rows) for one in here.check.asked] == [("insurer", 240), ("lab", 230)]
    assert away.check.leaving == here.check.leaving
    assert (away.total, away.unknown) == (here.total, None)
    assert here.total == sum(one.nbytes or 0 for one in here.check.leaving) == sum(n or 0 for n in here.pairs.values())
    assert set(here.pairs) == {("insurer", "lab"), ("lab", "insurer")}
    assert "240 stated" in text_page(away)


def test_without_a_row_count_it_says_whose_to_state(tmp_path: Path) -> None:
    found = _elsewhere("vertical", tmp_path, lab=3500)
    assert found.unknown == "unknown without a row count; state --rows insurer=N"
    assert (found.total, facts(found)["bytes"]) == (None, None)
    assert "in all ?" in text_page(found)


def test_nobody_asks_a_member_whose_home_is_elsewhere(world: Any) -> None:
    (world.homes / "lab").rename(world.folder / "elsewhere")
    found = explain_job(world.load_job(), world.homes, runs=world.runs, stated={"lab": 7})
    asked = {one["member"]: one for one in facts(found)["members"]}
    assert (asked["lab"]["asked"], asked["lab"]["rows"], asked["lab"]["rows_stated"]) == (False, None, 7)
    assert (asked["insurer"]["asked"], asked["insurer"]["rows"], asked["insurer"]["error"]) == (True, 240, None)


def test_what_a_party_would_refuse_is_on_the_page_and_does_not_stop_it(world: Any) -> None:
    world.edit_party("lab", lambda content: content["policy"].update(max_epochs=1))
    before = sorted(world.homes.rglob("*"))
    page = text_page(explain_job(world.load_job(), world.homes, runs=world.runs))
    assert "lab allows 1 epochs, the job asks 4" in page
    assert sorted(world.homes.rglob("*")) == before


def test_a_model_that_is_looked_up_elsewhere_does_not_stop_the_page(tmp_path: Path) -> None:
    found = _elsewhere("finetune", tmp_path)
    assert found.unfinished is not None and found.unfinished.code == "start.unknown"
    assert "no finished run of the job 'five-hospitals'" in " ".join(text_page(found).split())


# --- who may start it ------------------------------------------------------------------------------------------------


def test_floors_and_starts_are_those_of_each_partys_own_policy(star: Any) -> None:
    star.edit_party("north", lambda content: content["policy"]["release"]["stays"].update(cohort=7))
    star.edit_party("south", lambda c: c["policy"].update(starts={"hub": {"horizontal": "4 per day"}}))
    star.edit_party("east", lambda content: content["policy"].update(approve=["horizontal"]))
    rules = explain_job(star.load_job(), star.homes, runs=star.runs).rules
    assert {name: one.cohort for name, one in rules.items()} == {"north": 7, "south": 5, "east": 5, "hub": None}
    assert (rules["south"].starts, rules["east"].waits, rules["hub"].waits) == (("hub 4/day",), True, False)


def test_who_has_signed_until_when_and_for_how_many_runs(world: Any) -> None:
    consortium = Consortium(world.folder, world.job, starter="insurer")
    job, start = read_job_file(consortium.signed)
    found = explain_job(job, world.homes, start, runs=world.runs)
    assert re.fullmatch(
        r"by insurer of hearts, for 100 runs until 20\d\d-\d\d-\d\d \d\d:\d\d UTC; insurer and lab would start it",
        found.signature,
    )
    unsigned = explain_job(job, world.homes, runs=world.runs)
    assert unsigned.signature == "by nobody: insurer and lab will not start it before `isthmus sign`"
    away = explain_job(job, world.folder / "none", start, runs=world.runs)
    assert away.signature.endswith("no roster here bears it out")


def test_homes_without_a_roster_are_said_to_be_a_simulation(world: Any) -> None:
    assert "a simulation" in explain_job(world.load_job(), world.homes, runs=world.runs).signature


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_page_and_writes_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**EXAMPLES["vertical"].canonical(), "purpose": "<script>alert(1)</script> & more"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    words = [str(tmp_path / "job.yaml"), "--homes", str(tmp_path), "--rows", "lab=3500", "--rows", "insurer=3500"]
    with pytest.raises(SystemExit) as ended:
        main(["explain", *words, "--html", str(tmp_path / "page.html")])
    assert ended.value.code in (0, None)
    assert "3,500 stated" in capsys.readouterr().out
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert not re.search(r"(src|href)=|https?://", html)
    with pytest.raises(SystemExit):
        main(["explain", *words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["privacy"]["epsilon"] is None
    assert told["bytes"] == sum(pair["bytes"] for pair in told["pairs"])


@pytest.mark.parametrize("word", ["lab", "lab=", "lab=0", "lab=-3", "lab=many", "clinic=3", "lab=9999999999999"])
def test_rows_that_mean_nothing_are_refused(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", str(ROOT / "examples" / "vertical.yaml"), "--homes", str(tmp_path), "--rows", word])
    assert ended.value.code == 2
    assert "--rows" in capsys.readouterr().err


def test_a_coordinator_brings_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'coordinator' brings no rows to this job: north, south, east, west and"):
        _elsewhere("horizontal", tmp_path, coordinator=5)
