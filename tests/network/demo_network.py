"""`make demo-network`: two jobs between vaults that only reach an exchange, and the same jobs on one machine.

1. Each member gets a network namespace of its own (`namespaces`) and a folder that no other member's processes see.
   Nobody reaches anybody but the exchange: each member listens for a moment while all others try.
2. The members found a consortium, by the commands that people use, and start the exchange.
3. A lab and an insurer find their shared patients and train a split model over the exchange. An alignment's order is
   new each time, so the comparison starts from the same one: it is found over the exchange as well, all vaults end, the
   homes are copied, and both runs go on from there.
4. Five hospitals and a coordinator train a common model under secure aggregation.
5. Both jobs run on one machine, in copies of the homes. Every part of a model has to be the same file, every number
   about held-out rows the same number.

Meanwhile the members' sockets are read from /proc. ``QUICK=1`` takes fewer patients and rounds. ``ROOTLESS=1`` needs no
root: all parties are on loopback, where nothing keeps them apart. Exit code 1 if anything differs; the last line is
JSON: `vertical_equal`, `horizontal_equal`, `kept_apart` (null with ``ROOTLESS=1``), `seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from members import Members
from namespaces import PROBE_PORT, Loopback, Namespaces, Network, may_make_namespaces, probe
from rich.console import Console
from rich.table import Table
from sockets_of import Sockets, family, sockets_of

sys.path.append(str(Path(__file__).parents[1]))
from consortium import wait

from isthmus.flows.demo import demo_job, make_homes
from isthmus.flows.hospitals import COORDINATOR, HOSPITALS, HOSPITALS_FILE, make_hospitals
from isthmus.flows.jobs import Job, load_job
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.aligned import ALIGN_PHASES
from isthmus.flows.launch import run_here
from isthmus.flows.orders import Open
from isthmus.flows.signed import read_job_file
from isthmus.flows.terminal import size_text
from isthmus.flows.vault_handle import Vault
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Count, Fingerprint, Metric, PublicEvent, parse
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger

QUICK = os.environ.get("QUICK", "") not in ("", "0")
ROOTLESS = os.environ.get("ROOTLESS", "") not in ("", "0")
PATIENTS, EPOCHS, ROUNDS = (600, 4, 4) if QUICK else (None, 30, 30)
MEMBERS = ("insurer", "lab", *HOSPITALS, COORDINATOR)
TIMEOUT_S = 180  # for a peer: eight vaults share this machine's processors
out = Console(highlight=False, soft_wrap=True, width=max(Console().width, 130))


class Outcome(NamedTuple):
    """What a job has left: digests of the members' parts of the model, their numbers, bytes in their ledgers."""

    parts: dict[str, str]
    numbers: list[tuple[str, ...]]
    score: Metric  # AUC on held-out rows: of the split model, or of the common one on the rows of all
    nbytes: dict[str, int]


def over_the_network(members: Members, signed: Path, *, show: Sequence[str], align_only: bool = False) -> Sockets:
    """Have every member of a job join it in its own place; print what `show` say; the sockets that they had.

    With `align_only` the vaults end after the alignment. `isthmus join` has no such option: then the vaults are started
    by `align_member`, in the same places and in the same way.
    """
    job, _ = read_job_file(signed)
    call = (__file__, "align") if align_only else ("-m", "isthmus.flows.cli", "join")
    joined, logs = {}, {}
    for name in job.members:
        logs[name] = members.root / f"{job.name}-{name}.{'align' if align_only else 'join'}.log"
        options = () if align_only else ("--timeout", TIMEOUT_S, "--json")
        words = (*call, signed, "--as", name, "--homes", members.homes(name), *options)
        joined[name] = members.spawn(name, logs[name].with_suffix(".json"), logs[name], *words)
    shown = dict.fromkeys(show, 0)
    listening: set[str] = set()
    connected: set[str] = set()
    running = True
    while running:
        running = any(process.poll() is None for process in joined.values())
        for process in joined.values():
            found = sockets_of(family(process.pid), whole_namespace=members.network.enforced)
            listening |= found.listening
            connected |= found.connected
        for name in show:
            for line in logs[name].read_text().splitlines()[shown[name] :]:
                shown[name] += 1
                out.print(f"  {name:<12}{line.strip()}", markup=False)
        if any(process.poll() for process in joined.values()):
            running = _failed(joined, logs, deadline_s=20)
        time.sleep(0.2)
    return Sockets(frozenset(listening), frozenset(connected))


