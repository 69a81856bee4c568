"""Homes and exchanges made by `isthmus init`, up to a consortium that is founded; and where private keys never go."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from isthmus.flows.founding import found_member
from isthmus.parties.certificate import expires, fingerprint
from isthmus.parties.consortium import consortium_of, pinned
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.policy import Policy
from isthmus.parties.roster import Roster

from ..founding_world import ALL, MEMBERS, Commands


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The commands, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISTHMUS_HOMES", raising=False)
    return Commands(capsys)


def test_a_consortium_is_founded_by_the_commands_alone(call: Commands) -> None:
    founded = call.found()
    roster = Roster.read(Path("roster.yaml"))
    assert (roster.consortium, roster.version, roster.threshold, roster.signers()) == ("hearts", 1, 2, ("hub", "lab"))
    assert {name: member.role for name, member in roster.members.items()} == {
        "lab": "party",
        "insurer": "party",
        "hub": "coordinator",
    }
    printed = call("consortium verify roster.yaml")
    assert roster.digest() in printed
    assert "complete" in printed
    accepted = call(f"consortium accept roster.yaml {ALL} --digest {roster.digest()}")
    assert [line.split()[0] for line in accepted.splitlines()[-4:]] == ["lab", "insurer", "hub", "exchange"]
    assert "what changes at lab, insurer, hub, exchange, all of it is new:" in accepted
    assert all(fingerprint(member.certificate.encode()) in accepted for member in roster.members.values())
    for name in MEMBERS:
        home = PartyHome(Path("homes", name))
        found = consortium_of(home)
        assert found is not None
        found.check_self(home)
        assert found.exchange().address == "relay.example.org:9443"
        assert found.key_of(name) == Identity(home).public
        assert roster.members[name].certificate.encode() == home.tls_certificate()
        for shown in (found.key_of(name).hex(), fingerprint(home.tls_certificate())):
            assert shown in founded
            assert shown in printed
    assert pinned(Path("exchange")) == roster
    assert yaml.safe_load(Path("exchange/exchange.yaml").read_text()) == {
        "name": "relay",
        "listen": "0.0.0.0:9443",
        "metrics": "127.0.0.1:9464",
    }


def test_no_private_key_is_printed_or_handed_over_in_any_form_and_all_are_for_their_owner_alone(call: Commands) -> None:
    founded = call.found()
    folders = [Path("exchange"), *(Path("homes", name) for name in MEMBERS)]
    text = founded + call("consortium verify roster.yaml --json") + call("init party lab --json")
    text += repr([Identity(PartyHome(folder)) for folder in folders[1:]])
    public = [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".key"]
    assert len([path for path in public if path.name.endswith(".member.yaml")]) == 4
    said = text.encode() + b"".join(path.read_bytes() for path in public)
    keys = sorted(Path().rglob("*.key"))
    assert [str(path) for path in keys] == sorted(
        ["exchange/tls.key", *(f"homes/{name}/{file}.key" for name in MEMBERS for file in ("identity", "tls"))]
    )
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for form in forms(path):
            assert form not in said, path
            assert form not in said.replace(b"\n", b"").replace(b" ", b""), path
    assert Identity(PartyHome(folders[1])).public.hex().encode() in said  # the search does find what is there


def forms(path: Path) -> list[bytes]:
    """A private key as bytes, hex, base64, and a Python repr; of a TLS key, the number itself as well."""
    content = path.read_bytes()
    secrets = [content]
    if path.name == "tls.key":
        key: Any = serialization.load_pem_private_key(content, password=None)
        secrets = [key.private_numbers().private_value.to_bytes(32, "big")]
        secrets.append(base64.b64decode(b"".join(content.splitlines()[1:-1])))
    found = []
    for secret in secrets:
        found += [secret, secret.hex().encode(), base64.b64encode(secret), repr(secret)[2:-1].encode()]
    return found


# --- init -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["party", "coordinator"])
def test_a_new_home_denies_everything(role: str, call: Commands) -> None:
    call(f"init {role} lab")
    config = PartyHome(Path("homes/lab")).config
    assert (config.name, config.policy, config.datasets) == ("lab", Policy(), {})


def test_the_party_yaml_of_a_party_explains_every_field_but_what_is_for_simulations(call: Commands) -> None:
    call("init party lab")
    text = Path("homes/lab/party.yaml").read_text()
    for field in set(Policy.model_fields) - {"pooled_baselines"}:
        assert re.search(rf"^  {field}: .+#", text, re.M) or re.search(rf"^  {field}: ", text, re.M), field
    # What is commented out is good as it stands.
    lines = [re.sub(r"^#( ?)", r"\1", line).rstrip() for line in text.splitlines()[1:]]
    whole = "\n".join(line for line in lines if line not in ("datasets: {}", "  release: {}"))
    whole = whole.replace("  results:\n    sql", "datasets:\n  results:\n    sql")
    whole = whole.replace("    results:\n      columns", "  release:\n    results:\n      columns")
    whole = whole.replace("\n data:", "\ndata:").replace("\n attach:", "\nattach:")
    Path("homes/lab/party.yaml").write_text(whole + "\n")
    config = PartyHome(Path("homes/lab")).config
    assert set(config.datasets) == set(config.policy.release) == {"results"}
    assert config.policy.release["results"].cohort == 10


def test_a_home_that_is_there_keeps_its_rules_and_keys(call: Commands) -> None:
    folder = Path("homes/lab")
    folder.mkdir(parents=True)
    (folder / "party.yaml").write_text("name: lab\npolicy: {kinds: [vertical]}\n")
    key = Identity(PartyHome(folder)).public.hex()
    first = json.loads(call("init party lab --json"))
    assert (first["key"], first["made"]) == (key, ["tls.key", "tls.crt"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert json.loads(call("init party lab --json"))["made"] == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert before["party.yaml"] == b"name: lab\npolicy: {kinds: [vertical]}\n"
    (folder / "tls.crt").unlink()  # as a making that was cut short leaves it
    assert json.loads(call("init party lab --json"))["made"] == ["tls.key", "tls.crt"]


def test_a_new_home_and_its_rules_are_for_their_owner_alone_whatever_the_umask(call: Commands) -> None:
    before = os.umask(0o022)
    try:
        printed = call("init party lab") + call("init exchange relay --address relay:1")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(Path(path).stat().st_mode) for path in ("homes/lab", "exchange", "homes")}
    assert modes == {"homes/lab": 0o700, "exchange": 0o700, "homes": 0o755}
    assert stat.S_IMODE(Path("homes/lab/party.yaml").stat().st_mode) == 0o600
    assert "others can enter" not in printed


def test_a_folder_that_is_there_stays_as_it_is_and_init_says_if_others_can_enter_it(call: Commands) -> None:
    Path("homes/lab").mkdir(parents=True)
    Path("homes/lab").chmod(0o750)
    assert "others can enter homes/lab: chmod 700 it" in call("init party lab")
    assert stat.S_IMODE(Path("homes/lab").stat().st_mode) == 0o750
    assert json.loads(call("init party lab --json"))["open_to_others"] is True
    Path("homes/lab").chmod(0o700)
    assert json.loads(call("init party lab --json"))["open_to_others"] is False


def test_init_says_what_it_cannot_take(call: Commands) -> None:
    for name in ("Lab", "../lab", "lab/x", "1lab", "l" * 33):
        assert call.refused(f"init party {name}").code == "home.name"
        assert call.refused(f"init exchange {name} --address relay:1").code == "home.name"
    for address in ("relay", "relay:0", "relay:99999", "grpc://relay:1"):
        assert call.refused(f"init exchange relay --address {address}").facts["field"] == "address"
    assert not list(Path().iterdir())
    call("init exchange relay --address relay:1")
    assert call.refused("init exchange other --address relay:1").facts["field"] == "name"
    call("init party lab")
    for file, mode in (("tls.key", 0o640), ("identity.key", 0o604)):
        Path("homes/lab", file).chmod(mode)
        error = call.refused("init party lab")
        assert (error.code, error.facts["file"]) == ("home.key_mode", file)
        Path("homes/lab", file).chmod(0o600)
    Path("homes/lab/tls.key").write_bytes(Path("exchange/tls.key").read_bytes())
    assert call.refused("init party lab").code == "roster.key_differs"


def test_an_address_in_brackets_is_printed_as_it_is(call: Commands) -> None:
    call("init party lab")
    call("init exchange relay --address [fe80::1]:9443")
    files = "homes/lab/lab.member.yaml exchange/relay.member.yaml"
    assert "[fe80::1]:9443" in call(f"consortium add roster.yaml {files} --name hearts")
    call("consortium sign roster.yaml lab")
    assert "exchange relay  [fe80::1]:9443" in call("consortium verify roster.yaml")


def test_a_line_feed_is_in_no_name() -> None:
    with pytest.raises(InputError):
        found_member("lab\n", "party", Path("homes"))


def test_days_are_how_long_an_entry_is_valid_and_the_certificate_lasts_past_the_tolerance(call: Commands) -> None:
    today = datetime.now(UTC).date()
    facts = json.loads(call("init party lab --days 10 --json"))
    assert facts["until"] in [(today + timedelta(days=days)).isoformat() for days in (10, 11)]  # midnight may pass
    call("consortium add roster.yaml homes/lab/lab.member.yaml --name hearts")
    member = Roster.read(Path("roster.yaml")).members["lab"]
    last = expires(member.certificate.encode())
    assert not member.expired(last - timedelta(days=1))
    assert member.expired(last)


# --- the commands themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        *(f"init {word}" for word in ("party", "coordinator", "exchange")),
        *(f"consortium {word}" for word in ("add", "sign", "verify", "accept", "revoke")),
    ],
)
def test_every_command_has_an_example_in_its_help(words: str, call: Commands) -> None:
    assert f"Example: isthmus {words}" in call(f"{words} --help")


def test_the_commands_need_neither_prefect_nor_torch_nor_duckdb_nor_grpc(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from isthmus.flows.cli_consortium import init\n"
        "init(['party', 'lab'], result_action='return_value')\n"
        "print([name for name in ('prefect', 'torch', 'duckdb', 'grpc') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
