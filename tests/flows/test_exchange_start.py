from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from isthmus.flows.cli_exchange import FollowedRoster
from isthmus.parties.certificate import fingerprint, make_certificate
from isthmus.parties.consortium import accept
from isthmus.parties.errors import InputError
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.roster import ExchangeEntry, Member, Roster

START = (
    "from isthmus.flows import cli, cli_exchange; cli.app.command(cli_exchange.exchange, name='relaying'); cli.main()"
)


class Consortium:
    """Two members, an exchange's folder, and versions of the roster that both have signed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.own = folder / "exchange", make_certificate()
        self.folder.mkdir()
        self.identities, self.members = {}, {}
        for name in ("lab", "insurer"):
            (folder / name).mkdir()
            (folder / name / "party.yaml").write_text(f"name: {name}\n")
            self.identities[name] = Identity(PartyHome(folder / name))
            until = date.today() + timedelta(days=100)
            self.members[name] = Member(
                role="party",
                key=self.identities[name].public.hex(),
                certificate=make_certificate().certificate.decode(),
                until=until,
            )
        (self.folder / "tls.crt").write_bytes(self.own.certificate)
        (self.folder / "tls.key").write_bytes(self.own.key)
        (self.folder / "tls.key").chmod(0o600)
        self.configure(listen="127.0.0.1:0")

    def configure(self, **fields: str) -> None:
        (self.folder / "exchange.yaml").write_text(yaml.safe_dump({"name": "relay", **fields}))

    def roster(self, version: int, revoked: str = "") -> Roster:
        members = dict(self.members)
        if revoked:
            members[revoked] = members[revoked].model_copy(update={"revoked": datetime(2026, 1, 1, tzinfo=UTC)})
        entry = ExchangeEntry(address="127.0.0.1:9443", certificate=self.own.certificate.decode())
        draft = Roster(consortium="c", version=version, threshold=1, exchanges={"relay": entry}, members=members)
        signed = {name: own.sign(draft.canonical()).hex() for name, own in self.identities.items()}
        return draft.model_copy(update={"signatures": signed})

    def accept(self, roster: Roster) -> None:
        accept(self.folder, roster, roster.digest())

    def start(self, *more: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", START, "relaying", "start", "--folder", str(self.folder), *more]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def refused(self) -> str:
        """What it says when it does not start."""
        with self.start() as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
        return said


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_serves_and_ends_soon_when_told(consortium: Consortium, number: signal.Signals) -> None:
    consortium.accept(consortium.roster(3))
    metrics = free_port()
    consortium.configure(listen="127.0.0.1:0", metrics=f"127.0.0.1:{metrics}")
    before = sorted(consortium.folder.iterdir())
    with consortium.start("--json") as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            host, port = told.pop("address").split(":")
            expected = {"exchange": "relay", "certificate": fingerprint(consortium.own.certificate), "roster": 3}
            assert told == {**expected, "members": ["insurer", "lab"]}
            socket.create_connection((host, int(port)), timeout=10).close()
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
                assert b"isthmus_exchange_roster_version 3.0" in answer.read()
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(30) == 0
            assert time.monotonic() - began < 10
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
    assert sorted(consortium.folder.iterdir()) == before


def test_a_taken_port_is_named(consortium: Consortium) -> None:
    consortium.accept(consortium.roster(1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        consortium.configure(listen=address)
        assert f"error[exchange.port_taken]: another process listens on {address}" in consortium.refused()


def test_it_starts_only_with_all_its_files_in_order(consortium: Consortium) -> None:
    assert "error[roster.not_pinned]" in consortium.refused()
    consortium.accept(consortium.roster(1))
    (consortium.folder / "tls.crt").write_bytes(make_certificate().certificate)
    assert "error[roster.key_differs]" in consortium.refused()
    consortium.configure(listen="127.0.0.1:0", port="1")
    assert "error[exchange.invalid]: the exchange's 'port' is wrong: there is no such field" in consortium.refused()
    (consortium.folder / "exchange.yaml").unlink()
    assert "error[exchange.invalid]: the exchange's 'exchange.yaml' is wrong: there is no such" in consortium.refused()


def test_the_roster_is_followed_as_it_changes(consortium: Consortium) -> None:
    consortium.accept(consortium.roster(1))
    followed = FollowedRoster(consortium.folder)
    first = followed()
    assert set(first.members) == {"lab", "insurer"}
    assert (first.version, first.revoked, first.expired) == (1, frozenset(), frozenset())
    assert followed() == first
    consortium.accept(consortium.roster(2, revoked="lab"))
    assert (followed().version, followed().revoked) == (2, frozenset({"lab"}))


def test_a_member_whose_time_is_over_is_expired(consortium: Consortium) -> None:
    early = date.today() - timedelta(days=10)
    consortium.members["lab"] = consortium.members["lab"].model_copy(update={"until": early})
    consortium.accept(consortium.roster(1))
    assert FollowedRoster(consortium.folder)().expired == {"lab"}


@pytest.mark.parametrize("how", ["altered", "cut short", "gone", "older"])
def test_a_roster_that_cannot_be_believed_leaves_the_one_before(
    consortium: Consortium, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    consortium.accept(consortium.roster(1))
    kept = {path: path.read_bytes() for path in consortium.folder.iterdir()}
    consortium.accept(consortium.roster(2, revoked="lab"))
    followed = FollowedRoster(consortium.folder)
    file = consortium.folder / "roster.yaml"
    if how == "altered":
        file.write_text("\n".join(line for line in file.read_text().splitlines() if "revoked" not in line))
    elif how == "cut short":
        os.truncate(file, 100)
    elif how == "gone":
        file.unlink()
    else:
        for path, content in kept.items():
            path.write_bytes(content)
    for _ in range(3):
        assert (followed().version, followed().revoked) == (2, frozenset({"lab"}))
    assert caplog.text.count("stays") == 1  # said once, not at every look


def test_without_a_roster_there_is_nothing_to_follow(consortium: Consortium) -> None:
    with pytest.raises(InputError) as caught:
        FollowedRoster(consortium.folder)
    assert caught.value.code == "roster.not_pinned"