def _failed(joined: dict[str, subprocess.Popen[Any]], logs: dict[str, Path], *, deadline_s: float) -> bool:
    """Let the others have their last words; then raise with what all said."""
    with contextlib.suppress(AssertionError):
        wait(lambda: all(process.poll() is not None for process in joined.values()), deadline_s)
    said = [f"{name} ({process.poll()}): {logs[name].read_text().strip()}" for name, process in joined.items()]
    raise RuntimeError("a member's side of the job has failed\n" + "\n".join(said))


def align_member(file: Path, member: str, homes: Path) -> None:
    """A member's side of a job at an exchange, as `isthmus join` does it, up to the alignment."""
    job, start = read_job_file(file)
    journal = Journal(_run(job))

    async def align() -> None:
        vault = Vault(member, job, journal)
        try:
            opening = Open(job=job.canonical(), run=_run(job), start=start, by_exchange=True, timeout_s=TIMEOUT_S)
            await vault.start(homes / member, None, opening)
            for phase in ALIGN_PHASES:
                await vault.phase(phase)
        finally:
            await vault.stop()

    asyncio.run(align())
    found = [count.value for _, count in journal.of(Count) if count.name == "shared"]
    print(f"{_run(job)}: {found[-1]:,} shared patients found over the exchange; the vault ends", file=sys.stderr)


def network_outcome(members: Members, signed: Path) -> Outcome:
    """What a job has left at the members, from their own folders and what their `join` printed."""
    job, _ = read_job_file(signed)
    events = []
    for name in job.members:
        printed = (members.root / f"{job.name}-{name}.join.json").read_text().splitlines()[-1]
        told = (parse(json.dumps(event).encode(), job.aliases()) for event in json.loads(printed)["events"])
        events += [(name, event) for event in told]
    return _outcome({name: members.homes(name) / name for name in job.members}, job, events)


def on_one_machine(members: Members, signed: Path) -> Outcome:
    """Run a job with vaults that are joined by socket pairs, in copies of the members' homes."""
    job, start = read_job_file(signed)
    homes = members.root / "together" / job.name
    journal = asyncio.run(run_here(job, homes, _run(job), timeout_s=TIMEOUT_S, start=start))
    return _outcome({name: homes / name for name in job.members}, job, journal.events)


def copy_homes(members: Members, signed: Path) -> None:
    """Copy the homes of a job's members, as they are now, into one folder."""
    job, _ = read_job_file(signed)
    for name in job.members:
        shutil.copytree(members.homes(name) / name, members.root / "together" / job.name / name)


