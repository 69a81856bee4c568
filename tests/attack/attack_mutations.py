"""Mutated inputs against every parser that reads what a stranger sends: `make attack-network`, or this file alone.

Bits flipped, numbers set to their edges, cut, lengthened, spliced from two genuine inputs, noise, and genuine ones
where they are not due (`mutations`). For each parser (`targets_session`, `targets_carriers`, `targets_files`) a line
says how often it was tried and what came of it. It must be that nothing is accepted that was not due, that no exception
comes but those that the parser documents, that memory stays below the parser's cap, and that the genuine input is still
taken afterwards. Otherwise the exit code is 1. What is "passed on" is legal as it stands, and something else judges it:
a frame's header for its seal, a HELLO for the AUTH, a roster for its signatures.

QUICK=1 tries 20,000 in all. SEED=n repeats a run.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import targets_carriers as carriers
import targets_files as files
import targets_session as session
from mutations import mutated
from target import ACCEPTED, PASSED_ON, REFUSED, Target

QUICK = os.environ.get("QUICK", "") not in ("", "0")
QUICK_TRIES = 20_000
PROCESSES = 2
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Parser:
    """How often a parser is tried, and how much memory it may take for one input, in MB."""

    target: Callable[[], Target]
    tries: int
    cap_mb: float


# A parser reads one frame of little more than 1 MiB, and may hold it, its copy, and what the allocator keeps.
PARSERS = {
    "frame.parse": Parser(session.frame_parse, 1_000_000, 8),
    "message.decode": Parser(session.message_decode, 1_000_000, 96),
    "Handshake.on_hello (lower name)": Parser(session.on_hello_lower, 1_000_000, 8),
    "Handshake.on_hello (higher name)": Parser(session.on_hello_higher, 1_000_000, 8),
    "Handshake.on_auth (lower name)": Parser(session.on_auth_lower, 1_000_000, 8),
    "Handshake.on_auth (higher name)": Parser(session.on_auth_higher, 1_000_000, 8),
    "Opener.open, .open_into": Parser(session.opener_open, 1_000_000, 8),
    "SealedCarrier, no session yet": Parser(carriers.sealed_meeting, 1_000_000, 8),
    "SealedCarrier.receive": Parser(carriers.sealed_receive, 1_000_000, 8),
    "ResumingCarrier.receive": Parser(carriers.resuming_receive, 1_000_000, 8),
    "ResumingCarrier, control frames": Parser(carriers.resuming_control, 1_000_000, 8),
    "exchange: a stream's metadata": Parser(files.metadata, 1_000_000, 16),
    "Roster.read": Parser(files.roster, 5_000, 64),
    "Start": Parser(files.start, 1_000_000, 16),
    "a signed job file": Parser(files.job_file, 5_000, 64),
}


@dataclass
class Tally:
    """What came of the tries. `others`: exceptions that the parser does not document, with one text each."""

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0.0
    still_works: bool = True

    def add(self, other: Tally) -> None:
        """Count another part of the same attack."""
        self.tried += other.tried
        self.outcomes += other.outcomes
        self.others += other.others
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.still_works = self.still_works and other.still_works


def attack(name: str, tries: int, seed: int, bombs: bool) -> Tally:
    """Try one parser, in a process of its own: what it allocates is told by the peak of the process."""
    rng, tally = random.Random(seed), Tally()
    target = PARSERS[name].target()
    before = _reset_peak()
    for bomb in target.bombs if bombs else ():
        _try(target, bomb, tally)
    while tally.tried < tries:
        data = mutated(rng, target.genuine)
        if not target.is_due(data):
            _try(target, data, tally)
    tally.peak_mb = _megabytes("VmHWM") - before
    try:
        tally.still_works = target.still_works()
    except target.documented:
        tally.still_works = False
    return tally


def _try(target: Target, data: bytes, tally: Tally) -> None:
    tally.tried += 1
    try:
        tally.outcomes[target.attempt(data)] += 1
    except target.documented:
        tally.outcomes[REFUSED] += 1
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:  # a panic in a native library is not even an Exception
        tally.others[f"{type(failure).__name__}: {failure}"[:200]] += 1


def _reset_peak() -> float:
    """Forget the process's highest memory so far; gives what it has now, in MB, without what it only keeps at hand."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _megabytes("VmRSS")


def _megabytes(figure: str) -> float:
    found = re.search(rf"^{figure}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def main() -> int:
    """Attack every parser; the exit code is 1 if anything got through."""
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    whole = sum(parser.tries for parser in PARSERS.values())
    share = QUICK_TRIES / whole if QUICK else 1.0
    print(f"mutated inputs against {len(PARSERS)} parsers, SEED={seed}", flush=True)
    tallies = {name: Tally() for name in PARSERS}
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, max_tasks_per_child=1) as pool:
        parts = [
            (name, max(20, round(parser.tries * share / PROCESSES)), part)
            for name, parser in PARSERS.items()
            for part in range(PROCESSES)
        ]
        futures = {pool.submit(attack, name, tries, seed + part, bombs=part == 0): name for name, tries, part in parts}
        left = Counter(futures.values())
        for future in as_completed(futures):
            name = futures[future]
            tallies[name].add(future.result())
            left[name] -= 1
            if not left[name]:
                print(_line(name, tallies[name]), flush=True)
    failed = [name for name, tally in tallies.items() if not _held(name, tally)]
    tried = sum(tally.tried for tally in tallies.values())
    accepted = sum(tally.outcomes[ACCEPTED] for tally in tallies.values())
    print(f"{tried:,} tried in {time.monotonic() - began:.0f} s, {accepted} got through")
    if failed:
        print("NOT HELD:", ", ".join(failed))
    return 1 if failed else 0


def _held(name: str, tally: Tally) -> bool:
    return (
        not tally.outcomes[ACCEPTED]
        and not tally.others
        and tally.peak_mb <= PARSERS[name].cap_mb
        and tally.still_works
    )


def _line(name: str, tally: Tally) -> str:
    outcomes, cap = tally.outcomes, PARSERS[name].cap_mb
    lines = [
        f"{name:33} tried {tally.tried:9,}  refused {outcomes[REFUSED]:9,}  passed on {outcomes[PASSED_ON]:9,}"
        f"  accepted {outcomes[ACCEPTED]}  other exceptions {tally.others.total()}"
        f"  peak {tally.peak_mb:.1f} of {cap:.0f} MB"
    ]
    lines += [f"    {count} times {text}" for text, count in tally.others.most_common(5)]
    if not tally.still_works:
        lines.append("    what is due is no longer taken")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
