"""What was tried against the network, how often, and how often it got through: `make attack-network`.

Real processes and TLS over loopback: the exchange and the members that join are processes of their own; the attacker is
this process, with the keys that each attack says it has. Every attack has a control: the same without the tampering
does get through, so that the attack is known to have reached its target.

Parts may be named as arguments. QUICK=1 runs a shorter form. The exit code is 1 if anything got through, or if an
attack did not really run.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import parts  # noqa: E402
from score import Score  # noqa: E402

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


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where it is
    logging.getLogger("isthmus").setLevel(logging.CRITICAL)  # what was refused, a thousand times
    parts.prepare()
    parts.end(parts.tell(PARTS, {"mutations": mutations}))
