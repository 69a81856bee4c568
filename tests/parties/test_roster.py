"""The roster: what members sign, who must have signed, what is refused, and what a change breaks."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.parties.certificate import expires
from isthmus.parties.errors import InputError
from isthmus.parties.roster import Member, Roster
from isthmus.parties.signature import verify
from isthmus.parties.strict_yaml import MOST_NBYTES

from ..roster_world import KEYS, NAMES, TLS, UNTIL, code, content, member, roster

# --- what is signed ---------------------------------------------------------------------------------------------------


def test_the_canonical_bytes_are_compact_sorted_json_of_all_but_the_signatures() -> None:
    revoked = {**content()["members"], "cedar": member("cedar", revoked="2020-01-02T03:04:05Z")}
    made = roster("alder", members=revoked)
    whole = content(members={name: {"revoked": None, **entry} for name, entry in revoked.items()})
    by_hand = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert made.canonical() == b"isthmus roster v1\n" + by_hand.encode("ascii")
    assert made.digest() == hashlib.sha256(made.canonical()).hexdigest()
    assert b'"revoked":"2020-01-02T03:04:05Z"' in made.canonical()


def test_a_roster_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    revoked = {**content()["members"], "cedar": member("cedar", revoked="2020-01-02T03:04:05Z")}
    for made in (roster("alder", "birch", members=revoked), roster(exchanges={}, threshold=1)):
        made.write(tmp_path / "roster.yaml")
        assert Roster.read(tmp_path / "roster.yaml") == made
        assert [path.name for path in tmp_path.iterdir()] == ["roster.yaml"]


def test_the_file_is_read_by_people_with_certificates_as_blocks_and_a_word_on_top(tmp_path: Path) -> None:
    roster("alder").write(tmp_path / "roster.yaml")
    text = (tmp_path / "roster.yaml").read_text()
    assert text.startswith("# The roster of an isthmus consortium")
    assert "certificate: |\n" in text
    assert f"until: {UNTIL}\n" in text
    order = [text.index(f"\n{word}:") for word in [*content(), "signatures"]]
    assert order == sorted(order)


CANONICAL = roster(*NAMES)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(CANONICAL.canonical()) - 1), st.integers(1, 255))
def test_a_change_of_any_byte_of_what_was_signed_breaks_every_signature(place: int, flip: int) -> None:
    changed = bytearray(CANONICAL.canonical())
    changed[place] ^= flip
    for name, signature in CANONICAL.signatures.items():
        assert not verify(CANONICAL.members[name].public, bytes.fromhex(signature), bytes(changed))


@pytest.mark.parametrize(
    "changes",
    [
        {"consortium": "lungs"},
        {"version": 2},
        {"threshold": 1},
        {"exchanges": {}},
        {"exchanges": {"relay": {**content()["exchanges"]["relay"], "address": "relay.example.org:9444"}}},
        {"exchanges": {"relay": {**content()["exchanges"]["relay"], "certificate": TLS["other"].certificate.decode()}}},
        {"members": {name: member(name) for name in ("alder", "birch", "hub")}},
        {"members": {**content()["members"], "mallory": member("mallory")}},
        {"members": {**content()["members"], "hub": member("hub", role="party")}},
        {"members": {**content()["members"], "hub": member("hub", until="2020-01-01")}},
        {"members": {**content()["members"], "hub": member("hub", revoked="2020-01-01T00:00:00Z")}},
        {"members": {**content()["members"], "hub": member("hub", key=member("mallory")["key"])}},
        {"members": {**content()["members"], "hub": member("hub", certificate=member("mallory")["certificate"])}},
    ],
)
def test_a_change_of_any_field_takes_every_signature_with_it(changes: dict[str, Any]) -> None:
    changed = Roster.model_validate({**content(**changes), "signatures": CANONICAL.signatures})
    assert changed.digest() != CANONICAL.digest()
    assert changed.signers() == ()
    assert code(changed.check_complete) == "roster.signatures"


# --- who must have signed ---------------------------------------------------------------------------------------------


def test_a_first_roster_is_complete_with_the_signatures_of_its_threshold() -> None:
    roster("alder", "hub").check_complete()
    with pytest.raises(InputError) as caught:
        roster("alder").check_complete()
    assert (caught.value.code, caught.value.facts) == ("roster.signatures", {"have": 1, "need": 2, "version": 1})


def test_only_good_signatures_of_members_that_are_not_revoked_count() -> None:
    made = roster("alder", "mallory")
    assert made.signers() == ("alder",)
    swapped = made.model_copy(update={"signatures": {"birch": made.signatures["alder"], **made.signatures}})
    assert swapped.signers() == ("alder",)
    revoked = {**content()["members"], "birch": member("birch", revoked="2020-01-01T00:00:00Z")}
    assert roster("alder", "birch", members=revoked).signers() == ("alder",)


def test_a_member_whose_time_is_over_can_still_sign_the_version_that_renews_it() -> None:
    over = {name: member(name, until="2020-01-01") for name in NAMES}
    before = roster("alder", "birch", members=over)
    roster("cedar", "hub", version=2).check_follows(before)


def test_a_later_version_needs_the_threshold_of_the_pinned_members_and_its_own() -> None:
    before = roster("alder", "birch")
    roster("alder", "hub", version=2).check_follows(before)
    roster("alder", "hub", version=7).check_follows(before)
    assert code(lambda: roster("alder", version=2).check_follows(before)) == "roster.signatures"
    # Its own threshold is higher.
    higher = roster("alder", "hub", version=2, threshold=3)
    with pytest.raises(InputError) as caught:
        higher.check_follows(before)
    assert (caught.value.code, caught.value.facts) == ("roster.signatures", {"have": 2, "need": 3, "version": 2})
    roster("alder", "hub", "birch", version=2, threshold=3).check_follows(before)


def test_new_members_cannot_vote_themselves_in() -> None:
    before = roster("alder", "birch")
    entry = {name: member(name) for name in ("alder", "mallory")}
    taken = roster("alder", "mallory", version=2, members=entry)
    taken.check_complete()
    with pytest.raises(InputError) as caught:
        taken.check_follows(before)
    assert (caught.value.code, caught.value.facts) == ("roster.signatures", {"have": 1, "need": 2, "version": 1})


def test_a_signature_by_the_pinned_version_is_by_the_key_it_has_there() -> None:
    before = roster("alder", "birch")
    renewed = {**content()["members"], "birch": member("birch", key=member("mallory")["key"])}
    after = Roster.model_validate(content(version=2, members=renewed))
    by_new_key = {
        "birch": KEYS["mallory"].sign(after.canonical()).hex(),
        "hub": KEYS["hub"].sign(after.canonical()).hex(),
    }
    taken = after.model_copy(update={"signatures": by_new_key})
    assert (taken.signers(), taken.signers(before)) == (("birch", "hub"), ("hub",))
    assert code(lambda: taken.check_follows(before)) == "roster.signatures"


def test_a_member_revoked_in_the_pinned_version_does_not_count_and_one_revoked_by_the_new_one_does() -> None:
    out = {**content()["members"], "birch": member("birch", revoked="2020-01-01T00:00:00Z")}
    before = roster("alder", "hub", members=out)
    back = roster("alder", "birch", version=2)
    assert code(lambda: back.check_follows(before)) == "roster.signatures"
    plain = roster("alder", "hub")
    roster("alder", "birch", "hub", version=2, members=out).check_follows(plain)
    assert roster("birch", "hub", version=2, members=out).signers(plain) == ("birch", "hub")


def test_versions_only_rise_and_one_version_has_one_content() -> None:
    before = roster("alder", "birch", version=3)
    roster("alder", "hub", version=3).check_follows(before)  # the same, signed by others
    for other in (roster(*NAMES, version=2), roster(*NAMES, version=3, threshold=3)):
        with pytest.raises(InputError) as caught:
            other.check_follows(before)
        assert (caught.value.code, caught.value.facts["pinned"]) == ("roster.older", 3)
    with pytest.raises(InputError) as caught:
        roster(*NAMES, version=4, consortium="lungs").check_follows(before)
    assert (caught.value.code, caught.value.facts["field"]) == ("roster.invalid", "consortium")


# --- what a roster may hold -------------------------------------------------------------------------------------------


def certificate(key: Any = None, names: tuple[str, ...] = ("isthmus",), issuer: str = "self", days: int = 400) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=days))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    signer = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, signer).public_bytes(serialization.Encoding.PEM).decode()


def members_with(**changes: Any) -> dict[str, Any]:
    return {"members": {**content()["members"], "hub": member("hub", **changes)}}


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"consortium": "Hearts"}, "consortium", "match"),
        ({"consortium": "hearts\n"}, "consortium", "match"),
        ({"version": 0}, "version", "greater"),
        ({"version": "1"}, "version", "integer"),
        ({"version": True}, "version", "integer"),
        ({"threshold": 0}, "threshold", "greater"),
        ({"threshold": 5}, "the whole file", "threshold is 5"),
        ({"more": 1}, "more", "no such field"),
        ({"members": {}}, "the whole file", "threshold is 2"),
        ({"signatures": {"hub": "00"}}, "signatures.hub", "match"),
        (members_with(role="owner"), "members.hub.role", "party"),
        (members_with(key="00"), "members.hub.key", "match"),
        (members_with(key="01" + "00" * 31), "members.hub.key", "anybody"),
        (members_with(key=member("alder")["key"]), "the whole file", "two members have the key"),
        (
            members_with(certificate=member("alder")["certificate"]),
            "the whole file",
            "two entries have the certificate",
        ),
        (
            members_with(certificate=TLS["relay"].certificate.decode()),
            "the whole file",
            "two entries have the certificate",
        ),
        (members_with(until="soon"), "members.hub.until", "2027-01-31"),
        (members_with(until=20270101), "members.hub.until", "2027-01-31"),
        (members_with(until="2027-02-30"), "members.hub.until", "day"),
        (members_with(until="2099-01-01"), "members.hub", "later than the end"),
        (members_with(revoked="2027-01-01"), "members.hub.revoked", "12:00:00Z"),
        (members_with(revoked="2027-01-01T00:00:00+01:00"), "members.hub.revoked", "12:00:00Z"),
        (members_with(certificate="x"), "members.hub.certificate", "PEM"),
        (members_with(certificate="é"), "members.hub.certificate", "PEM"),
        (members_with(certificate=TLS["hub"].key.decode()), "members.hub.certificate", "PEM"),
        (members_with(certificate=2 * member("hub")["certificate"]), "members.hub.certificate", "PEM"),
        (members_with(certificate="note\n" + member("hub")["certificate"]), "members.hub.certificate", "PEM"),
        (members_with(certificate=certificate(names=())), "members.hub.certificate", "PEM"),
        (members_with(certificate=certificate(names=("isthmus", "x.org"))), "members.hub.certificate", "only name"),
        (members_with(certificate=certificate(names=("x.org",))), "members.hub.certificate", "only name"),
        (members_with(certificate=certificate(issuer="another")), "members.hub.certificate", "self-signed"),
        (
            members_with(certificate=certificate(ec.generate_private_key(ec.SECP384R1()))),
            "members.hub.certificate",
            "P-256",
        ),
        (
            members_with(certificate=certificate(ed25519.Ed25519PrivateKey.generate())),
            "members.hub.certificate",
            "P-256",
        ),
        *(
            (
                {"exchanges": {"relay": {**content()["exchanges"]["relay"], "address": address}}},
                "exchanges.relay.address",
                "HOST:PORT",
            )
            for address in ("", "relay", "relay:0", "relay:65536", "http://relay:1", "me@relay:1", "::1:1", "relay:1\n")
        ),
    ],
)
def test_what_a_roster_cannot_hold_is_named(tmp_path: Path, changes: dict[str, Any], field: str, words: str) -> None:
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump(content(**changes)))
    with pytest.raises(InputError) as caught:
        Roster.read(tmp_path / "roster.yaml")
    assert (caught.value.code, caught.value.facts["field"]) == ("roster.invalid", field)
    assert words in str(caught.value.facts["problem"])
    assert caught.value.where == "roster.yaml"


def test_a_roster_as_made_by_hand_is_good_and_an_address_may_be_ipv6(tmp_path: Path) -> None:
    relay = {**content()["exchanges"]["relay"], "address": "[::1]:9443"}
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump(content(exchanges={"relay": relay})))
    assert Roster.read(tmp_path / "roster.yaml").exchanges["relay"].address == "[::1]:9443"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("a: &x 1", "line 1", "anchors"),
        ("a: 1\nb: *x", "line 2", "anchors"),
        ("a: &x [1]\nb: [*x, *x]", "line 1", "anchors"),
        ("version: 1\nversion: 2", "line 2", "twice"),
        ("members:\n  hub: {role: party, role: coordinator}", "line 2", "twice"),
        ("<<: {version: 1}", "line 1", "merged"),
        ("a: [", "line 1", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "line 1", "tags"),
        ("--- {}\n--- {}", "line 2", "not YAML"),
        ("\x00", "line 1", "not YAML"),
        ("[" * 5000, "line 1", "nested"),
        ("? [a]\n: 1", "line 1", "not YAML"),
        ("", "the whole file", "mapping"),
        ("just words", "the whole file", "mapping"),
    ],
)
def test_yaml_with_surprises_is_refused(tmp_path: Path, text: str, field: str, words: str) -> None:
    (tmp_path / "roster.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        Roster.read(tmp_path / "roster.yaml")
    assert caught.value.code == "roster.invalid"
    assert caught.value.facts["field"] == field
    assert words in str(caught.value.facts["problem"])


def test_a_name_out_of_a_file_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump(content()) + '"\\e[31m": 1\n')
    with pytest.raises(InputError) as caught:
        Roster.read(tmp_path / "roster.yaml")
    assert caught.value.facts == {"field": "\\x1b[31m", "problem": "there is no such field"}


def test_a_file_that_is_missing_or_larger_than_a_roster_can_be_is_refused(tmp_path: Path) -> None:
    assert code(lambda: Roster.read(tmp_path / "nowhere.yaml")) == "roster.missing"
    assert code(lambda: Roster.read(tmp_path)) == "roster.missing"
    (tmp_path / "roster.yaml").write_bytes(b"#" * (MOST_NBYTES + 1))
    assert code(lambda: Roster.read(tmp_path / "roster.yaml")) == "roster.invalid"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:[]{}&*!|>-?'\"\n #<", max_size=60))
def test_no_file_makes_the_reader_fail_in_another_way(tmp_path_factory: pytest.TempPathFactory, given_: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(given_ if isinstance(given_, bytes) else given_.encode())
    assert code(lambda: Roster.read(path)) == "roster.invalid"


def test_until_may_be_as_late_as_the_certificate_and_no_later() -> None:
    ends = expires(TLS["alder"].certificate).date()
    assert Member.model_validate(member("alder", until=ends)).until == ends
    with pytest.raises(ValueError, match="later than the end"):
        Member.model_validate(member("alder", until=ends + timedelta(days=1)))
