"""The ledger: there before the first byte, and any change of it shows."""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pytest

from isthmus.parties.errors import InputError, InternalError
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Entry, Ledger, Verdict
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Buffer, Message, Step, Topic, encode
from isthmus.parties.state import State

JOB = "a" * 64


def _filled(home: PartyHome, entries: int = 5) -> Ledger:
    ledger = Ledger(home)
    for number in range(entries):
        ledger.append(Entry(at="now", event="open", run=f"r-{number % 2}", job=JOB, peer="insurer", topic=Topic.ALIGN))
    return ledger


def _change(home: PartyHome, *statements: str) -> None:
    with duckdb.connect(home.state_file) as connection:
        for statement in statements:
            connection.execute(statement)


class _Looking:
    """A carrier that reads the ledger at the moment when bytes are to leave."""

    def __init__(self, ledger: Ledger) -> None:
        self._inner, self._other = memory_pair()
        self._ledger = ledger
        self.seen: list[list[Entry]] = []

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        self.seen.append(self._ledger.entries())
        self._inner.send(topic, buffers, timeout_s, on_blocked)

    def receive(self, timeout_s: float) -> bytearray:
        return self._inner.receive(timeout_s)

    def close(self, *, linger_s: float = 0.0) -> None:
        self._inner.close()


def test_the_open_row_is_there_before_the_first_byte(home: PartyHome) -> None:
    ledger = Ledger(home)
    carrier = _Looking(ledger)
    channel = Channel(carrier, me="lab", peer="insurer", log=ledger.job("r-1", JOB), timeout_s=5)
    channel.send(Topic.ALIGN, Step.POINTS)
    channel.send(Topic.TRAIN, Step.FORWARD)
    channel.send(Topic.ALIGN, Step.SIZE)
    channel.close()
    said = [[(entry.event, entry.topic, entry.peer, entry.run, entry.job) for entry in seen] for seen in carrier.seen]
    opens = [("open", topic, "insurer", "r-1", JOB) for topic in (Topic.ALIGN, Topic.TRAIN)]
    assert said == [opens[:1], opens, opens]


def test_the_close_row_has_the_bytes_and_their_keyed_digest(home: PartyHome) -> None:
    ledger = Ledger(home)
    channel = Channel(memory_pair()[0], me="lab", peer="insurer", log=ledger.job("r-1", JOB), timeout_s=5)
    sent = b""
    for step in (Step.POINTS, Step.SIZE):
        channel.send(Topic.ALIGN, step, {"a": step.value})
        sent += b"".join(encode(Message(Topic.ALIGN, step, {"a": step.value})))
    channel.close()
    opened, closed = ledger.entries()
    assert (opened.nbytes, opened.digest) == (0, "")
    assert closed.nbytes == len(sent)
    assert closed.digest == hmac.new(home.ledger_key(), b"stream\n" + sent, hashlib.sha256).hexdigest()
    assert closed.digest != hashlib.sha256(sent).hexdigest()
    assert ledger.verify().entries == 2


