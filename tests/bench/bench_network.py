"""What the sealed network costs, against a plain gRPC relay (`make bench-network`; QUICK=1 runs a short form).

- **isthmus**: two members in two processes, each with the whole stack of a vault (channel, seal, windows and
  acknowledgements, two lanes, mutual TLS, the ledger with its keyed digest), and `isthmus exchange start`.
- **plain**: `plain_relay`: the same members, certificates and channel options, bytes in, bytes out.

Both have three processes, and both take turns, so that a busy minute meets both; medians of five (range). With two
processors all of it is a matter of CPU: read the ratios. Each process' own CPU is given for a GB of what members send.

The far way: one of the members reaches exchange and relay through `delay_proxy`, 20 ms each way, so that a round trip
between the members takes 40 ms longer. Measured in both directions; `wan_vs_grpc` is the lower of the two.

`small_behind_bulk_ms` is half of the round trip of a 16 KB message on a fast topic while 256 MiB of bulk run.

`exchange_peak_mb` is the exchange's highest resident memory (VmHWM) while a member sends 256 MiB to one whose process
sleeps (SIGSTOP), or that is alive and does not receive: the higher of the two. Then all of it must arrive.

Nothing is asserted of the figures; targets that are met or missed are printed. The last line is JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from delay_proxy import measure, proxy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from consortium import free_port, isthmus, wait  # noqa: E402

QUICK = os.environ.get("QUICK", "") not in ("", "0")
SAMPLES = 3 if QUICK else 5
ROUND_TRIPS = 500 if QUICK else 3000
MIB, KIB = 1024 * 1024, 1024
BULK = 64 if QUICK else 256  # messages of 1 MiB
DELAY_S = 0.02
SLEEP_S = 5.0
MEMBERS = ("near", "far")
TARGETS: dict[str, tuple[str, float]] = {
    "rtt_1k_vs_grpc": ("<=", 1.6),
    "throughput_vs_grpc": (">=", 0.7),
    "wan_vs_grpc": (">=", 0.8),
    "small_behind_bulk_ms": ("<=", 10.0),
}
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(process: subprocess.Popen[str]) -> float:
    """CPU seconds of a process so far, all its threads."""
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def peak_mb(process: subprocess.Popen[str]) -> float:
    """The most memory that a process has had, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def stop(process: subprocess.Popen[str]) -> None:
    """End a process whatever it is doing."""
    process.kill()
    process.wait(10)
    for end in (process.stdin, process.stdout):
        if end is not None:
            with contextlib.suppress(OSError):
                end.close()


