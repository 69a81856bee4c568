"""What an error says."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """The text of one code: what happened, and what to do next. `{name}` stands for a fact."""

    what: str
    next: str
