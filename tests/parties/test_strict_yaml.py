"""Files that a stranger wrote to stop whoever reads them: refused, at once, in words."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from isthmus.flows.jobs import load_job
from isthmus.parties.certificate import make_certificate
from isthmus.parties.errors import InputError
from isthmus.parties.roster import Roster
from isthmus.parties.starts import Start
from isthmus.parties.strict_yaml import BoundedLoader

from ..roster_world import member, roster

BOMBS = {
    "a float to the base of 60": "a: " + "1:" * 400 + "1.0",
    "an integer to the base of 60, which took hours": "a: " + "1:" * 200_000 + "1",
    "a long hexadecimal number": "a: 0x" + "f" * 900_000,
    "nested": "[" * 900_000,
    "a boolean that is none": "a: !!bool x",
    "an integer that is none": "a: !!int ''",
    "a float that is none": "a: !!float ''",
    "a time that is none": "a: !!timestamp x",
    "a map that is none": "a: !!map [b]",
    "a set that is none": "a: !!set [x]",
    "aliases of aliases": "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(30)),
    "an alias within itself": "a: &a [*a]",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "bomb.yaml").write_text(text)
    began = time.monotonic()
    for read in (Roster.read, load_job):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "bomb.yaml")
        assert caught.value.code in ("roster.invalid", "job.not_yaml")
    assert time.monotonic() - began < 30


def test_a_roster_of_500_members_is_read(tmp_path: Path) -> None:
    members = {}
    for number in range(500):
        key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        members[f"m{number}"] = member("alder", key=key, certificate=make_certificate(400).certificate.decode())
    made = roster(members=members)
    made.write(tmp_path / "roster.yaml")
    assert Roster.read(tmp_path / "roster.yaml") == made


def test_a_name_that_stands_twice_in_a_job_is_refused_where_it_stands_again(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: vertical\nalign:\n  at_least: 100\n  'at_least': 1\n")
    with pytest.raises(InputError) as caught:
        load_job(tmp_path / "job.yaml")
    assert (caught.value.code, caught.value.facts) == ("job.not_yaml", {"line": 4})


def test_a_job_may_merge_what_it_overrides() -> None:
    text = "one: &one {a: 1, b: 2}\ntwo: {<<: *one, a: 3}\n"
    found = yaml.load(text, BoundedLoader)  # noqa: S506 - a SafeLoader
    assert found == {"one": {"a": 1, "b": 2}, "two": {"a": 3, "b": 2}}


def test_a_job_of_two_megabytes_is_not_even_read(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("# " + "x" * 2_000_000)
    with pytest.raises(InputError) as caught:
        load_job(tmp_path / "job.yaml")
    assert caught.value.code == "job.invalid"


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+05:00"])
def test_a_start_until_the_edge_of_the_calendar_is_invalid(until: str) -> None:
    says = {"consortium": "c", "kind": "vertical", "by": "insurer", "until": until, "runs": 1}
    with pytest.raises(ValidationError):
        Start.model_validate({**says, "job": "a" * 64, "nonce": "0" * 32, "signature": "0" * 128})


def test_a_member_until_the_last_day_of_the_calendar_is_not_expired() -> None:
    days = (date(9999, 12, 30) - date.today()).days
    certificate = make_certificate(days).certificate.decode()
    made = roster(members={"alder": member("alder", certificate=certificate, until="9999-12-30")}, threshold=1)
    assert not made.members["alder"].expired(datetime.now(UTC))
