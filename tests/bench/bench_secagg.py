"""One secure sum of 10 parties beside the plain one (`make bench-secagg`; QUICK=1).

- **secure**: `SecureGiving` and `SecureGathering`, 32-bit words, nobody drops out; with all that a job has: signed
  keys, sealed shares, masks, what either side writes down, the ledger of releases in each party's state.
- **plain**: `PlainGiving` and `PlainGathering`: the same words, encoded, sent and added up.
- **secure, 3 lost**: once at the end three parties close their channels after they have dealt their shares, the most
  that ten can spare: the coordinator puts their keys together and takes away 21 more masks.

The coordinator and each party are processes of their own over socket pairs, 11 on the machine's processors. So the wall
time, from the request to the decoded sum, is that of all parties' work shared by the processors, and their waiting for
the disk; what a party and the coordinator would take with a processor of their own is their CPU time. Secure and plain
take turns. Peak memory is the resident set of the coordinator's process while it sums, beside what it holds before.

Nothing is asserted; the last line is JSON, in which `secagg_vs_plain` is the wall time of secure over that of plain.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from sealed_way import sealed_way

from isthmus.horizontal.fixed_point import FLOAT32
from isthmus.horizontal.members import Members
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.summing import PlainGathering, PlainGiving, Sum
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.local import socket_pair
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.state import State

QUICK = os.environ.get("QUICK", "") not in ("", "0")
PARTIES, SIZE = 10, 1_000_000 if QUICK else 10_000_000
REPETITIONS = 3
PLAIN, SECURE, WITH_LOSSES = "plain", "secure", "secure, 3 lost"
LOST = 3
WAYS = [PLAIN, SECURE] * (1 + REPETITIONS) + [WITH_LOSSES]  # the first of either warms up
COORDINATOR, NAMES = "coordinator", tuple(f"party{place}" for place in range(PARTIES))
JOB, TIMEOUT_S = "1" * 64, 120.0


def describe(number: int, seed: str) -> Sum:
    """The sum of that number; each is over a model of its own."""
    return Sum(JOB, 1, number, f"{seed}{number:0{64 - len(seed)}d}", NAMES)


def party(place: int, descriptor: int, folder: Path) -> None:
    """A party: offers the same numbers for each sum, and says what each cost in CPU seconds."""
    me = NAMES[place]
    home = PartyHome(folder / me)
    keys = {name: bytes.fromhex(key) for name, key in json.loads((folder / "keys.json").read_text()).items()}
    log = Ledger(home).job("bench", JOB)
    carrier = sealed_way(descriptor, me, COORDINATOR)
    channel = Channel(carrier, me=me, peer=COORDINATOR, log=log, timeout_s=TIMEOUT_S)
    plain = PlainGiving(channel, Topic.TRAIN)
    secure = SecureGiving(
        channel, Topic.TRAIN, Identity(home), keys, SumMemory(home.run_folder("bench"), State(home), party=me)
    )
    values = np.random.default_rng(place).uniform(-0.1, 0.1, SIZE).astype(np.float32)
    channel.send(Topic.TRAIN, Step.READY, {"sum": 0})
    costs, start = list[float](), time.process_time()
    while True:
        order = channel.receive(Topic.TRAIN, Step.ROUND, Step.RESULT, Step.GIVE, *secure.steps)
        if order.step is Step.ROUND:
            costs, start = [*costs, time.process_time() - start], time.process_time()
            number = order.fields["sum"]
            giving = plain if WAYS[number - 1] == PLAIN else secure
            giving.offer(describe(number, order.fields["seed"]), values, FLOAT32)
        elif order.step is Step.RESULT or (order.step is Step.INBOX and place < LOST and number == len(WAYS)):
            break
        else:
            (plain if order.step is Step.GIVE else secure).handle(order)
    print(json.dumps([*costs, time.process_time() - start][1:]), flush=True)
    channel.close()


def peak_mb() -> float:
    """The largest resident set of this process since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def forget_peak() -> None:
    """Where the system can, start anew."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def coordinator(descriptors: list[int], folder: Path) -> None:
    """The coordinator: asks for one sum after the other, and prints what each took."""
    home = PartyHome(folder / COORDINATOR)
    log, channels = Ledger(home).job("bench", JOB), {}
    for name, descriptor in zip(NAMES, descriptors, strict=True):
        carrier = sealed_way(descriptor, COORDINATOR, name)
        channels[name] = Channel(carrier, me=COORDINATOR, peer=name, log=log, timeout_s=TIMEOUT_S)
        channels[name].receive(Topic.TRAIN, Step.READY)
    members, seed = Members(channels), os.urandom(16).hex()
    plain, secure = PlainGathering(), SecureGathering(home.run_folder("bench"), party=COORDINATOR)
    found = []
    for number, way in enumerate(WAYS, 1):
        gathering, one = (plain if way == PLAIN else secure), describe(number, seed)
        forget_peak()
        before, cpu, start = peak_mb(), time.process_time(), time.monotonic()
        members.tell(NAMES, Topic.TRAIN, Step.ROUND, number, {"seed": seed})
        gathered = gathering.gather(members, Topic.TRAIN, one, SIZE, FLOAT32, deadline_s=TIMEOUT_S)
        cost = {"wall": time.monotonic() - start, "coordinator": time.process_time() - cpu}
        if len(gathered.survivors) != PARTIES - (LOST if way == WITH_LOSSES else 0):
            sys.exit(f"{way}: {len(gathered.survivors)} parties were in the sum")
        found.append({**cost, "peak_mb": peak_mb(), "before_mb": before})
        del gathered
    members.tell(NAMES, Topic.TRAIN, Step.RESULT, 10**6, answer=False)
    print(json.dumps(found), flush=True)
    for channel in channels.values():
        channel.close()


def measure(folder: Path) -> dict[str, list[dict[str, float]]]:
    """All costs by way, a repetition an entry."""
    for name in (COORDINATOR, *NAMES):
        (folder / name).mkdir()
        (folder / name / "party.yaml").write_text(yaml.safe_dump({"name": name}))
    keys = {name: Identity(PartyHome(folder / name)).public.hex() for name in NAMES}
    (folder / "keys.json").write_text(json.dumps(keys))
    pairs = [socket_pair() for _ in NAMES]
    words = [["--coordinator", str(folder), *(str(ours.fileno()) for ours, _ in pairs)]]
    words += [["--party", str(folder), str(place), str(theirs.fileno())] for place, (_, theirs) in enumerate(pairs)]
    ends = [[ours for ours, _ in pairs], *([theirs] for _, theirs in pairs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            pass_fds=[end.fileno() for end in passed], stdout=subprocess.PIPE, text=True, env=environment,
        )
        for arguments, passed in zip(words, ends, strict=True)
    ]  # fmt: skip
    for passed in ends:
        for end in passed:
            end.close()
    answers = [json.loads(process.communicate(timeout=900)[0]) for process in processes]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number, cost in list(enumerate(answers[0]))[2:]:
        party_s = [answer[number] for answer in answers[1 + LOST :]]  # of those that were in every sum
        found[WAYS[number]].append({**cost, "party": statistics.median(party_s)})
    return found


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main() -> None:
    """Measure, print the table, then one line of JSON."""
    print(
        f"{'QUICK: ' if QUICK else ''}{PARTIES} parties x {SIZE:,} float32 parameters; medians of {REPETITIONS} "
        f"(range); {os.cpu_count()} processors\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    columns = {
        "wall": "wall s", "party": "CPU s a party", "coordinator": "CPU s coordinator", "peak_mb": "peak MB",
        "before_mb": "MB before",
    }  # fmt: skip
    print(f"{'':<16}" + "".join(f"{title:>24}" for title in columns.values()))
    for way, costs in found.items():
        cells = (spread([cost[name] for cost in costs], 0 if name.endswith("mb") else 3) for name in columns)
        print(f"{way:<16}" + "".join(f"{cell:>24}" for cell in cells))
    median = {
        way: {name: statistics.median(cost[name] for cost in costs) for name in columns} for way, costs in found.items()
    }
    ratios = [s["wall"] / p["wall"] for s, p in zip(found[SECURE], found[PLAIN], strict=True)]
    result = {
        "benchmark": "secagg", "quick": QUICK, "parties": PARTIES, "size": SIZE, "repetitions": REPETITIONS,
        "secagg_vs_plain": round(statistics.median(ratios), 3),
        "secure_s": round(median[SECURE]["wall"], 3), "plain_s": round(median[PLAIN]["wall"], 3),
        "party_s": round(median[SECURE]["party"], 3), "coordinator_s": round(median[SECURE]["coordinator"], 3),
        "coordinator_3_lost_s": round(median[WITH_LOSSES]["coordinator"], 3),
        "peak_mb": round(max(cost["peak_mb"] for cost in found[SECURE])),
        "plain_peak_mb": round(max(cost["peak_mb"] for cost in found[PLAIN])),
        "before_mb": round(median[SECURE]["before_mb"]),
    }  # fmt: skip
    print(f"\nsecure / plain, wall time: {spread(ratios, 2)}")
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--party"]:
        party(int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--coordinator"]:
        coordinator([int(word) for word in sys.argv[3:]], Path(sys.argv[2]))
    else:
        main()
