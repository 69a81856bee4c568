"""What a simulation compares with: who may be pooled, what comes out, and that a policy is obeyed here too."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from isthmus.flows.demo import demo_job, make_homes, true_persons
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.vertical.baselines import Baselines, may_pool, run_baselines
from isthmus.flows.kinds.vertical.baselines import main as baselines_main
from isthmus.flows.kinds.vertical.contenders import _one_hot, _ordinal, compare
from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.flows.kinds.vertical.learning import SCORES_FILE
from isthmus.parties.checkpoint import write_tensors
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.events import Progress
from isthmus.parties.home import PartyHome
from isthmus.parties.state import SavedAlignment, State
from isthmus.parties.store import Store
from isthmus.parties.table import Column
from isthmus.vertical import split_rows

PATIENTS, SHARED, RUN, DIGEST = 300, 210, "hospital-mortality-0a1b2c3d-1", "ab" * 32
JOB = demo_job(PATIENTS, epochs=4)


def align_by_truth(homes: Path, *, mistakes: int = 0) -> dict[str, list[str]]:
    """Save at both homes the alignment that a perfect linkage finds, but for some pairs that are swapped."""
    rows: dict[str, list[str]] = {}
    truth = {party: true_persons(PartyHome(homes / party)) or {} for party in ("lab", "insurer")}
    shared = sorted(set(truth["lab"].values()) & set(truth["insurer"].values()))
    for party, persons in truth.items():
        row_of = {person: row for row, person in persons.items()}
        rows[party] = [row_of[person] for person in shared]
        if party == "lab" and mistakes:
            rows[party][:mistakes] = np.roll(rows[party][:mistakes], 1).tolist()
        state = State(PartyHome(homes / party))
        state.begin_attempt(RUN, JOB.digest(), fixed_seed=5, fresh=False)
        state.save_alignment(RUN, SavedAlignment(DIGEST, "source", rows[party], []))
    return rows


def save_scores(homes: Path, rows: dict[str, list[str]], sharpness: float) -> None:
    """Scores that know the label, more or less."""
    home, training = PartyHome(homes / "insurer"), JOB.training
    label = Store(home, "members").label("hospdead", np.array(rows["insurer"], dtype=object))
    test = split_rows(len(label), training.validation_share, training.test_share, training.seed, DIGEST).test
    noise = np.random.default_rng(1).normal(size=len(test))
    scores = (sharpness * label[test] + noise).astype(np.float32)
    path = home.run_folder(RUN) / SCORES_FILE
    write_tensors(path, {"rows": test, "label": label[test], "score": scores}, {}, party="insurer")


def edit_policy(homes: Path, party: str, **changes: Any) -> None:
    file = homes / party / "party.yaml"
    content = yaml.safe_load(file.read_text())
    content["policy"] |= changes
    file.write_text(yaml.safe_dump(content))


def computed(homes: Path, job: VerticalJob = JOB, journal: Journal | None = None) -> Baselines:
    folder = homes.parent / "run"
    folder.mkdir(exist_ok=True)
    return asyncio.run(run_baselines(homes, folder, RUN, job, journal or Journal(RUN)))


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    make_homes(tmp_path / "homes", patients=PATIENTS)
    return tmp_path / "homes"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Baselines, list[tuple[int, int]], Path]:
    """One comparison with everything in it, what it told on its way, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    make_homes(folder / "homes", patients=PATIENTS)
    rows = align_by_truth(folder / "homes", mistakes=3)
    save_scores(folder / "homes", rows, sharpness=5.0)
    journal = Journal(RUN)
    baselines = computed(folder / "homes", journal=journal)
    return baselines, [(event.done, event.total) for _, event in journal.of(Progress)], folder


