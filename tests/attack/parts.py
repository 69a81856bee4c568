"""Runs the parts of an attack that are named, or all, and tells how often each was tried and got through."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

from score import Score

QUICK = os.environ.get("QUICK", "") not in ("", "0")
Attack = Callable[[], Iterator[Score]]


def attacked(part: str) -> Iterator[Score]:
    """The scores of `attacks_PART`; a part that fails is one that did not run."""
    try:
        yield from importlib.import_module(f"attacks_{part}").run(QUICK)
    except Exception:
        traceback.print_exc()
        yield Score(f"{part} did not run to its end")


def tell(parts: Mapping[str, str], others: Mapping[str, Attack] | None = None) -> int:
    """Run the parts that the arguments name, or all; the exit code: 1 if something got through or did not run.

    `parts` says what each is about; `others` are those that are not `attacks_PART`.
    """
    named = sys.argv[1:] or list(parts)
    if unknown := set(named) - parts.keys():
        print(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        return 2
    scores, began = [], time.monotonic()
    for part in named:
        print(f"\n{part}: {parts[part]}", flush=True)
        since = time.monotonic()
        for score in (others or {}).get(part, lambda part=part: attacked(part))():  # type: ignore[misc]
            scores.append(score)
            print(score.line(), flush=True)
        print(f"  ({time.monotonic() - since:.0f} s)", flush=True)
    tried, through = sum(score.tried for score in scores), sum(score.got_through for score in scores)
    failed = [score.attack for score in scores if not score.held]
    print(f"\n{len(scores)} attacks, {tried:,} tries in {time.monotonic() - began:.0f} s; got through: {through}")
    for attack in failed:
        print(f"NOT HELD: {attack}")
    print(json.dumps({"tried": tried, "got_through": through, "attacks": len(scores), "not_held": failed}))
    return 1 if failed else 0


def end(status: int) -> None:
    """End at once: threads of an attacker that was cut off may not end by themselves."""
    sys.stdout.flush()
    os._exit(status)


def prepare() -> None:
    """What every attack wants of its own process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends as well
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
