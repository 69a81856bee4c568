"""What was tried against the network, how often, and how often it got through: `make attack-network`.

Real processes and TLS over loopback: the exchange and the members that join are processes of their own; the attacker is
this process, with the keys that each attack says it has. Every attack has a control: the same without the tampering
does get through, so that the attack is known to have reached its target.

Parts may be named as arguments. QUICK=1 runs a shorter form. The exit code is 1 if anything got through, or if an
attack did not really run.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from score import Score  # noqa: E402

QUICK = os.environ.get("QUICK", "") not in ("", "0")
PARTS = {
    "forged": "a member forges names, keys and certificates",
    "replayed": "frames of other sessions, runs and jobs",
    "meddling": "a hostile exchange drops, repeats, reorders, truncates, flips, swaps, invents",
    "middle": "a hostile exchange answers in a member's name",
    "marks": "plaintext in the exchange's memory and in captured traffic",
    "live": "revoked and expired on a live stream",
    "papers": "rosters, and files that are bombs",
    "jobs": "signed jobs",
    "flood": "floods, and members that never read",
    "mutations": "mutated inputs against every parser",
}


def attacked(part: str) -> Iterator[Score]:
    """The scores of one part; a part that fails is one that did not run."""
    try:
        yield from importlib.import_module(f"attacks_{part}").run(QUICK)
    except Exception:
        traceback.print_exc()
        yield Score(f"{part} did not run to its end")


def mutations() -> Iterator[Score]:
    """The parsers: `attack_mutations`, as a process of its own."""
    score = Score("mutated inputs against every parser (see above)")
    with subprocess.Popen([sys.executable, HERE / "attack_mutations.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print("  " + line.rstrip(), flush=True)
            words = line.split()
            if " got through" in line and words[1:3] == ["tried", "in"]:
                score.tried, score.got_through = int(words[0].replace(",", "")), int(words[5])
    score.control = process.returncode == 0  # among the rest it has seen that what is due is still taken
    yield score


def main() -> int:
    """Run the parts that are named, or all."""
    named = sys.argv[1:] or list(PARTS)
    if unknown := set(named) - PARTS.keys():
        print(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        return 2
    logging.getLogger("isthmus").setLevel(logging.CRITICAL)  # what was refused, a thousand times
    scores, began = [], time.monotonic()
    for part in named:
        print(f"\n{part}: {PARTS[part]}", flush=True)
        since = time.monotonic()
        for score in mutations() if part == "mutations" else attacked(part):
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


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where it is
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends as well
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    status = main()
    sys.stdout.flush()
    os._exit(status)  # gRPC's threads of an attacker that was cut off may not end by themselves