def test_every_contender_is_judged_on_the_same_held_out_patients(whole: tuple[Baselines, Any, Any]) -> None:
    baselines = whole[0]
    assert [(row.kind, row.party, row.columns) for row in baselines.rows] == [
        ("alone", "lab", 15), ("alone", "insurer", 11), ("all_rows", "insurer", 11), ("pooled", None, 26),
    ]  # fmt: skip
    assert baselines.test_rows == SHARED // 5
    alone, _, all_rows, pooled = baselines.rows
    assert alone.train_rows == pooled.train_rows == SHARED - 2 * (SHARED // 5)
    assert all_rows.train_rows == alone.train_rows + 45, "the members that the lab does not know"
    for row in baselines.rows:
        for score in (row.network, row.logistic, row.boosting):
            assert score.low is not None and score.high is not None
            assert 0 < score.low <= score.auc <= score.high <= 1.0


def test_the_linkage_is_scored_against_the_truth(whole: tuple[Baselines, Any, Any]) -> None:
    linkage = whole[0].linkage
    assert linkage is not None
    assert (linkage.shared, linkage.found) == (SHARED, SHARED)
    assert linkage.precision == linkage.recall == (SHARED - 3) / SHARED


def test_the_gain_is_paired_with_the_better_party_alone(whole: tuple[Baselines, Any, Any]) -> None:
    baselines = whole[0]
    assert baselines.gain is not None
    better = max((row for row in baselines.rows if row.kind == "alone"), key=lambda row: row.network.auc)
    assert baselines.gain.over == better.party
    assert baselines.gain.value > 0.05 and baselines.gain.low > 0, "the scores know the label"
    assert baselines.gain.low < baselines.gain.value < baselines.gain.high


def test_progress_names_each_contender_in_turn(whole: tuple[Any, list[tuple[int, int, str]], Any]) -> None:
    assert whole[1] == [(done, 4) for done in range(5)]


def test_the_result_holds_numbers_and_no_row(whole: tuple[Baselines, Any, Path]) -> None:
    baselines, _, folder = whole
    text = (folder / "run" / "baselines.json").read_text()
    assert Baselines.from_json(text) == baselines
    told = set(re.findall(r"[\w.]+", text))
    for party in ("lab", "insurer"):
        assert not told & set(true_persons(PartyHome(folder / "homes" / party)) or {})


def test_one_party_that_does_not_allow_it_stops_the_comparison(homes: Path) -> None:
    edit_policy(homes, "lab", pooled_baselines="deny")
    with pytest.raises(PolicyRefusal) as refusal:
        may_pool(homes, JOB)
    assert (refusal.value.code, refusal.value.facts) == ("policy.baselines", {"party": "lab"})
    with pytest.raises(PolicyRefusal, match="lab does not allow its rows to be pooled"):
        computed(homes)
    assert not (homes.parent / "run" / "baselines.json").exists()


def test_a_run_that_nobody_aligned_is_unknown(homes: Path) -> None:
    with pytest.raises(InputError) as error:
        compare(JOB, may_pool(homes, JOB), RUN, lambda *_: None)
    assert error.value.code == "run.unknown"


def test_what_the_policy_does_not_publish_is_not_told_by_this_way_either(homes: Path) -> None:
    align_by_truth(homes)
    edit_policy(homes, "insurer", publish=[])
    baselines = compare(JOB, may_pool(homes, JOB), RUN, lambda *_: None)
    assert (baselines.rows, baselines.gain, baselines.linkage) == ((), None, None)
    assert baselines.withheld_by == ("insurer",)


def test_counts_and_curves_are_withheld_each_by_itself(homes: Path) -> None:
    align_by_truth(homes)
    edit_policy(homes, "lab", publish=["metrics"])
    baselines = compare(JOB, may_pool(homes, JOB), RUN, lambda *_: None)
    assert baselines.linkage is None
    assert baselines.test_rows is None
    assert {(row.train_rows, row.columns, row.roc) for row in baselines.rows} == {(None, None, None)}
    assert baselines.rows[0].network.auc > 0


def test_what_is_wrong_in_a_party_yaml_is_told_without_its_names(homes: Path) -> None:
    path = homes / "lab" / "party.yaml"
    content = yaml.safe_load(path.read_text())
    content["datasets"]["planted_set"] = {"sql": "x", "row_id": "y", "identifiers": {"planted_id": {"colums": ["a"]}}}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as error:
        may_pool(homes, JOB)
    assert error.value.code == "home.invalid"
    assert "lab" in str(error.value)
    assert "planted" not in error.value.text() + repr(error.value.facts) + error.value.detail
    assert error.value.__cause__ is error.value.__context__ is None


def test_the_text_of_an_exception_reaches_neither_the_log_nor_the_flow(
    homes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("plantedrow77")

    monkeypatch.setattr("isthmus.flows.kinds.vertical.contenders.compare", fail)
    job = tmp_path / "job.json"
    job.write_text(json.dumps(JOB.canonical()))
    words = ["--homes", str(homes), "--run", RUN, "--job", str(job), "--out", str(tmp_path / "out.json")]
    assert baselines_main(words) == 1
    said = capfd.readouterr()
    assert '"code":"internal"' in said.out
    assert "plantedrow77" not in said.out + said.err


def test_categories_become_columns_and_missing_values_their_own() -> None:
    number = Column("a", "number", np.array([1.0, np.nan, 3.0, 99.0]))
    category = Column("b", "category", np.array(["x", "y", None, "unseen"], dtype=object))
    features = _one_hot([number, category], np.array([0, 1, 2]))
    assert features.tolist() == [[-1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [97, 0, 0, 0, 0]]
    codes, is_category = _ordinal([number, category], np.array([0, 1, 2]))
    assert is_category.tolist() == [False, True]
    assert codes[:2, 1].tolist() == [0, 1] and np.isnan(codes[2:, 1]).all() and np.isnan(codes[1, 0])
