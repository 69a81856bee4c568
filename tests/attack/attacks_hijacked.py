"""Who has taken over a worker's process, and the vault is another user's: what it can read, ask, and break."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import two_users
from hostile_prefect import HostilePrefect
from score import Score
from workshop import Watch, Workshop, wait_for

from isthmus.parties.events import Failed, parse

HIJACKER = Path(__file__).with_name("hijacker.py")
LIMIT = 8
# What a user may see of any process of another, and does not tell: that it is there, and its command.
OF_THE_KERNEL = frozenset({"signal 0"})


class Apart:
    """Lab's vault as one user, its worker as another, and the hijacker as whoever is said."""

    def __init__(self, shop: Workshop, server: HostilePrefect, users: dict[str, pwd.struct_passwd]) -> None:
        self.shop, self.server = shop, server
        self.vault_user, self.worker_user = users[two_users.VAULT], users[two_users.WORKER]
        self.other_user = users[two_users.OTHER]
        shop.folder.chmod(0o711)
        shop.homes.chmod(0o711)
        self.python = two_users.python_for(self.worker_user, shop.folder / "python")
        self.home, self.run = shop.homes / "lab", shop.folder / "run"
        self.run.mkdir()
        self.socket = self.run / "lab.sock"
        for user, name in ((self.worker_user, "worker"), (self.vault_user, "vault"), (self.other_user, "other")):
            (shop.folder / name).mkdir(mode=0o700)
            os.chown(shop.folder / name, user.pw_uid, user.pw_gid)
        for path in (self.home, *self.home.rglob("*"), self.run):
            os.chown(path, self.vault_user.pw_uid, self.vault_user.pw_gid)

    def vault(self, *words: str) -> subprocess.Popen[str]:
        """`isthmus vault start lab`, as the vault's user."""
        said = ("vault", "start", "lab", "--homes", self.shop.homes, "--socket", self.socket)
        allowed = ("--user", self.worker_user.pw_name, "--group", two_users.WORKER, "--limit", LIMIT, *words)
        return self._as(self.vault_user, "vault", *said, *allowed)

    def worker(self) -> subprocess.Popen[str]:
        """`isthmus party start lab --socket`, as the worker's user."""
        words = ("party", "start", "lab", "--socket", self.socket, "--poll", "0.2")
        process = self._as(self.worker_user, "worker", *words)
        self.shop.workers["lab"] = process
        return process

    def _as(self, user: pwd.struct_passwd, name: str, *words: object) -> subprocess.Popen[str]:
        place = self.shop.folder / name
        environment = {**self.shop.environment(self.server.url), "HOME": str(place), "PREFECT_HOME": str(place)}
        with (self.shop.folder / f"{name}.log").open("a") as out:
            self.shop.consortium.python, before = self.python, self.shop.consortium.python
            try:
                return self.shop.consortium.spawn(*words, stdout=out, env=environment, **two_users.as_user(user))
            finally:
                self.shop.consortium.python = before

    def hijacker(self, user: pwd.struct_passwd, place: str, *parts: str, **facts: Any) -> dict[str, Any]:
        """Run the hijacker as a user; what each of its tries came to."""
        scratch = self.shop.folder / place / f"scratch-{time.monotonic_ns()}"
        scratch.mkdir()
        os.chown(scratch, user.pw_uid, user.pw_gid)
        said = scratch / "facts.json"
        true = {"parts": parts, "home": str(self.home), "socket": str(self.socket), "scratch": str(scratch)}
        said.write_text(json.dumps({**true, "user": self.vault_user.pw_uid, **facts}))
        said.chmod(0o644)
        script = scratch / "hijacker.py"
        shutil.copy(HIJACKER, script)
        script.chmod(0o644)
        environment = {**self.shop.environment(self.server.url), "HOME": str(scratch)}
        words = [self.python, str(script), str(said)]
        options = two_users.as_user(user)
        ended = subprocess.run(  # type: ignore[call-overload]
            words, check=False, capture_output=True, text=True, cwd=scratch, env=environment, timeout=400, **options
        )
        assert ended.returncode == 0, ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout)
        assert result["uid"] == user.pw_uid
        return result

    def ledger(self) -> list[dict[str, Any]]:
        """What has left lab; read as the vault's user, or files of root's would be in its home."""
        words = [
            self.python,
            "-m",
            "isthmus.flows.cli",
            "audit",
            "show",
            "lab",
            "--homes",
            str(self.shop.homes),
            "--json",
        ]
        options = two_users.as_user(self.vault_user)
        ended = subprocess.run(words, check=True, capture_output=True, text=True, cwd="/", **options)  # type: ignore[call-overload]
        entries: list[dict[str, Any]] = json.loads(ended.stdout)
        return entries

    def good(self, number: int) -> bool:
        """Whether the next good job goes well."""
        job = self.shop.job()
        order = self.shop.order(job, self.shop.start_by("insurer", job), number)
        runs = [self.server.put(member, order) for member in ("lab", "insurer")]
        ends = [self.server.ended(run, 180) for run in runs]
        return [end.state for end in ends] == ["COMPLETED", "COMPLETED"] and self.shop.alive()