def _outcome(homes: dict[str, Path], job: Job, events: Sequence[tuple[str, PublicEvent]]) -> Outcome:
    parts = {}
    for name, home in homes.items():
        file = home / "models" / _run(job) / "part.safetensors"
        if file.exists():
            parts[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    ledgers = {name: Ledger(PartyHome(home)) for name, home in homes.items()}
    for ledger in ledgers.values():
        ledger.verify()
    nbytes = {name: sum(entry.nbytes for entry in ledger.entries(_run(job))) for name, ledger in ledgers.items()}
    metrics = [(name, event) for name, event in events if isinstance(event, Metric) and event.part == "test"]
    marks = [(name, event) for name, event in events if isinstance(event, Fingerprint) and event.name == "model"]
    numbers = [(name, *map(str, event.model_dump().values())) for name, event in (*metrics, *marks)]
    scores = (event for _, event in metrics if event.name == "auc" and event.of in (None, "pooled"))
    return Outcome(parts, sorted(numbers), next(event for event in scores if event.subgroup is None), nbytes)


def _run(job: Job) -> str:
    """The run's name, as `isthmus join` makes it."""
    return f"{job.name}-{job.digest()[:8]}-1"


# --- what people are shown --------------------------------------------------------------------------------------------


def show_places(members: Members) -> bool | None:
    """Print who is where and who reaches whom; whether members only reach the exchange (None: nothing sees to it)."""
    network = members.network
    reached = probe(network, members.port, {name: members.hidden(name) for name in MEMBERS})
    columns = ("exchange's port", f"own port {PROBE_PORT}", "that port of the others", "others' files")
    table = Table("member", "where", "address", *columns)
    table.add_row("(exchange)", network.place(None), network.exchange)
    for name, found in reached.items():
        others = ", ".join(sorted({f"{found.others.count(said)} × {said}" for said in found.others}))
        seen = "not to be seen" if not found.seen else "can be seen"
        table.add_row(name, network.place(name), network.addresses[name], found.exchange, found.own, others, seen)
    out.print(table)
    if not network.enforced:
        out.print("Without root nothing keeps members apart: any process may use any address of loopback, also as its")
        out.print("source. What holds here as well is that members listen nowhere and speak to the exchange alone.")
        return None
    out.print("Every member listened while all the others tried: none was reached, but by itself.")
    return all(found.exchange == found.own == "answers" and "answers" not in found.others for found in reached.values())


def show_sockets(members: Members, sockets: Sockets) -> bool:
    """Print what the members had open during the job; whether that is no port, and connections to the exchange only."""
    where = "in the members' namespaces" if members.network.enforced else "of the members' processes"
    out.print(f"  sockets {where}, read from /proc all the while:")
    out.print(f"    listening     {', '.join(sorted(sockets.listening)) or 'none'}")
    out.print(f"    connected to  {', '.join(sorted(sockets.connected)) or 'nobody'}")
    return not sockets.listening and sockets.connected == {f"{members.network.exchange}:{members.port}"}


def show_comparison(title: str, network: Outcome, together: Outcome) -> bool:
    """Print both outcomes side by side; whether they are equal."""
    table = Table("member", "part.safetensors (SHA-256)", "over the network", "left in all", "left on one machine")
    for name in network.nbytes:
        mine, other = network.parts.get(name), together.parts.get(name)
        verdict = "keeps none" if mine is None is other else "the same" if mine == other else "DIFFERS"
        left = (size_text(outcome.nbytes[name]) for outcome in (network, together))
        table.add_row(name, (mine or "")[:16], verdict, *left)
    out.print(table)
    parts, numbers = network.parts == together.parts, network.numbers == together.numbers
    out.print(
        f"  {title}: {len(network.parts)} parts {'bitwise equal' if parts else 'DIFFER'}; "
        f"{len(network.numbers)} numbers about held-out rows and digests "
        f"{'equal to the last bit' if numbers else 'DIFFER'}"
    )
    out.print(
        f"  AUC, held-out rows: {network.score.value:.4f} over the network, {together.score.value:.4f} on one machine"
    )
    for number in sorted({*network.numbers} ^ {*together.numbers}):
        out.print(f"    {number}", markup=False)
    return bool(network.parts) and parts and numbers


def demo(members: Members) -> tuple[bool, bool, bool | None]:
    """All of it; whether the vertical job, and the horizontal one, are equal, and members were kept apart."""
    with heading("A consortium of eight, founded by isthmus init and isthmus consortium add, sign, verify, accept"):
        made = members.root / "made"
        make_homes(made, patients=PATIENTS)
        make_hospitals(made, patients=PATIENTS)
        digest = members.found(made)
        out.print(f"  roster version 1, digest {digest}")
        out.print(f"  {members.start_exchange()}")
    with heading("Who is where, and who reaches whom"):
        apart = show_places(members)
    vertical = members.sign(demo_job(PATIENTS, epochs=EPOCHS), "insurer")
    job = load_job(made / HOSPITALS_FILE)
    rounds = {**job.canonical()["rounds"], "count": ROUNDS}
    horizontal = members.sign(type(job).model_validate({**job.canonical(), "rounds": rounds}), COORDINATOR)
    with heading("The vertical job over the network: a lab and an insurer"):
        over_the_network(members, vertical, show=("insurer", "lab"), align_only=True)
        copy_homes(members, vertical)
        sockets = over_the_network(members, vertical, show=("insurer", "lab"))
        quiet = show_sockets(members, sockets)
    with heading("The horizontal job over the network: five hospitals and a coordinator"):
        copy_homes(members, horizontal)
        sockets = over_the_network(members, horizontal, show=(COORDINATOR, "north"))
        quiet &= show_sockets(members, sockets)
        passed = members.relayed()
        nbytes = sum(value for name, value in passed.items() if name.startswith("isthmus_exchange_frame_bytes_total"))
        dropped = sum(value for name, value in passed.items() if name.startswith("isthmus_exchange_dropped_total"))
        out.print(f"  the exchange has passed on {size_text(int(nbytes))} in both jobs; {dropped:.0f} frames came for")
        out.print("  members that were not there yet, or no longer, and were sent again where that mattered")
    equal = []
    for title, signed in (("vertical", vertical), ("horizontal", horizontal)):
        with heading(f"The {title} job again, on one machine"):
            together = on_one_machine(members, signed)
            equal.append(show_comparison(title, network_outcome(members, signed), together))
    return equal[0], equal[1], (quiet and apart) if apart is not None else (None if quiet else False)


@contextlib.contextmanager
def heading(text: str) -> Iterator[None]:
    """A line above what follows, and how long it took below."""
    began = time.monotonic()
    out.print(f"\n[bold]{text}[/]")
    yield
    out.print(f"  [dim]{time.monotonic() - began:.0f} s[/]")


def main() -> int:
    """Run the demo; the exit code."""
    began = time.monotonic()
    if not ROOTLESS and not may_make_namespaces():
        out.print(
            "This demo gives each member a network namespace of its own, which needs Linux, iproute2 and root\n"
            "(CAP_NET_ADMIN, CAP_SYS_ADMIN): sudo make demo-network\n"
            "Without root, with an address of loopback a party, where nothing keeps them apart: "
            "ROOTLESS=1 make demo-network"
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    network: Network = Loopback(MEMBERS) if ROOTLESS else Namespaces(MEMBERS)
    with network:
        root, keep = Path(tempfile.mkdtemp(prefix="isthmus-network-")), False
        members = Members(root, network, coordinator=COORDINATOR)
        try:
            vertical, horizontal, apart = demo(members)
        except KeyboardInterrupt:
            out.print("stopped")
            return 130
        except RuntimeError as failure:
            keep = True
            out.print(f"\n{failure}\nThe logs stay in {root}", markup=False)
            return 1
        finally:
            members.close()
            if not keep:
                shutil.rmtree(root, ignore_errors=True)
    facts = {"vertical_equal": vertical, "horizontal_equal": horizontal, "kept_apart": apart}
    print(json.dumps({**facts, "seconds": round(time.monotonic() - began)}))
    return 0 if vertical and horizontal and apart is not False else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["align"]:
        try:
            align_member(Path(sys.argv[2]), sys.argv[4], Path(sys.argv[6]))
        except IsthmusError as error:
            print(error.text(), file=sys.stderr)
            sys.exit(error.exit_code)
        sys.exit()
    sys.exit(main())
