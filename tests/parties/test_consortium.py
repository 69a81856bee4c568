"""What a home has pinned of its consortium: what it accepts, what it finds altered, what it says to others."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import pytest

from isthmus.parties.consortium import accept, consortium_of, peer_keys, pinned
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.roster import Roster

from ..roster_world import KEYS, NAMES, TLS, code, content, member, roster


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, PartyHome]:
    """Homes with the keys that the rosters here name."""
    for name in NAMES:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "party.yaml").write_text(f"name: {name}\n")
        for file, key in (("identity.key", KEYS[name].private_bytes_raw()), ("tls.key", TLS[name].key)):
            (folder / file).write_bytes(key)
            (folder / file).chmod(0o600)
        (folder / "tls.crt").write_bytes(TLS[name].certificate)
    return {name: PartyHome(tmp_path / name) for name in NAMES}


# --- what a home has pinned -------------------------------------------------------------------------------------------


def test_a_home_without_a_pin_belongs_to_no_consortium(homes: dict[str, PartyHome]) -> None:
    alder = homes["alder"]
    assert consortium_of(alder) is None
    assert peer_keys(alder, consortium_of(alder)) == {}


@pytest.mark.parametrize("file", ["roster.yaml", "roster.next.yaml"])
def test_a_roster_whose_pin_is_gone_is_not_taken_for_none(homes: dict[str, PartyHome], file: str) -> None:
    alder, first = homes["alder"], roster("alder", "hub")
    accept(alder.folder, first, first.digest())
    (alder.folder / "roster.pin").unlink()
    (alder.folder / "roster.yaml").rename(alder.folder / file)
    assert code(lambda: consortium_of(alder)) == "roster.altered"
    assert code(lambda: accept(alder.folder, first)) == "roster.not_pinned"
    accept(alder.folder, first, first.digest())
    assert pinned(alder.folder) == first


def test_the_first_roster_is_never_believed_without_its_whole_digest(homes: dict[str, PartyHome]) -> None:
    folder, first = homes["alder"].folder, roster("alder", "hub")
    assert code(lambda: accept(folder, first)) == "roster.not_pinned"
    for digest in ("", first.digest()[:-1], first.digest()[:16], roster("alder", version=2).digest()):
        assert code(lambda digest=digest: accept(folder, first, digest)) == "roster.digest"
    unsigned = roster("alder")
    assert code(lambda: accept(folder, unsigned, unsigned.digest())) == "roster.signatures"
    assert pinned(folder) is None
    spoken = " ".join(first.digest()[at : at + 8].upper() for at in range(0, 64, 8))
    accept(folder, first, spoken)
    assert pinned(folder) == first


def test_a_later_roster_is_accepted_by_its_signatures_and_an_earlier_one_never_again(
    homes: dict[str, PartyHome],
) -> None:
    folder, first, second = homes["alder"].folder, roster("alder", "hub"), roster("birch", "cedar", version=2)
    accept(folder, first, first.digest())
    assert code(lambda: accept(folder, second, first.digest())) == "roster.digest"
    accept(folder, second)
    assert pinned(folder) == second
    assert code(lambda: accept(folder, first, first.digest())) == "roster.older"
    assert code(lambda: accept(folder, roster("alder", version=3))) == "roster.signatures"
    assert pinned(folder) == second
    assert sorted(path.name for path in folder.glob("roster*")) == ["roster.lock", "roster.pin", "roster.yaml"]
    assert json.loads((folder / "roster.pin").read_text()) == {"version": 2, "digest": second.digest()}


def test_every_load_finds_an_altered_roster(homes: dict[str, PartyHome]) -> None:
    alder, first = homes["alder"], roster("alder", "hub")
    folder = alder.folder
    accept(folder, first, first.digest())
    roster(*NAMES, version=2).write(folder / "roster.yaml")
    assert code(lambda: consortium_of(alder)) == "roster.altered"
    roster("alder").write(folder / "roster.yaml")  # the same content without enough signatures
    assert code(lambda: consortium_of(alder)) == "roster.signatures"
    assert code(lambda: peer_keys(alder, consortium_of(alder))) == "roster.signatures"
    (folder / "roster.yaml").unlink()
    assert code(lambda: consortium_of(alder)) == "roster.missing"
    assert code(lambda: accept(folder, roster(*NAMES, version=2))) == "roster.missing"
    accept(folder, first)  # the pinned one may be put back
    assert pinned(folder) == first
    for text in ("", "{}", "{" * 2000, '{"version": 1, "digest": "00"}', '{"version": "1"}'):
        (folder / "roster.pin").write_text(text)
        assert code(lambda: consortium_of(alder)) == "roster.altered"


def test_an_acceptance_that_is_cut_short_leaves_the_old_roster_or_the_new_one(
    homes: dict[str, PartyHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rosters = homes["alder"].folder, [roster("alder", "hub", version=version) for version in (1, 2, 3, 4)]
    accept(folder, rosters[0], rosters[0].digest())
    replace, left = Path.replace, [0]

    def fails_in_time(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails_in_time)
    for done, expected in ((0, 1), (1, 1), (2, 2), (3, 2)):
        left[0] = done
        if done < 3:
            with pytest.raises(KeyboardInterrupt):
                accept(folder, rosters[1])
        else:
            accept(folder, rosters[1])
        found = pinned(folder)
        assert found is not None
        assert found.version == expected
    left[0] = 100
    accept(folder, rosters[2])
    assert pinned(folder) == rosters[2]


def test_a_first_acceptance_that_is_cut_short_believes_nothing(
    homes: dict[str, PartyHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = homes["alder"].folder, roster("alder", "hub")

    def fails(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr("isthmus.parties.consortium.write_whole", fails)  # of the pin
        accept(folder, first, first.digest())
    assert code(lambda: pinned(folder)) == "roster.altered"
    accept(folder, first, first.digest())
    assert pinned(folder) == first


def test_of_two_acceptances_at_once_the_later_version_stays(
    homes: dict[str, PartyHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (first, second, third) = homes["alder"].folder, [roster("alder", "hub", version=n) for n in (1, 2, 3)]
    accept(folder, first, first.digest())
    checked, done, write = threading.Event(), threading.Event(), Roster.write

    def waits(made: Roster, path: Path) -> None:
        if made.version == 2:  # checked against the first one
            checked.set()
            done.wait(0.5)  # for the third one, which would be accepted by then if it could be
        write(made, path)

    monkeypatch.setattr(Roster, "write", waits)
    sooner = threading.Thread(target=accept, args=(folder, second))
    sooner.start()
    assert checked.wait(10)
    accept(folder, third)
    done.set()
    sooner.join(10)
    found = pinned(folder)
    assert found is not None
    assert found.version == 3


def test_an_acceptance_that_does_not_end_keeps_others_waiting_for_a_while_only(
    homes: dict[str, PartyHome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = homes["alder"].folder, roster("alder", "hub")
    monkeypatch.setattr("isthmus.parties.consortium.LOCK_TIMEOUT_S", 0.1)
    with filelock.FileLock(folder / "roster.lock"):
        assert code(lambda: accept(folder, first, first.digest())) == "roster.busy"
    accept(folder, first, first.digest())


# --- what others ask of it --------------------------------------------------------------------------------------------


def test_a_consortium_says_its_names_keys_and_exchanges(homes: dict[str, PartyHome]) -> None:
    first = roster("alder", "hub")
    accept(homes["alder"].folder, first, first.digest())
    found = consortium_of(homes["alder"])
    assert found is not None
    assert (found.name, found.version, found.digest, found.me) == ("hearts", 1, first.digest(), "alder")
    assert found.key_of("birch") == KEYS["birch"].public_key().public_bytes_raw()
    assert found.member("hub").role == "coordinator"
    assert found.exchange() == found.exchange("relay") == first.exchanges["relay"]
    assert code(lambda: found.exchange("other")) == "roster.exchange_unknown"
    for ask in (found.key_of, found.member):
        with pytest.raises(InputError) as caught:
            ask("mallory")
        assert (caught.value.code, caught.value.facts) == (
            "roster.member_unknown",
            {"party": "alder", "peer": "mallory"},
        )
    assert peer_keys(homes["alder"], consortium_of(homes["alder"])) == {
        name: KEYS[name].public_key().public_bytes_raw() for name in NAMES
    }


@pytest.mark.parametrize(
    "exchanges", [{}, {n: {"address": "x:1", "certificate": TLS[n].certificate.decode()} for n in ("relay", "other")}]
)
def test_without_a_name_there_has_to_be_one_exchange(homes: dict[str, PartyHome], exchanges: dict[str, Any]) -> None:
    first = roster("alder", "hub", exchanges=exchanges)
    accept(homes["alder"].folder, first, first.digest())
    found = consortium_of(homes["alder"])
    assert found is not None
    assert code(found.exchange) == "roster.exchange_unknown"


def test_a_member_is_believed_through_its_last_day_and_one_more_and_never_once_revoked(
    homes: dict[str, PartyHome],
) -> None:
    entries = {
        **content()["members"],
        "birch": member("birch", until="2020-03-01"),
        "cedar": member("cedar", revoked="2020-01-01T00:00:00Z"),
    }
    first = roster("alder", "hub", members=entries)
    accept(homes["alder"].folder, first, first.digest())
    found = consortium_of(homes["alder"])
    assert found is not None
    assert found.key_of("birch", datetime(2020, 3, 2, 23, 59, 59, tzinfo=UTC))
    assert code(lambda: found.key_of("birch", datetime(2020, 3, 3, tzinfo=UTC))) == "roster.expired"
    assert code(lambda: found.key_of("cedar", datetime(2019, 1, 1, tzinfo=UTC))) == "roster.revoked"
    assert set(peer_keys(homes["alder"], consortium_of(homes["alder"]))) == {"alder", "hub"}
    assert first.revoked == {"cedar"}


def test_without_a_roster_the_keys_are_those_in_party_yaml(homes: dict[str, PartyHome]) -> None:
    folder = homes["alder"].folder
    (folder / "party.yaml").write_text(f"name: alder\nkeys: {{birch: '{member('birch')['key']}'}}\n")
    assert peer_keys(PartyHome(folder), consortium_of(PartyHome(folder))) == {
        "birch": KEYS["birch"].public_key().public_bytes_raw()
    }
    first = roster("alder", "hub")
    accept(folder, first, first.digest())
    assert set(peer_keys(PartyHome(folder), consortium_of(PartyHome(folder)))) == set(NAMES)


def test_a_home_checks_that_its_own_keys_are_those_in_the_roster(homes: dict[str, PartyHome]) -> None:
    alder, first = homes["alder"], roster("alder", "hub")
    accept(alder.folder, first, first.digest())
    found = consortium_of(alder)
    assert found is not None
    found.check_self(alder)
    assert code(lambda: found.check_self(alder, datetime.now(UTC) + timedelta(days=302))) == "roster.expired"

    def differs() -> object:
        with pytest.raises(InputError) as caught:
            found.check_self(alder)
        assert caught.value.code == "roster.key_differs"
        return caught.value.facts["field"]

    (alder.folder / "tls.key").write_bytes(TLS["other"].key)
    assert differs() == "TLS key"
    (alder.folder / "tls.key").write_bytes(b"no key")
    assert differs() == "TLS certificate"
    (alder.folder / "tls.crt").write_bytes(TLS["other"].certificate)
    (alder.folder / "tls.key").write_bytes(TLS["other"].key)
    assert differs() == "TLS certificate"
    (alder.folder / "tls.crt").unlink()
    assert code(lambda: found.check_self(alder)) == "home.no_certificate"
    (alder.folder / "identity.key").write_bytes(KEYS["mallory"].private_bytes_raw())
    assert differs() == "identity key"
    (alder.folder / "identity.key").unlink()
    assert code(lambda: found.check_self(alder)) == "home.no_identity"
    for file in ("roster.yaml", "roster.pin"):
        (alder.folder / file).unlink()
    assert code(lambda: found.check_self(alder)) == "home.no_identity"
    assert not (alder.folder / "identity.key").exists()


def test_a_revoked_home_does_not_take_itself_for_a_member(homes: dict[str, PartyHome]) -> None:
    out = {**content()["members"], "alder": member("alder", revoked="2020-01-01T00:00:00Z")}
    first = roster("birch", "hub", members=out)
    accept(homes["alder"].folder, first, first.digest())
    found = consortium_of(homes["alder"])
    assert found is not None
    assert code(lambda: found.check_self(homes["alder"])) == "roster.revoked"