class World:
    """Homes of two members, an exchange's folder, and a roster that all of them have accepted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        own = folder / "exchange"
        for member in MEMBERS:
            isthmus("init", "party", member, "--homes", folder)
        isthmus("init", "exchange", "main", "--address", f"127.0.0.1:{self.port}", "--folder", own)
        (own / "exchange.yaml").write_text(yaml.safe_dump({"name": "main", "listen": f"127.0.0.1:{self.port}"}))
        files = [*(folder / member / f"{member}.member.yaml" for member in MEMBERS), own / "main.member.yaml"]
        roster = folder / "roster.yaml"
        isthmus("consortium", "add", roster, *files, "--name", "bench", "--threshold", 2)
        for member in MEMBERS:
            isthmus("consortium", "sign", roster, member, "--homes", folder)
        digest = json.loads(isthmus("consortium", "verify", roster, "--json"))["digest"]
        isthmus("consortium", "accept", roster, *(folder / member for member in MEMBERS), own, "--digest", digest)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[subprocess.Popen[str]]:
        """`isthmus exchange start`."""
        log = self.folder / "exchange.log"
        with log.open("w") as out:
            words = ("-m", "isthmus.flows.cli", "exchange", "start", "--folder", self.folder / "exchange")
            process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=out, text=True)
        try:
            wait(lambda: "serves on" in log.read_text() or process.poll() is not None, 60)
            yield process
        finally:
            stop(process)

    @contextlib.contextmanager
    def relay(self) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """The plain relay, and its port."""
        roots = self.folder / "roots.crt"
        roots.write_bytes(b"".join((self.folder / member / "tls.crt").read_bytes() for member in MEMBERS))
        own = self.folder / "exchange"
        words = (HERE / "plain_relay.py", own / "tls.crt", own / "tls.key", roots)
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            stop(process)


class Process:
    """A member's process (`network_member`)."""

    def __init__(self, world: World, stack: str, name: str, port: int) -> None:
        peer = MEMBERS[1 - MEMBERS.index(name)]
        certificate = world.folder / "exchange" / "tls.crt"
        words = (HERE / "network_member.py", stack, world.folder / name, f"127.0.0.1:{port}", peer, certificate)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, *words], text=True, **pipes)
        self.name = name

    def tell(self, what: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with {self.process.wait(10)}")
        return json.loads(line)


@dataclass
class Stack:
    """The three processes of one way to pass messages."""

    name: str
    relay: subprocess.Popen[str]
    near: Process
    far: Process
    cpu_s: dict[str, float] = field(default_factory=dict)
    nbytes: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.near.tell("stop")
            self.far.tell("stop")
            self.near.answer(), self.far.answer()
        stop(self.near.process)
        stop(self.far.process)

    def do(self, near: tuple[str, dict[str, Any]], far: tuple[str, dict[str, Any]]) -> tuple[Any, Any]:
        """Have both members do something at once; what they answer."""
        self.far.tell(far[0], **far[1])
        self.near.tell(near[0], **near[1])
        return self.near.answer(), self.far.answer()

    def ping(self, nbytes: int, count: int = ROUND_TRIPS) -> dict[str, float]:
        return self.do(("ping", {"count": count, "nbytes": nbytes}), ("echo", {"count": count}))[0]

    def pour(self, *, back: bool = False, count: int = BULK) -> float:
        """MB/s of messages of 1 MiB, to the far member or from it."""
        processes = {"near": self.near.process, "relay": self.relay, "far": self.far.process}
        before = {name: cpu_s(process) for name, process in processes.items()}
        works = [("pour", {"count": count, "nbytes": MIB}), ("drink", {"count": count})]
        rates = self.do(*(works[::-1] if back else works))
        for name, process in processes.items():
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + cpu_s(process) - before[name]
        self.nbytes += count * MIB
        rate: float = rates[1] if back else rates[0]
        return rate


@contextlib.contextmanager
def stacks(world: World, *, delay_s: float = 0.0) -> Iterator[tuple[Stack, Stack]]:
    """Both, ready; with a delay, the far member has a proxy in front of it."""
    with contextlib.ExitStack() as ends:
        exchange = ends.enter_context(world.exchange())
        relay, relay_port = ends.enter_context(world.relay())
        made = []
        for name, process, port in (("isthmus", exchange, world.port), ("plain", relay, relay_port)):
            far_port = ends.enter_context(proxy(port, delay_s)) if delay_s else port
            near, far = Process(world, name, "near", port), Process(world, name, "far", far_port)
            made.append(ends.enter_context(Stack(name, process, near, far)))
        for stack in made:
            stack.near.answer(), stack.far.answer()
            stack.ping(1 * KIB, 20)
            stack.pour(count=8)
            stack.cpu_s, stack.nbytes = {}, 0
        yield made[0], made[1]


def spread(values: list[float], digits: int = 4) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}g} ({min(values):.{digits}g}-{max(values):.{digits}g})"


def compare(
    title: str, two: tuple[Stack, Stack], once: Callable[[Stack], float]
) -> tuple[float, dict[str, list[float]]]:
    """Take turns, print both; the ratio of the medians and all values."""
    values: dict[str, list[float]] = {stack.name: [] for stack in two}
    for _ in range(SAMPLES):
        for stack in two:
            values[stack.name].append(once(stack))
    ours, plain = (statistics.median(values[stack.name]) for stack in two)
    print(
        f"{title:42}{spread(values['isthmus']):>28}{spread(values['plain']):>28}{ours / plain:>8.2f}",
        flush=True,
    )
    return ours / plain, values


def cpu_per_gb(two: tuple[Stack, Stack]) -> dict[str, dict[str, float]]:
    """CPU seconds for a GB, of each process."""
    given = {stack.name: {name: s / stack.nbytes * 1e9 for name, s in stack.cpu_s.items()} for stack in two}
    for name, each in given.items():
        told = ", ".join(f"{process} {seconds:.2f}" for process, seconds in each.items())
        print(f"  CPU seconds a GB, {name}: {told}; together {sum(each.values()):.2f}")
    return given


def handshakes(stack: Stack, *, keeps_ledger: bool) -> dict[str, list[float]]:
    """Fresh links and sessions, both members at once. With the ledger, each side first writes a stream's beginning."""
    times: dict[str, list[float]] = {"connect_ms": [], "session_ms": [], "answer_ms": [], "from_start_ms": []}
    for _ in range(SAMPLES):
        connected, _ = stack.do(*2 * [("anew", {"keeps_ledger": keeps_ledger})])
        first, _ = stack.do(("first", {}), ("echo", {"count": 1}))
        for name, value in ({"connect_ms": 1e3 * connected} | first).items():
            times[name].append(value)
    return times


def peak(world: World, *, sleeps: bool) -> tuple[float, float]:
    """The exchange's memory at its highest and before anything was sent, in MB."""
    count = BULK
    with world.exchange() as exchange:
        near, far = (Process(world, "isthmus", name, world.port) for name in MEMBERS)
        with Stack("isthmus", exchange, near, far) as stack:
            near.answer(), far.answer()
            stack.ping(1 * KIB, 20)
            before = peak_mb(exchange)
            far.tell("wait_then_receive", seconds=0.0 if sleeps else SLEEP_S, count=count)
            if sleeps:
                far.process.send_signal(signal.SIGSTOP)
            near.tell("send_many", count=count, nbytes=MIB)
            time.sleep(SLEEP_S)
            if sleeps:
                far.process.send_signal(signal.SIGCONT)
            near.answer(), far.answer()
            return peak_mb(exchange), before


