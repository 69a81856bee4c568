"""What a hostile Prefect server, or who took over a worker, tried, and how often it got through: `make attack-server`.

Real workers (`isthmus party start`, `isthmus coordinator start`, `isthmus vault start`) against a server of the
attacker's own that lies in every answer, and against a real Prefect server whose pools, deployments and runs the
attacker has changed. Every attack has a control: what was to run does run where somebody runs it, and the next good job
goes well by the same worker.

Parts may be named as arguments. QUICK=1 runs a shorter form. The exit code is 1 if anything got through, or if an
attack did not really run. The part `hijacked` makes two operating-system users and needs root; else it is left out.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import parts  # noqa: E402

PARTS = {
    "orders": "a hostile server's orders: what it names to be run, and jobs that must not begin",
    "answers": "a hostile server's answers: endless, slow, deep, redirected, of another type",
    "meddled": "a real Prefect server, changed by the attacker, and a coordinating flow that is told lies",
    "hijacked": "who has taken over the worker's process, with the vault under another user",
}

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # `kill -USR1` tells where it is
    parts.prepare()
    if len(sys.argv) == 1 and os.getuid() != 0:
        print("hijacked is left out: it makes operating-system users, which takes root")
        sys.argv += [part for part in PARTS if part != "hijacked"]
    parts.end(parts.tell(PARTS))