def readable_home(apart: Apart) -> Score:
    """A home that the worker could read: the vault does not start."""
    score = Score("`isthmus vault start` over a home that the worker's user can enter")
    for mode in (0o755, 0o750, 0o711):
        apart.home.chmod(mode)
        process = apart.vault()
        score.tried += 1
        status = process.wait(60)
        score.got_through += status != 2 or apart.socket.exists()
        score.outcomes[f"{mode:o}: exit {status}"] += 1
    apart.home.chmod(0o700)
    score.control = "error[home.open]" in (apart.shop.folder / "vault.log").read_text()
    return score


def _secrets(apart: Apart) -> list[str]:
    names = ["lab.duckdb", "party.yaml", "identity.key", "tls.key", "ledger.key", "state.duckdb", "roster.pin", "runs"]
    return [*names, *(str(path.relative_to(apart.home)) for path in apart.home.rglob("vault.log"))]


def reading(apart: Apart, service: int) -> Score:
    """Files and processes of the vault's user, while a vault is at work."""
    score = Score("a hijacked worker reads data, keys, state, logs; the vault's memory, environment, files; traces it")
    job = apart.shop.job()
    order = apart.shop.order(job, apart.shop.start_by("insurer", job), 2, timeout_s=120.0)
    run = apart.server.put("lab", order)  # waits for its peer, who is told nothing
    children = Path(f"/proc/{service}/task/{service}/children")
    log = apart.home / "runs" / job.run_name(2) / "vault.log"
    assert wait_for(lambda: log.exists() and "attempt" in log.read_text(), 60)  # it has read its rows and keys
    facts = {"files": _secrets(apart), "pids": [service, *map(int, children.read_text().split())]}
    for user, place in ((apart.worker_user, "worker"), (apart.other_user, "other")):
        said = apart.hijacker(user, place, "files", "processes", "litter", **facts)
        for name, what in (*said["files"], *said["processes"]):
            score.tried += 1
            if not what.startswith("denied"):
                score.got_through += 1
                score.outcomes[f"{name}: {what}"[:90]] += 1
        score.tried += 1
        score.got_through += len(said["litter"])
        score.outcomes["files left lying about"] += len(said["litter"])
    apart.server.runs[run].state = "CANCELLING"
    owner = apart.hijacker(apart.vault_user, "vault", "processes", files=facts["files"], pids=[service])
    read = apart.hijacker(apart.vault_user, "vault", "files", files=facts["files"], **_copy(apart))
    got = {name for name, what in (*owner["processes"], *read["files"]) if what.startswith("got")}
    wanted = {
        "read lab.duckdb",
        "read identity.key",
        "list the home",
        "read environ",
        "read mem",
        "read memory by a call",
        "trace",
    }
    score.told = f"the vault's own user gets {len(got)} of these" + (f", not {wanted - got}" if wanted - got else "")
    score.control = wanted <= got
    apart.server.ended(run, 60)
    return score


