"""Errors: every code has words, every word is used, and what is private stays out of both."""

from __future__ import annotations

import ast
import errno
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import isthmus.parties.errors
from isthmus.parties.catalogue import CATALOGUE
from isthmus.parties.errors import (
    InputError,
    InternalError,
    IsthmusError,
    PeerFailure,
    PolicyRefusal,
    disk_errors,
    error_of,
)

ROOT = Path(isthmus.parties.errors.__file__).parents[1]
PACKAGES = ("parties", "psi", "horizontal", "vertical", "transfer", "flows")
CLASSES = {"InputError": InputError, "PolicyRefusal": PolicyRefusal, "PeerFailure": PeerFailure}
CLASSES |= {"InternalError": InternalError}
FACTORIES = ("_error", "_failure", "error_of", "_opening")


def _raised() -> Iterator[tuple[str, str, set[str]]]:
    """Every call that makes an error: who is called, the code, the names of the facts."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in CLASSES or called in FACTORIES or called.endswith("Error"):
                    facts = {keyword.arg or "**" for keyword in node.keywords}
                    for code in _texts(node.args[0]) if node.args else ():
                        if code in CATALOGUE or ("." in code and " " not in code):
                            yield called, code, facts


def _texts(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _kept_in_tables() -> set[str]:
    """Codes that stand in a table of causes or are noted for later, not in the call itself."""
    files = (
        "parties/state.py",
        "parties/network/channel.py",
        "parties/network/lane.py",
        "flows/phases.py",
        "parties/network/sealed.py",
    )
    source = "".join((ROOT / file).read_text() for file in files)
    return {code for code in _texts(ast.parse(source)) if code in CATALOGUE}  # type: ignore[arg-type]


def test_every_code_that_is_raised_has_words() -> None:
    raised = list(_raised())
    assert len(raised) > 40
    assert {code for _, code, _ in raised} <= set(CATALOGUE)


def test_every_entry_of_the_catalogue_is_raised_somewhere() -> None:
    assert set(CATALOGUE) - {code for _, code, _ in _raised()} - _kept_in_tables() == set()


def test_a_code_is_raised_as_the_class_that_its_first_word_stands_for() -> None:
    for called, code, _ in _raised():
        if called in CLASSES:
            assert type(error_of(code)) is CLASSES[called], code


@pytest.mark.parametrize(
    ("code", "kind", "builtin", "exit_code"),
    [
        ("job.invalid", InputError, ValueError, 2),
        ("data.sql", InputError, ValueError, 2),
        ("disk.full", InputError, ValueError, 2),
        ("policy.column", PolicyRefusal, PermissionError, 3),
        ("peer.gone", PeerFailure, ConnectionError, 4),
        ("vault.died", PeerFailure, ConnectionError, 4),
        ("internal", InternalError, RuntimeError, 1),
        ("ledger.broken", InternalError, RuntimeError, 1),
    ],
)
def test_every_class_has_its_exit_code_and_the_builtin_that_one_would_expect(
    code: str, kind: type[IsthmusError], builtin: type[Exception], exit_code: int
) -> None:
    error = error_of(code)
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert error.exit_code == exit_code


def test_an_error_reads_as_the_design_shows_it() -> None:
    error = PolicyRefusal(
        "policy.column", party="insurer", dataset="members", column="postcode", where="job.yaml, parties.insurer"
    )
    assert error.text() == (
        "error[policy.column]: insurer does not release column 'postcode' of 'members'\n"
        "  where job.yaml, parties.insurer\n"
        "  next  remove the column, or ask insurer to add it to its policy"
    )


def test_without_a_place_the_error_has_no_empty_line() -> None:
    assert error_of("run.active").text().splitlines() == [
        "error[run.active]: this job is already running",
        "  next  wait for it to end, or stop it",
    ]


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_missing_fact_is_named_by_its_kind_and_leaves_no_bracket_open(code: str) -> None:
    error = error_of(code)
    assert "{" not in error.text()
    assert "}" not in error.text()
    names = {name for text in CATALOGUE[code] for _, name, _, _ in string.Formatter().parse(text) if name}
    for name in names - {"party", "peer"}:
        assert f"({name}: see the party's log)" in error.text()


def test_a_fact_that_looks_like_a_template_is_not_filled_in() -> None:
    error = error_of("job.invalid", problem="{party} {0} {problem.__class__}", party="lab")
    assert error.what == "{party} {0} {problem.__class__}"


@pytest.mark.parametrize("code", CATALOGUE)
def test_detail_never_shows_in_the_words(code: str) -> None:
    error = error_of(code, detail="PLANTED")
    assert "PLANTED" not in error.text() + str(error) + repr(error)


def test_an_error_made_afresh_has_no_detail_cause_or_traceback() -> None:
    try:
        try:
            raise KeyError("PLANTED")
        except KeyError as cause:
            raise InputError("data.sql", party="lab", dataset="results", detail="PLANTED", where="here") from cause
    except InputError as error:
        fresh = error.afresh()
    assert type(fresh) is InputError
    assert fresh.text() == InputError("data.sql", party="lab", dataset="results", where="here").text()
    assert (fresh.detail, fresh.__cause__, fresh.__context__, fresh.__traceback__) == ("", None, None, None)


def test_an_unknown_code_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        InputError("job.surprise")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk.full"),
        (errno.EDQUOT, "disk.full"),
        (errno.EFBIG, "disk.full"),
        (errno.EACCES, "disk.denied"),
        (errno.EPERM, "disk.denied"),
        (errno.EROFS, "disk.denied"),
    ],
)
def test_what_the_disk_refuses_is_an_input_error(number: int, code: str) -> None:
    with pytest.raises(InputError) as caught, disk_errors("lab"):
        raise OSError(number, "PLANTED")
    assert caught.value.code == code
    assert "PLANTED" not in caught.value.text()


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "x"), PolicyRefusal("policy.peer"), PeerFailure("peer.gone")])
def test_other_failures_pass_the_disk_unchanged(failure: Exception) -> None:
    with pytest.raises(type(failure)) as caught, disk_errors("lab"):
        raise failure
    assert caught.value is failure
