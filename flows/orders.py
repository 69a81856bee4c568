"""What a flow says to a vault: JSON lines over the pipe between them. What comes back is `PublicEvent`s.

::

    1  flow → vault   `Open`: which job, which run; or `Sign`: put this member's name under a job, and that is all
    2  flow → vault   `Command`: a phase, one after the other
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..parties.events import Phase
from ..parties.network.channel import TIMEOUT_S
from ..parties.starts import Start

LINE_NBYTES = 4 * 1024 * 1024  # of what a flow says at a time
RUN_PATTERN = r"^[a-z][a-z0-9_-]{0,79}$"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Open(_Line):
    """The first line on the pipe: which job, which run. Members that meet at an exchange have no sockets here."""

    job: dict[str, Any]
    start: Start | None = None
    run: str = Field(pattern=RUN_PATTERN)
    fresh: bool = False
    by_exchange: bool = False
    timeout_s: float = Field(default=TIMEOUT_S, gt=0)


class Sign(_Line):
    """The first line instead, and the only one: the member is to sign one run of a job, if its policy lets it."""

    sign: dict[str, Any]
    run: str = Field(pattern=RUN_PATTERN)


class Command(_Line):
    """Every line after `Open`: the phase to do next."""

    phase: Phase
