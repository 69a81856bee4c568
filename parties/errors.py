"""What can go wrong, said so that the reader knows what to do next.

::

    IsthmusError                 code, facts, exit_code
    ├── InputError   (ValueError)         2   a job, a home or data that has to be put right
    ├── PolicyRefusal (PermissionError)   3   a party's policy does not allow it
    ├── PeerFailure  (ConnectionError)    4   another party went silent, or broke the protocol
    └── InternalError (RuntimeError)      1   our fault

Every error has a stable code from `catalogue`. Its words come from there and from `facts`: names that the job itself
holds, and numbers. That is what lets an error leave a vault (see `events`): the code and the public facts travel, the
words are put together again on the other side. What only the party may read goes into `detail`, which stays in its log.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from .catalogue import CATALOGUE

Fact = str | int

_PLAIN_WORDS = {
    "extra_forbidden": "there is no such field",
    "missing": "this field is missing",
    "model_type": "this has to be a mapping of fields",
    "model_attributes_type": "this has to be a mapping of fields",
    "dict_type": "this has to be a mapping",
    "tuple_type": "this has to be a list",
}


def plain_problem(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in the words of someone who writes YAML."""
    known = _PLAIN_WORDS.get(error["type"])
    return known or str(error["msg"]).removeprefix("Value error, ")


class IsthmusError(Exception):
    """An error with a code of `catalogue`; `facts` fill its words, `detail` is for the party's own log alone.

    `where` names a place in a file the user holds (such as ``readmission.yaml, parties.insurer``).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, *, where: str = "", detail: str = "", **facts: Fact) -> None:
        words = CATALOGUE[code]
        self.code, self.facts, self.where, self.detail = code, facts, where, detail
        self.what, self.next = _fill(words.what, facts), _fill(words.next, facts)
        super().__init__(f"error[{code}]: {self.what}")

    def afresh(self) -> IsthmusError:
        """The same error without its detail, its cause and its traceback: what may be shown to anybody."""
        facts: dict[str, Any] = dict(self.facts)
        return error_of(self.code, where=self.where, **facts)

    def text(self) -> str:
        """All lines as a person reads them: what, where, what to do next."""
        lines = [str(self), f"  where {self.where}" if self.where else "", f"  next  {self.next}"]
        return "\n".join(line for line in lines if line)


class InputError(IsthmusError, ValueError):
    """Something the user or a party's engineer has to put right."""

    exit_code = 2


class PolicyRefusal(IsthmusError, PermissionError):
    """A party's policy does not allow it. Nothing has left that party."""

    exit_code = 3


class PeerFailure(IsthmusError, ConnectionError):
    """Another party is gone, silent or does not keep to the protocol."""

    exit_code = 4


class InternalError(IsthmusError, RuntimeError):
    """A fault of ours."""

    exit_code = 1


_PREFIXES: tuple[tuple[str, type[IsthmusError]], ...] = (
    ("policy.", PolicyRefusal),
    ("secagg.", PolicyRefusal),
    ("rounds.", PeerFailure),
    ("sum.", PeerFailure),
    ("peer.", PeerFailure),
    ("vault.user", InputError),
    ("vault.", PeerFailure),
    ("worker.", PeerFailure),
    ("exchange.port_taken", InputError),
    ("exchange.invalid", InputError),
    ("exchange.", PeerFailure),  # of a member's way to it
    ("internal", InternalError),
    ("ledger.", InternalError),
    ("", InputError),
)


def error_of(code: str, *, where: str = "", detail: str = "", **facts: Any) -> IsthmusError:
    """Make the error of a code, of the class that the code's first word stands for."""
    kind = next(kind for prefix, kind in _PREFIXES if code.startswith(prefix))
    return kind(code, where=where, detail=detail, **facts)


@contextmanager
def disk_errors(party: str) -> Iterator[None]:
    """Turn a full or forbidden disk into `disk.full` and `disk.denied`; other errors pass."""
    try:
        yield
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError("disk.full", party=party, detail=str(failure)) from failure
        if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise InputError("disk.denied", party=party, detail=str(failure)) from failure
        raise


def _fill(template: str, facts: dict[str, Fact]) -> str:
    return template.format_map(_Facts(facts))


class _Facts(dict[str, Fact]):
    """A fact that is not known here, or could not leave the party, is named by its kind instead."""

    def __missing__(self, name: str) -> str:
        return {"party": "a party", "peer": "its peer"}.get(name, f"({name}: see the party's log)")
