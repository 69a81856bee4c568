"""Whose processes these are, as the environment says: the member's name, and where its vault is to be had.

`isthmus coordinator start` sets it for the coordinating flows that it starts. Where it is not set, a flow runs its job
with every vault on this machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ..vault_handle import Keeper, KeptApart, KeptHere

MEMBER_VARIABLE, CONSORTIUM_VARIABLE = "ISTHMUS_MEMBER", "ISTHMUS_CONSORTIUM"
HOME_VARIABLE, SOCKET_VARIABLE = "ISTHMUS_VAULT_HOME", "ISTHMUS_VAULT_SOCKET"


@dataclass(frozen=True)
class Seat:
    """A member of a consortium, and its vault: in a home that we may read, or behind a socket."""

    member: str
    consortium: str = ""
    home: Path | None = None
    socket: Path | None = None

    @cached_property
    def keeper(self) -> Keeper:
        """Where its vault is to be had."""
        if self.socket is not None:
            return KeptApart(self.socket)
        assert self.home is not None
        return KeptHere(self.home)

    def variables(self) -> dict[str, str]:
        """The environment that says so."""
        where = {SOCKET_VARIABLE: str(self.socket)} if self.socket else {HOME_VARIABLE: str(self.home)}
        return {MEMBER_VARIABLE: self.member, CONSORTIUM_VARIABLE: self.consortium, **where}


@cache
def seat() -> Seat | None:
    """The seat that the environment names, if it names one."""
    member = os.environ.get(MEMBER_VARIABLE)
    home, path = os.environ.get(HOME_VARIABLE), os.environ.get(SOCKET_VARIABLE)
    if not member or not (home or path):
        return None
    consortium = os.environ.get(CONSORTIUM_VARIABLE, "")
    return Seat(member, consortium, Path(home) if home else None, Path(path) if path else None)