def test_a_ledger_that_cannot_write_stops_the_send_and_no_byte_leaves(
    home: PartyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(home)
    carrier = _Looking(ledger)
    channel = Channel(carrier, me="lab", peer="insurer", log=ledger.job("r-1", JOB), timeout_s=5)

    def full(self: State) -> Any:
        raise InputError("disk.full", party="lab")

    with monkeypatch.context() as context:
        context.setattr(State, "transaction", full)
        with pytest.raises(InputError) as caught:
            channel.send(Topic.ALIGN, Step.POINTS)
    assert caught.value.code == "disk.full"
    assert carrier.seen == []
    channel.send(Topic.ALIGN, Step.POINTS)  # there is room again
    assert [entry.event for entry in carrier.seen[0]] == ["open"]
    channel.close()


def test_a_full_disk_stops_the_send_and_keeps_the_chain_whole(home: PartyHome, with_little_disk: Any) -> None:
    _filled(home, 3)
    program = (
        "from isthmus.parties.ledger import Ledger\n"
        "from isthmus.parties.network.channel import Channel\n"
        "from isthmus.parties.network.local import memory_pair\n"
        "from isthmus.parties.network.message import Step, Topic\n"
        "home = PartyHome(Path(sys.argv[1])); ours, theirs = memory_pair()\n"
        "channel = Channel(ours, me='lab', peer='insurer', log=Ledger(home).job('r-1', 'x'), timeout_s=5)\n"
        "fill(100); print(code_of(lambda: channel.send(Topic.ALIGN, Step.POINTS))); free()\n"
        "print(theirs._inbox.qsize(), dict(channel.sent)); channel.close()"
    )
    assert with_little_disk(program, home.folder).stdout == "disk.full\n0 {}\n"
    assert Ledger(home).verify().entries == 3


def test_a_ledger_whose_key_is_gone_is_broken_before_anything_leaves(home: PartyHome) -> None:
    _filled(home, 2)
    key = home.folder / "ledger.key"
    key.unlink()
    for _ in range(2):
        with pytest.raises(InternalError) as caught:
            Ledger(home)
        assert caught.value.code == "ledger.broken"
        assert not key.exists(), "a new key would hide that the old one is gone"


def test_entries_come_back_as_they_were_written_oldest_first(home: PartyHome) -> None:
    ledger = _filled(home)
    assert [entry.run for entry in ledger.entries()] == ["r-0", "r-1", "r-0", "r-1", "r-0"]
    assert [entry.run for entry in ledger.entries("r-1")] == ["r-1", "r-1"]
    assert ledger.entries("r-9") == []
    stamped = ledger.job("r-1", JOB).entry("close", "insurer", Topic.TRAIN, 5, "d")
    ledger.append(stamped)
    assert Ledger(home).entries()[-1] == stamped
    assert stamped.at.endswith("+00:00")


def test_the_chain_is_an_hmac_over_number_previous_and_text(home: PartyHome) -> None:
    ledger = _filled(home, 2)
    with State(home).transaction() as connection:
        rows = connection.execute("SELECT entry_number, entry, mac FROM ledger ORDER BY 1").fetchall()
    previous = "0" * 64
    for number, text, mac in rows:
        assert mac == hmac.new(home.ledger_key(), f"{number}\n{previous}\n{text}".encode(), hashlib.sha256).hexdigest()
        previous = mac
    assert ledger.verify() == Verdict(2, previous)


def test_an_empty_ledger_verifies(home: PartyHome) -> None:
    assert Ledger(home).verify() == Verdict(0, "0" * 64)


TAMPERED: list[tuple[str, tuple[str, ...], int]] = [
    ("changed", ("UPDATE ledger SET entry = replace(entry, 'insurer', 'clinic') WHERE entry_number = 3",), 3),
    ("one space more", ("UPDATE ledger SET entry = entry || ' ' WHERE entry_number = 5",), 5),
    ("another code", ("UPDATE ledger SET mac = repeat('0', 64) WHERE entry_number = 2",), 2),
    ("dropped", ("DELETE FROM ledger WHERE entry_number = 1",), 1),
    (
        "dropped and renumbered",
        (
            "DELETE FROM ledger WHERE entry_number = 2",
            "UPDATE ledger SET entry_number = entry_number + 99 WHERE entry_number > 2",
            "UPDATE ledger SET entry_number = entry_number - 100 WHERE entry_number > 2",
        ),
        2,
    ),
    (
        "inserted",
        ("INSERT INTO ledger SELECT 6, entry, mac FROM ledger WHERE entry_number = 5",),
        6,
    ),
    (
        "swapped",
        (
            "CREATE TEMP TABLE kept AS SELECT * FROM ledger WHERE entry_number IN (2, 4)",
            "UPDATE ledger SET entry = k.entry, mac = k.mac FROM kept k WHERE k.entry_number = 6 - ledger.entry_number "
            "AND ledger.entry_number IN (2, 4)",
        ),
        2,
    ),
]


@pytest.mark.parametrize(("statements", "entry"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_an_entry_that_was_tampered_with_shows(home: PartyHome, statements: tuple[str, ...], entry: int) -> None:
    ledger = _filled(home)
    assert ledger.verify().entries == 5
    _change(home, *statements)
    with pytest.raises(InternalError) as caught:
        Ledger(home).verify()
    assert (caught.value.code, caught.value.facts["entry"]) == ("ledger.broken", entry)


def test_entries_cut_off_at_the_end_show_in_the_head(home: PartyHome) -> None:
    head = _filled(home).verify()
    _change(home, "DELETE FROM ledger WHERE entry_number = 5")
    assert Ledger(home).verify().head != head.head


def _another_key(home: PartyHome) -> None:
    (home.folder / "ledger.key").write_bytes(bytes(32))
    (home.folder / "ledger.key").chmod(0o600)


def test_another_key_does_not_verify_the_chain(home: PartyHome) -> None:
    _filled(home)
    _another_key(home)
    with pytest.raises(InternalError):
        Ledger(home).verify()


def test_the_key_is_its_owners_alone(home: PartyHome) -> None:
    _filled(home)
    assert stat.S_IMODE((home.folder / "ledger.key").stat().st_mode) == 0o600


def test_each_party_digests_the_same_bytes_differently(home: PartyHome) -> None:
    digest = Ledger(home).keyed_digest()
    digest.update(b"x")
    _another_key(home)
    other = Ledger(home).keyed_digest()
    other.update(b"x")
    assert digest.hexdigest() != other.hexdigest()
