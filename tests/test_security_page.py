"""docs/security.md names tests for what it claims: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def _named() -> set[tuple[str, str]]:
    return set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE))


def test_every_test_that_the_page_names_is_there() -> None:
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    gone = [
        f"{file}::{test}"
        for file, test in sorted(_named())
        if file not in files or f"def {test}(" not in files[file].read_text(encoding="utf-8")
    ]
    assert gone == []


def test_the_page_names_many_and_says_nothing_of_tests_otherwise() -> None:
    assert len(_named()) > 40
    assert PAGE.count("::") == len(re.findall(r"`test_\w+\.py::test_\w+`|`file::test`", PAGE))
