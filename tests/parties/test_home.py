"""A party's home: what is wrong with party.yaml is said by field, and the ledger's key is made once."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.parties.errors import InputError, InternalError
from isthmus.parties.home import PartyHome, find_home

GOOD: dict[str, Any] = {
    "name": "lab",
    "data": "lab.duckdb",
    "attach": {"archive": "old.duckdb"},
    "datasets": {
        "results": {
            "sql": "SELECT * FROM t",
            "row_id": "id",
            "types": {"ward": "category"},
            "identifiers": {
                "national_id": "ssn",
                "names": ["given", "surname"],
                "birth_date": {"column": "born", "format": "%Y%m%d"},
                "address": {"columns": ["street", "city"]},
            },
        }
    },
    "policy": {"kinds": ["vertical"], "release": {"results": {"columns": ["alb"], "at_least": 50}}},
}


def _write(tmp_path: Path, content: Any) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
    (folder / "party.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def _refused(tmp_path: Path, content: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        PartyHome(_write(tmp_path, content))
    return caught.value


def test_a_good_home_is_read(tmp_path: Path) -> None:
    home = PartyHome(_write(tmp_path, GOOD))
    identifiers = home.config.datasets["results"].identifiers
    assert home.name == "lab"
    assert home.data_file == tmp_path / "lab" / "lab.duckdb"
    assert home.state_file == tmp_path / "lab" / "state.duckdb"
    assert [identifiers[name].columns for name in ("national_id", "names", "birth_date", "address")] == [
        ("ssn",),
        ("given", "surname"),
        ("born",),
        ("street", "city"),
    ]
    assert identifiers["birth_date"].format == "%Y%m%d"
    assert identifiers["names"].format is None


def test_the_smallest_home_allows_nothing(tmp_path: Path) -> None:
    home = PartyHome(_write(tmp_path, {"name": "lab"}))
    assert home.data_file is None
    assert (home.config.policy.kinds, home.config.policy.release, home.config.policy.publish) == ((), {}, ())
    assert (home.config.policy.max_epochs, home.config.policy.pooled_baselines) == (0, "deny")


def _with(*path: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return content


DATASET = ("datasets", "results")
BAD: list[tuple[str, Any, str]] = [
    ("nothing", "", "the whole file"),
    ("a list", [1], "the whole file"),
    ("text", "lab", "the whole file"),
    ("no YAML", "name: lab\ndata: [a\npolicy: {", "line 3"),
    ("an impossible date", "name: lab\ndata: 2020-13-45\n", "line 1"),
    ("a number of 5000 digits", "name: lab\ndata: " + "9" * 5000, "line 1"),
    ("brackets without end", "name: " + "[" * 5000, "line 1"),
    ("a tag", "name: !!python/object/apply:os.getcwd []", "line 1"),
    ("no name", {}, "name"),
    ("a name in capitals", _with("name", value="Lab"), "name"),
    ("a name with a slash", _with("name", value="lab/../x"), "name"),
    ("a name with a line end", _with("name", value="lab\n"), "name"),
    ("another folder's name", _with("name", value="clinic"), "name"),
    ("an unknown field", _with("surprise", value=1), "surprise"),
    ("data that is a list", _with("data", value=["a"]), "data"),
    ("an alias that is SQL", _with("attach", value={"a (READ_WRITE); --": "x"}), "attach"),
    ("a dataset without SQL", _with("datasets", value={"results": {"row_id": "id"}}), "datasets.results.sql"),
    ("a dataset without row_id", _with("datasets", value={"results": {"sql": "x"}}), "datasets.results.row_id"),
    ("an unknown type", _with(*DATASET, "types", value={"a": "date"}), "datasets.results.types.a"),
    ("no column", _with(*DATASET, "identifiers", value={"a": []}), "datasets.results.identifiers.a.columns"),
    ("a number", _with(*DATASET, "identifiers", value={"a": 1}), "datasets.results.identifiers.a"),
    ("a format", _with(*DATASET, "identifiers", value={"a": {"format": ""}}), "datasets.results.identifiers.a.columns"),
    ("an unknown kind", _with("policy", "kinds", value=["gossip"]), "policy.kinds.0"),
    ("an unknown policy", _with("policy", "allow", value="all"), "policy.allow"),
    ("publishes rows", _with("policy", "publish", value=["rows"]), "policy.publish.0"),
    ("negative epochs", _with("policy", "max_epochs", value=-1), "policy.max_epochs"),
    ("a floor of 0", _with("policy", "release", value={"results": {"at_least": 0}}), "policy.release.results.at_least"),
    ("a star", _with("policy", "release", "results", "columns", value=["*"]), "policy.release.results.columns"),
    ("an unknown dataset", _with("policy", "release", value={"rows": {"at_least": 1}}), "the whole file"),
    ("a seed of text", _with("seed", value="x"), "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_said_by_field(tmp_path: Path, content: Any, field: str) -> None:
    error = _refused(tmp_path, content)
    assert (error.code, error.exit_code) == ("home.invalid", 2)
    assert error.facts["field"] == field
    assert error.facts["party"] == "lab"
    assert "Value error" not in error.text()


def test_the_error_does_not_repeat_what_stands_in_the_file(tmp_path: Path) -> None:
    assert "PLANTED" not in _refused(tmp_path, _with("seed", value="PLANTED")).text()


@pytest.mark.parametrize("make", ["nothing", "folder", "bytes"])
def test_a_home_without_a_readable_file_is_missing(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    if make == "folder":
        (folder / "party.yaml").mkdir()
    if make == "bytes":
        (folder / "party.yaml").write_bytes("name: läb".encode("latin-1"))
    with pytest.raises(InputError) as caught:
        PartyHome(folder)
    assert (caught.value.code, caught.value.facts["party"]) == ("home.missing", "lab")


def test_a_home_is_found_by_its_party_name(tmp_path: Path) -> None:
    folder = _write(tmp_path, GOOD)
    assert find_home(tmp_path, "lab") == folder
    for name in ("clinic", "nowhere"):
        with pytest.raises(InputError) as caught:
            find_home(tmp_path, name)
        assert (caught.value.code, caught.value.facts) == ("job.party_unknown", {"party": name})


def test_a_home_may_be_a_link_to_a_folder_of_another_name(tmp_path: Path) -> None:
    _write(tmp_path, GOOD).rename(tmp_path / "volume-7")
    (tmp_path / "lab").symlink_to(tmp_path / "volume-7")
    assert PartyHome(find_home(tmp_path, "lab")).name == "lab"


def test_a_home_is_the_same_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write(tmp_path, GOOD)
    monkeypatch.chdir(folder)
    home = PartyHome(Path("."))
    assert home.folder == folder
    monkeypatch.chdir(tmp_path)
    assert home.state_file == folder / "state.duckdb"


# --- the ledger's key ------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_readable_by_its_owner_alone(home: PartyHome) -> None:
    key = home.ledger_key()
    path = home.folder / "ledger.key"
    assert (len(key), home.ledger_key(), path.read_bytes()) == (32, key, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(home.folder.glob("*.partial"))


def test_all_who_ask_for_the_key_at_once_get_the_same(home: PartyHome) -> None:
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(home.ledger_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_key_file_that_is_no_key_is_not_used(home: PartyHome, content: bytes) -> None:
    path = home.folder / "ledger.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InternalError) as caught:
        home.ledger_key()
    assert caught.value.code == "ledger.broken"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused(home: PartyHome, mode: int) -> None:
    home.ledger_key()
    (home.folder / "ledger.key").chmod(mode)
    with pytest.raises(InputError) as caught:
        home.ledger_key()
    assert (caught.value.code, caught.value.facts) == ("home.key_mode", {"party": "lab", "file": "ledger.key"})


def test_a_full_disk_leaves_no_half_key(home: PartyHome, with_little_disk: Any) -> None:
    done = with_little_disk(
        "home = PartyHome(Path(sys.argv[1])); fill(10); print(code_of(home.ledger_key)); free(); home.ledger_key()",
        home.folder,
    )
    assert done.stdout == "disk.full\n"
    assert len((home.folder / "ledger.key").read_bytes()) == 32
    assert not list(home.folder.glob("*.partial"))