def main() -> None:
    """Measure, print, then one line of JSON."""
    print(f"{'QUICK: ' if QUICK else ''}medians of {SAMPLES} (range); {os.cpu_count()} processors, ", end="")
    print(f"load at the start {os.getloadavg()[0]:.1f}\n\n{'':42}{'isthmus':>28}{'plain gRPC':>28}{'ratio':>8}")
    results: dict[str, Any] = {"benchmark": "network", "quick": QUICK, "samples": SAMPLES}
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        with stacks(world) as two:
            results["rtt_1k_vs_grpc"], raw["rtt_1k_ms"] = compare(
                "round trip of 1 KB, ms", two, lambda stack: stack.ping(1 * KIB)["median_ms"]
            )
            results["ping_pong_8k_vs_grpc"], raw["ping_pong_8k_per_s"] = compare(
                "round trips of 8 KB a second", two, lambda stack: stack.ping(8 * KIB)["per_s"]
            )
            results["throughput_vs_grpc"], raw["throughput_mb_per_s"] = compare(
                "1 MiB messages one way, MB/s", two, lambda stack: stack.pour()
            )
            raw["cpu_s_per_gb"] = cpu_per_gb(two)
            ours, _ = two
            small = [
                ours.do(
                    ("mixed_near", {"count": BULK, "nbytes": MIB, "small_nbytes": 16 * KIB}),
                    ("mixed_far", {"count": BULK}),
                )[0]
                for _ in range(SAMPLES)
            ]
            raw["small_behind_bulk"] = small
            results["small_behind_bulk_ms"] = statistics.median(one["p50_ms"] for one in small) / 2
            print(
                f"16 KB on a fast topic beside bulk, round trip, ms: p50 {spread([one['p50_ms'] for one in small])}, ",
                end="",
            )
            print(
                f"p95 {spread([one['p95_ms'] for one in small])}; bulk at "
                f"{spread([one['mb_per_s'] for one in small])} MB/s"
            )
            for name, keeps in (("handshake", False), ("handshake with the ledger's first row", True)):
                raw[name] = shaken = handshakes(ours, keeps_ledger=keeps)
                up, sent, answered, whole = (
                    spread(shaken[f"{of}_ms"]) for of in ("connect", "session", "answer", "from_start")
                )
                print(
                    f"{name}, ms: link up after {up}; from the first send to the session {sent}, "
                    f"to the answer {answered};"
                )
                print(f"  from the making of the link to the answer {whole}", flush=True)
            results["handshake_ms"] = statistics.median(raw["handshake"]["session_ms"])
            ours.do(("anew", {"keeps_ledger": False}), ("anew", {"keeps_ledger": False}))
            ours.ping(1 * KIB, 20)
            raw["without_ledger"] = [ours.pour() for _ in range(SAMPLES)]
            print(f"1 MiB messages without the ledger's digest, MB/s: {spread(raw['without_ledger'])}\n", flush=True)
        rate, round_trip_s = measure(256 * MIB, 0.0)[0], measure(MIB, DELAY_S)[1]
        raw["proxy_mb_per_s"] = rate / 1e6
        print(
            f"the proxy moves {rate / 1e6:.0f} MB/s without a delay; "
            f"with it, a round trip takes {1e3 * round_trip_s:.1f} ms"
        )
        with stacks(world, delay_s=DELAY_S) as two:
            there, raw["wan_mb_per_s"] = compare("1 MiB to a member 40 ms away, MB/s", two, lambda stack: stack.pour())
            back, raw["wan_back_mb_per_s"] = compare(
                "1 MiB from a member 40 ms away, MB/s", two, lambda stack: stack.pour(back=True)
            )
            results["wan_vs_grpc"] = min(there, back)
        for name, sleeps in (("asleep", True), ("alive and not receiving", False)):
            most, before = peak(world, sleeps=sleeps)
            raw[f"exchange_peak_mb, {name}"] = most
            print(f"exchange with a receiver that is {name}: at most {most:.0f} MB ({before:.0f} before)", flush=True)
        results["exchange_peak_mb"] = max(most for name, most in raw.items() if name.startswith("exchange_peak_mb"))
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    for name, (sign, target) in TARGETS.items():
        met = results[name] <= target if sign == "<=" else results[name] >= target
        print(f"{name} {results[name]:.3g}, to be {sign} {target:g}: {'met' if met else 'MISSED'}")
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in results.items()}
    print(json.dumps({**rounded, "raw": raw}))


if __name__ == "__main__":
    main()
