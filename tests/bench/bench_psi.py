"""What private set intersection costs here, against plain openmined-psi on one thread (`make bench-psi`; QUICK=1).

Three ways to the same intersection, with n elements a side, half of them shared:

- **isthmus**: `align_as_initiator` and `align_as_responder` in two processes over a socket pair, everything included
  (linkage keys, shuffles, both floors, digest). Both sides learn which of their rows match.
- **plain, one direction**: openmined-psi's own four calls (CreateRequest, CreateSetupMessage, ProcessRequest,
  GetIntersection) with their messages as bytes, in one thread of one process. Only the client learns. It is the
  cheapest that the library does, and what `cpu_vs_openmined` compares with.
- **plain, both learn**: the same twice, the second time with the roles changed, as frameworks do that wrap the
  library.

CPU is that of both sides together, all threads (`getrusage`); wall is until the later side is done. All of it shares
this machine's processors: where two of them are threads of one core, two busy threads each cost more CPU seconds than
one alone, which tells against isthmus. Nothing is asserted; the last line is JSON.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import private_set_intersection.python as openmined
from sealed_way import sealed_way

from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import socket_pair
from isthmus.parties.table import Identifier
from isthmus.psi import align_as_initiator, align_as_responder

QUICK = os.environ.get("QUICK", "") not in ("", "0")
SIZES = (5_000, 10_000) if QUICK else (10_000, 100_000)
REPETITIONS = 3
BUDGET_S = 40.0  # of QUICK: no repetition begins that would end later
Cost = dict[str, float]


def elements(size: int, side: int) -> list[str]:
    """Half of each side's elements are shared."""
    first = side * (size // 2)
    return [f"person-{number:09d}" for number in range(first, first + size)]


def cpu_s() -> float:
    """CPU seconds of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def one_side(side: int, size: int, descriptor: int) -> None:
    """A party: gets ready, waits for the word, aligns, and prints what it cost."""
    identifiers = {"id": Identifier([np.array(elements(size, side), dtype=object)])}
    names = ("initiator", "responder")
    carrier = sealed_way(descriptor, names[side], names[1 - side])
    channel = Channel(carrier, me=names[side], peer=names[1 - side], log=CountingLog())
    align = (align_as_initiator, align_as_responder)[side]
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, start = cpu_s(), time.monotonic()
    alignment = align(channel, identifiers, [["id"]], floor=size // 4, job_digest="0" * 64)
    cost = {"cpu": cpu_s() - cpu, "start": start, "end": time.monotonic(), "nbytes": sum(channel.sent.values())}
    if len(alignment.rows) != size - size // 2:
        sys.exit(f"{len(alignment.rows)} matches")
    print(json.dumps(cost), flush=True)
    sys.stdin.readline()  # the channel stays open until both are done
    channel.close()


def isthmus(size: int) -> Cost:
    """Two parties in two processes."""
    ends = socket_pair()
    parties = [
        subprocess.Popen(
            [sys.executable, __file__, "--side", str(side), str(size), str(end.fileno())],
            pass_fds=[end.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side, end in enumerate(ends)
    ]
    for end in ends:
        end.close()
    try:
        answers: list[Any] = []
        for read in (str.strip, json.loads):
            answers = [read(party.stdout.readline()) for party in parties if party.stdout]
            for party in parties:
                if party.stdin:
                    party.stdin.write("\n")
                    party.stdin.flush()
    finally:
        for party in parties:
            party.communicate(timeout=60)
    return {
        "cpu": sum(answer["cpu"] for answer in answers),
        "wall": max(answer["end"] for answer in answers) - min(answer["start"] for answer in answers),
        "nbytes": sum(answer["nbytes"] for answer in answers),
    }


def plain(ours: list[str], theirs: list[str]) -> Cost:
    """openmined-psi as its documentation shows it: `ours` is the client, which learns."""
    cpu, start = cpu_s(), time.monotonic()
    client = openmined.client.CreateWithNewKey(True)
    server = openmined.server.CreateWithNewKey(True)
    request = client.CreateRequest(ours).SerializeToString()
    # RAW is the exact structure; GCS fails above about 96,000 elements a side.
    setup = server.CreateSetupMessage(1e-9, len(ours), theirs, openmined.DataStructure.RAW).SerializeToString()
    response = server.ProcessRequest(openmined.Request.FromString(request)).SerializeToString()
    matches = client.GetIntersection(openmined.ServerSetup.FromString(setup), openmined.Response.FromString(response))
    cost = {"cpu": cpu_s() - cpu, "wall": time.monotonic() - start, "nbytes": len(request) + len(setup) + len(response)}
    if len(matches) != len(ours) - len(ours) // 2:
        sys.exit(f"{len(matches)} matches")
    return cost


def measure(size: int, until: float) -> dict[str, list[Cost]]:
    """Three repetitions of each way, in turn, so that a busy minute meets all of them."""
    left, right = elements(size, 0), elements(size, 1)
    costs: dict[str, list[Cost]] = {"isthmus": [], "plain, one direction": [], "plain, both learn": []}
    longest = 0.0
    for _ in range(REPETITIONS):
        start = time.monotonic()
        if costs["isthmus"] and start + longest > until:
            break
        forth, back = plain(left, right), plain(right, left)
        costs["isthmus"].append(isthmus(size))
        costs["plain, one direction"].append(forth)
        costs["plain, both learn"].append({name: forth[name] + back[name] for name in forth})
        longest = max(longest, time.monotonic() - start)
    return costs


def spread(costs: list[Cost], scale: float, name: str) -> str:
    """Median and range."""
    values = sorted(cost[name] * scale for cost in costs)
    return f"{statistics.median(values):.4g} ({values[0]:.4g}-{values[-1]:.4g})"


def main() -> None:
    """Measure, print the table, then one line of JSON."""
    start = time.monotonic()
    print(
        f"{'QUICK: ' if QUICK else ''}{' and '.join(f'{size:,}' for size in SIZES)} elements a side, half shared; ",
        end="",
    )
    print(f"medians of {REPETITIONS} (range); {os.cpu_count()} processors\n")
    print(f"{'':>9}  {'':22}{'CPU µs a pair':>24}{'wall s':>24}{'bytes a pair':>14}  repetitions")
    results: dict[int, dict[str, list[Cost]]] = {}
    for place, size in enumerate(SIZES):
        share = BUDGET_S * (1 / 3, 1)[place] if QUICK else float("inf")
        results[size] = measure(size, start + share)
        for way, costs in results[size].items():
            print(
                f"{size:>9,}  {way:22}{spread(costs, 1e6 / size, 'cpu'):>24}{spread(costs, 1, 'wall'):>24}"
                f"{costs[0]['nbytes'] / size:>14.1f}  {len(costs)}"
            )
    size = SIZES[-1]
    medians = {
        way: {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}
        for way, costs in results[size].items()
    }
    ours, one, both = medians.values()
    print("\ncpu_vs_openmined, wall_vs_openmined: isthmus / plain in one direction. Only isthmus uses several threads.")
    print(
        json.dumps(
            {
                "benchmark": "psi",
                "quick": QUICK,
                "elements": size,
                "repetitions": len(results[size]["isthmus"]),
                "cpu_vs_openmined": round(ours["cpu"] / one["cpu"], 4),
                "wall_vs_openmined": round(ours["wall"] / one["wall"], 4),
                "bytes_per_pair": round(ours["nbytes"] / size, 2),
                "cpu_vs_openmined_both_learn": round(ours["cpu"] / both["cpu"], 4),
                "wall_vs_openmined_both_learn": round(ours["wall"] / both["wall"], 4),
                "raw": results,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        one_side(*map(int, sys.argv[2:]))
    else:
        main()
