"""The versions of a roster by `isthmus consortium`: drafts, signatures, verification, acceptance, revocation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.flows.check import check_job
from isthmus.flows.demo import demo_job
from isthmus.flows.terminal import show_keys
from isthmus.parties.certificate import fingerprint
from isthmus.parties.consortium import consortium_of, pinned
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.roster import Roster

from ..founding_world import ALL, MEMBERS, Commands

ALLOWS: dict[str, Any] = {  # the demo's job
    "name": "lab",
    "datasets": {"results": {"sql": "SELECT 1 AS id", "row_id": "id"}},
    "policy": {
        "kinds": ["vertical"],
        "purposes": ["mortality risk at admission"],
        "peers": ["insurer"],
        "max_epochs": 100,
        "release": {"results": {"columns": ["alb"], "at_least": 1, "may_learn_membership": ["insurer"]}},
    },
}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The commands, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISTHMUS_HOMES", raising=False)
    return Commands(capsys)


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_a_draft_is_the_next_version_without_signatures(call: Commands) -> None:
    call.found()
    call.accept()
    call("init party clinic")
    facts = json.loads(call("consortium add roster.yaml homes/clinic/clinic.member.yaml --json"))
    assert (facts["version"], facts["signed"], facts["missing"], facts["threshold"]) == (2, [], 2, 2)
    assert [(change["of"], change["name"]) for change in facts["changes"]] == [
        ("roster", "hearts"),
        ("member", "clinic"),
    ]
    for name in ("lab", "insurer"):
        call(f"consortium sign roster.yaml {name}")
    assert "accepted version 2" in call("consortium accept roster.yaml homes/lab")
    found = consortium_of(PartyHome(Path("homes/lab")))
    assert found is not None
    assert (found.version, set(found.roster.members)) == (2, {*MEMBERS, "clinic"})


def test_a_threshold_that_a_minority_reaches_is_pointed_at(call: Commands) -> None:
    call.found()
    for name in ("north", "south"):
        call(f"init party {name}")
    files = "homes/north/north.member.yaml homes/south/south.member.yaml"
    assert "fewer than half" in call(f"consortium add roster.yaml {files}")
    assert "fewer than half" not in call("consortium add roster.yaml --threshold 3")
    assert (Roster.read(Path("roster.yaml")).version, Roster.read(Path("roster.yaml")).threshold) == (3, 3)


def test_a_new_roster_needs_a_name_and_keeps_it(call: Commands) -> None:
    call.found()
    before = Path("roster.yaml").read_bytes()
    assert call.refused("consortium add other.yaml homes/lab/lab.member.yaml").facts["field"] == "consortium"
    assert call.refused("consortium add roster.yaml --name lungs").facts["field"] == "consortium"
    assert call.refused("consortium add other.yaml exchange/relay.member.yaml --name lungs").code == "roster.invalid"
    assert call.refused("consortium add roster.yaml nowhere.yaml").code == "roster.missing"
    assert call.refused("consortium add roster.yaml homes/lab/party.yaml").code == "roster.invalid"
    assert Path("roster.yaml").read_bytes() == before
    assert not Path("other.yaml").exists()


def test_a_renewed_certificate_comes_into_the_roster_and_its_owner_says_until_then_what_is_wrong(
    call: Commands,
) -> None:
    call.found()
    call.accept()
    old = Roster.read(Path("roster.yaml")).members["lab"]
    facts = json.loads(call("init party lab --renew --json"))
    assert (facts["key"], facts["made"]) == (old.key, ["tls.key", "tls.crt"])
    home = PartyHome(Path("homes/lab"))
    found = consortium_of(home)
    assert found is not None
    with pytest.raises(InputError) as caught:
        found.check_self(home)
    assert (caught.value.code, caught.value.facts["field"]) == ("roster.key_differs", "TLS certificate")
    (change,) = json.loads(call("consortium add roster.yaml homes/lab/lab.member.yaml --json"))["changes"][1:]
    assert (change["of"], change["name"], change["after"]["certificate"]) == ("member", "lab", facts["certificate"])
    assert change["before"]["certificate"] == fingerprint(old.certificate.encode())
    printed = call("consortium sign roster.yaml lab")
    assert f"{change['before']['certificate']} → {facts['certificate']}" in printed
    call("consortium sign roster.yaml hub")
    call(f"consortium accept roster.yaml {ALL}")
    found = consortium_of(home)
    assert found is not None
    found.check_self(home)


def test_a_revoked_member_is_out_for_all_and_does_not_come_back_with_its_old_keys(call: Commands) -> None:
    call.found()
    call.accept()
    assert call.refused("consortium revoke roster.yaml clinic").code == "roster.member_unknown"
    call("consortium revoke roster.yaml insurer")
    assert call.refused("consortium revoke roster.yaml insurer").code == "roster.revoked"
    for name in ("lab", "hub"):
        call(f"consortium sign roster.yaml {name}")
    out = json.loads(call(f"consortium accept roster.yaml {ALL} --json"))["accepted"]
    assert out == {"lab": None, "hub": None, "exchange": None, "insurer": "roster.revoked"}
    found = consortium_of(PartyHome(Path("homes/lab")))
    assert found is not None
    with pytest.raises(InputError, match="insurer is revoked"):
        found.key_of("insurer")
    assert json.loads(call("consortium verify roster.yaml --json"))["members"]["insurer"]["state"] == "revoked"
    add = "consortium add roster.yaml homes/insurer/insurer.member.yaml"
    assert call.refused(add).code == "roster.revoked"
    call("init party insurer --renew")
    assert call.refused(add).code == "roster.revoked"
    Path("homes/insurer/identity.key").unlink()
    call("init party insurer --renew")
    call(add)
    assert Roster.read(Path("roster.yaml")).revoked == frozenset()


def test_fewer_members_than_the_threshold_are_never_left_unless_it_is_said(call: Commands) -> None:
    call.found()
    call("consortium revoke roster.yaml insurer")
    error = call.refused("consortium revoke roster.yaml hub")
    assert (error.code, error.where) == ("roster.invalid", "--threshold")
    call("consortium revoke roster.yaml hub --threshold 1")
    assert (Roster.read(Path("roster.yaml")).threshold, Roster.read(Path("roster.yaml")).version) == (1, 3)


# --- signatures -------------------------------------------------------------------------------------------------------


def test_signing_shows_what_changes_and_says_how_many_are_missing(call: Commands) -> None:
    call.found()
    call.accept()
    call("init party clinic")
    call("consortium add roster.yaml homes/clinic/clinic.member.yaml --threshold 3")
    printed = call("consortium sign roster.yaml lab")
    assert "against version 1" in printed
    assert re.search(r"threshold +2 → 3", printed)
    assert "+ member clinic" in printed
    assert "signed by lab: 2 missing" in printed
    assert "of the members in the accepted version 1: 1 missing" in printed
    facts = json.loads(call("consortium sign roster.yaml clinic --json"))
    assert (facts["signed"], facts["missing"]) == (["clinic", "lab"], 1)


def test_nobody_signs_without_its_own_keys_in_it(call: Commands) -> None:
    call.found()
    call("init party clinic")
    assert call.refused("consortium sign roster.yaml clinic").code == "roster.member_unknown"
    assert call.refused("consortium sign roster.yaml nobody").code == "job.party_unknown"
    call("init party lab --renew")
    error = call.refused("consortium sign roster.yaml lab")
    assert (error.code, error.facts["field"]) == ("roster.key_differs", "TLS certificate")
    Path("homes/hub/identity.key").unlink()
    error = call.refused("consortium sign roster.yaml hub")
    assert (error.code, error.facts) == ("home.no_identity", {"party": "hub"})
    assert not Path("homes/hub/identity.key").exists()
    call("init coordinator hub")
    error = call.refused("consortium sign roster.yaml hub")
    assert (error.code, error.facts["field"]) == ("roster.key_differs", "identity key")


def test_a_key_that_is_gone_is_made_again_by_init_alone(call: Commands) -> None:
    call.found()
    call.accept()
    key = Path("homes/lab/identity.key")
    key.unlink()
    Path("homes/lab/party.yaml").write_text(yaml.safe_dump(ALLOWS))
    said = {asked.party: asked.error and asked.error.code for asked in check_job(demo_job(), Path("homes")).asked}
    assert said == {"lab": "home.no_identity", "insurer": "policy.kind"}
    assert call.refused("consortium sign roster.yaml lab").code == "home.no_identity"
    assert call.refused("consortium verify roster.yaml --home homes/lab").code == "home.no_identity"
    assert "identity.key is gone" in call("consortium accept roster.yaml homes/lab")
    with pytest.raises(InputError) as caught:
        show_keys(Path("homes"), ["lab"], json=False)
    assert caught.value.code == "home.no_identity"
    assert not key.exists()
    assert json.loads(call("init party lab --json"))["made"] == ["identity.key"]
    assert call.refused("consortium sign roster.yaml lab").code == "roster.key_differs"


def test_nobody_signs_an_older_version_or_a_second_one_of_the_same_number(call: Commands) -> None:
    call.found()
    call.accept()
    files = " ".join(f"homes/{name}/{name}.member.yaml" for name in MEMBERS)
    call(f"consortium add second.yaml {files} --name hearts")
    assert call.refused("consortium sign second.yaml lab").code == "roster.older"
    call(f"consortium add third.yaml {files} --name lungs")
    assert call.refused("consortium sign third.yaml lab").facts["field"] == "consortium"


def test_a_member_that_is_being_revoked_may_sign_that_and_counts_for_the_accepted_version_alone(call: Commands) -> None:
    call.found()
    call.accept()
    call("consortium revoke roster.yaml insurer")
    call("consortium sign roster.yaml insurer")
    facts = json.loads(call("consortium sign roster.yaml lab --json"))
    assert (facts["signed"], facts["missing"], facts["missing_of_accepted"]) == (["lab"], 1, 0)


# --- verification and acceptance --------------------------------------------------------------------------------------


def test_verify_ends_with_an_error_while_signatures_are_missing(
    capsys: pytest.CaptureFixture[str], call: Commands
) -> None:
    call("init party lab")
    call("consortium add roster.yaml homes/lab/lab.member.yaml --name hearts")
    assert call.refused("consortium verify roster.yaml").facts == {"have": 0, "need": 1, "version": 1}
    assert "signed by nobody: 1 missing" in capsys.readouterr().out
    call("consortium sign roster.yaml lab")
    call("consortium verify roster.yaml")
    text = Path("roster.yaml").read_text()
    signature = Roster.read(Path("roster.yaml")).signatures["lab"]
    Path("roster.yaml").write_text(text.replace(signature, ("0" if signature[0] != "0" else "1") + signature[1:]))
    assert call.refused("consortium verify roster.yaml").code == "roster.signatures"
    assert "a signature that is not its own" in capsys.readouterr().out


def test_verify_with_a_home_also_compares_with_what_it_has_accepted_and_its_keys(call: Commands) -> None:
    call.found()
    call.accept()
    for home in ALL.split():
        call(f"consortium verify roster.yaml --home {home}")
    call("consortium add roster.yaml --threshold 1")
    call("consortium sign roster.yaml lab")
    call("consortium verify roster.yaml")  # complete by itself
    assert call.refused("consortium verify roster.yaml --home homes/hub").facts == {"have": 1, "need": 2, "version": 1}
    call("consortium sign roster.yaml hub")
    call("consortium verify roster.yaml --home homes/hub")
    call("init party lab --renew")
    assert call.refused("consortium verify roster.yaml --home homes/lab").code == "roster.key_differs"


def test_a_first_roster_is_accepted_by_digest_alone_and_everywhere_or_nowhere(call: Commands) -> None:
    call.found()
    digest = Roster.read(Path("roster.yaml")).digest()
    assert call.refused("consortium accept roster.yaml homes/lab").code == "roster.not_pinned"
    assert call.refused(f"consortium accept roster.yaml homes/lab --digest {digest[:32]}").code == "roster.digest"
    call("init party clinic")
    for folders, code in (
        ("homes/lab homes/clinic", "roster.member_unknown"),
        ("exchange homes", "home.missing"),
        ("homes/lab nowhere", "home.missing"),
    ):
        assert call.refused(f"consortium accept roster.yaml {folders} --digest {digest}").code == code
    call("init exchange relay --address relay.example.org:9443 --renew")
    error = call.refused(f"consortium accept roster.yaml homes/lab exchange --digest {digest}")
    assert (error.code, error.facts) == ("roster.key_differs", {"party": "relay", "field": "TLS certificate"})
    assert pinned(Path("homes/lab")) is None
    assert not list(Path().rglob("roster.pin"))


def test_accepting_and_signing_say_what_changes_and_that_nothing_does(call: Commands) -> None:
    call.found()
    call.accept()
    assert "nothing changes, against version 1" in call("consortium sign roster.yaml lab")
    printed = call(f"consortium accept roster.yaml {ALL}")
    assert "nothing changes at lab, insurer, hub, exchange, against version 1" in printed
    call("init party clinic")
    call("consortium add roster.yaml homes/clinic/clinic.member.yaml")
    for name in ("lab", "insurer"):
        call(f"consortium sign roster.yaml {name}")
    printed = call("consortium accept roster.yaml homes/lab exchange")
    assert "what changes at lab, exchange, against version 1:" in printed
    assert "+ member clinic" in printed
    changed = json.loads(call("consortium accept roster.yaml homes/lab homes/hub --json"))["changes"]
    assert changed["lab"] == []
    assert [(change["of"], change["name"]) for change in changed["hub"]] == [
        ("roster", "hearts"),
        ("member", "clinic"),
    ]


def test_a_folder_may_be_named_by_where_one_is(call: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    call.found()
    digest = Roster.read(Path("roster.yaml")).digest()
    monkeypatch.chdir("homes/lab")
    assert "lab has accepted version 1" in call(f"consortium accept ../../roster.yaml . --digest {digest}")


def test_a_home_that_is_not_what_the_roster_says_takes_a_later_version_and_says_so(call: Commands) -> None:
    call.found()
    call.accept()
    call("init party insurer --renew")
    call("consortium add roster.yaml --threshold 2")
    for name in ("lab", "hub"):
        call(f"consortium sign roster.yaml {name}")
    printed = call("consortium accept roster.yaml homes/lab homes/insurer")
    assert "insurer has accepted version 2" in printed
    assert "but the TLS certificate of insurer is not the one in the roster" in printed
