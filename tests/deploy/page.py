"""The blocks of docs/deploy.md: commands, with where they are typed and as whom.

The first line of each says it: ``# on insurer, lab and hub, as isthmus-vault``; ``; not rehearsed`` behind it marks
what needs the internet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_FIRST = re.compile(r"# on (?P<where>.+), as (?P<user>[a-z-]+)(?:; (?P<remark>.+))?")


@dataclass(frozen=True)
class Block:
    """Commands for some machines, in that order."""

    section: str
    machines: tuple[str, ...]
    user: str
    rehearsed: bool
    text: str


def blocks(text: str) -> list[Block]:
    """All blocks of a page; raises `ValueError` for one that does not say where it is typed, and as whom."""
    headings = [(found.start(), found[1]) for found in _HEADING.finditer(text)]
    made = []
    for found in _BLOCK.finditer(text):
        first = _FIRST.fullmatch(found[1].partition("\n")[0])
        if first is None:
            raise ValueError(f"a block does not say where it is typed, and as whom: {found[1]}")
        section = [title for start, title in headings if start < found.start()][-1]
        machines = tuple(re.split(r", | and ", first["where"]))
        made.append(Block(section, machines, first["user"], first["remark"] != "not rehearsed", found[1]))
    return made


def of_section(made: Iterable[Block], number: int) -> list[Block]:
    """The blocks of section `number`."""
    return [block for block in made if block.section.startswith(f"{number}. ")]
