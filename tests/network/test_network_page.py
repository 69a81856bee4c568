"""docs/network.md says of errors what the catalogue says."""

from __future__ import annotations

import re
from pathlib import Path

from isthmus.parties.catalogue import CATALOGUE
from isthmus.parties.errors import error_of

PAGE = Path(__file__).parents[2] / "docs" / "network.md"
ROW = re.compile(r"^\| `([a-z_.]+)` \| (\d) \| (.+?) \| (.+) \|$", re.MULTILINE)


def fits(template: str, text: str) -> bool:
    """Whether a text is the template with something in the place of each fact."""
    return re.fullmatch(".+?".join(map(re.escape, re.split(r"\{\w+\}", template))), text) is not None


def test_the_table_of_errors_holds_their_real_words() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) > 20
    for code, status, what, hint in rows:
        words = CATALOGUE[code]
        assert fits(words.what, what), code
        assert fits(words.next, hint), code
        assert error_of(code).exit_code == int(status), code


def test_errors_of_the_way_to_the_exchange_are_all_in_the_table() -> None:
    told = {code for code, *_ in ROW.findall(PAGE.read_text())}
    assert {code for code in CATALOGUE if code.startswith("exchange.")} - told == {"exchange.invalid"}
