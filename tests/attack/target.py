"""What an attack on a parser needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

REFUSED, PASSED_ON, ACCEPTED = "refused", "passed on", "accepted"


@dataclass(frozen=True)
class Target:
    """One parser, ready to be tried.

    `attempt` takes one input and returns `REFUSED`, `PASSED_ON` (legal as it stands, and judged by something else
    behind the parser) or `ACCEPTED`; it may raise `documented`, which is a refusal. What `is_due` would rightly be
    accepted and is never tried. `still_works` tells afterwards whether the genuine input is still accepted. `bombs`
    are tried once each, for the memory that they ask for.
    """

    genuine: Sequence[bytes]
    attempt: Callable[[bytes], str]
    documented: tuple[type[Exception], ...]
    is_due: Callable[[bytes], bool] = lambda _: False
    still_works: Callable[[], bool] = lambda: True
    bombs: Sequence[bytes] = ()