def _copy(apart: Apart) -> dict[str, str]:
    """A home and a socket like it, for its own user to try: the tries move, open and remove them."""
    copy = apart.shop.folder / "vault" / "copy"
    shutil.copytree(apart.home, copy)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, apart.vault_user.pw_uid, apart.vault_user.pw_gid)
    return {"home": str(copy), "socket": str(copy / "lab.sock")}


def asking(apart: Apart) -> Score:
    """The socket: whatever is said to it, what comes back is a public event, and nothing leaves."""
    score = Score("a hijacked worker says anything to the vault's socket; others knock at it")
    job, before = apart.shop.job(), len(apart.ledger())
    start = apart.shop.start_by("insurer", job, runs=9)
    opening = {"job": job.canonical(), "start": start.model_dump(mode="json"), "run": job.run_name(3)}
    opening = {**opening, "by_exchange": True, "timeout_s": 2.0}
    facts = {"order": opening, "sign": {"sign": job.canonical(), "run": job.run_name(3)}}
    said = apart.hijacker(apart.worker_user, "worker", "lines", **facts)
    for name, what in said["lines"]:
        score.tried += 1
        wrong, last = False, "hangs up"
        for line in [] if what.startswith("denied") else what.splitlines():
            try:
                event = parse(line, {*job.aliases()})
                last = event.code if isinstance(event, Failed) else event.event
                wrong |= event.event in ("signed", "count", "metric")
            except ValueError:
                wrong, last = True, line[:60]
        score.got_through += wrong
        score.outcomes[f"{name}: {last}"] += 1
        score.told += f"WRONG {name}: {what[:600]}" if wrong else ""
    for user, place in ((apart.other_user, "other"),):
        what = apart.hijacker(user, place, "knock", **facts)["knock"]
        score.tried += 1
        score.got_through += not what.startswith("denied")
        score.outcomes[f"another user: {what}"] += 1
    score.got_through += sum(entry["topic"] != "agree" for entry in apart.ledger()[before:])
    score.control = any("policy.signs" in outcome for outcome in score.outcomes)  # what is well said is answered
    return score


def rushing(apart: Apart, service: subprocess.Popen[str], quick: bool) -> Score:
    """A thousand connections, a few times."""
    score, many = Score("a thousand connections at once to the vault's socket"), 200 if quick else 1000
    watch = _Most(service.pid)
    for _ in range(1 if quick else 3):
        ends = apart.hijacker(apart.worker_user, "worker", "rush", many=many)["rush"]
        score.tried += many
        score.outcomes.update(ends)
    watch.ended = True
    score.got_through += max(0, watch.most - LIMIT) + (service.poll() is not None)
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children")
    gone = wait_for(lambda: not children.read_text().split(), 30)
    score.told = f"vaults at the same time: {watch.most}, of {LIMIT} that may; all gone when it hangs up: {bool(gone)}"
    score.control = watch.most >= 1 and bool(gone)
    return score


class _Most(Watch):
    """How many children a process had at most."""

    def __init__(self, pid: int) -> None:
        self.most, self.ended = 0, False
        super().__init__(pid)

    def _look(self) -> None:
        path = Path(f"/proc/{self._root}/task/{self._root}/children")
        while not self.ended:
            self.most = max(self.most, len(path.read_text().split()))
            time.sleep(0.01)


def run(quick: bool) -> Iterator[Score]:
    if os.getuid() != 0:
        raise PermissionError("making operating-system users takes root")
    with two_users.users() as users, Workshop(under="/tmp") as shop, HostilePrefect(shop.poison) as server:  # noqa: S108
        apart = Apart(shop, server, users)
        yield readable_home(apart)
        service = apart.vault()
        assert wait_for(apart.socket.exists, 60), (shop.folder / "vault.log").read_text()
        apart.worker()
        shop.worker("insurer", server.url)
        first = Score("a whole job, the vault and its worker as two users")
        first.tried, first.control = 1, apart.good(1)
        yield first
        yield reading(apart, service.pid)
        yield asking(apart)
        yield rushing(apart, service, quick)
        last = Score("and the next good job, after all that")
        last.tried, last.control = 1, apart.good(4) and service.poll() is None
        yield last
