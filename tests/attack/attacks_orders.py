"""Orders of a hostile Prefect server, at real workers: what it names to be run, and jobs that must not begin."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hostile_prefect import HostilePrefect, Run
from poison import MARK
from score import Score
from workshop import Workshop

PARTIES = ("insurer", "lab")


class Scene:
    """The workshop, the hostile server and both workers; `held` looks at all that must not have happened."""

    def __init__(self, shop: Workshop, server: HostilePrefect) -> None:
        self.shop, self.server = shop, server

    def held(self, score: Score, left: int) -> None:
        """Count what ran or left against the attack: `left` entries of lab's ledger were there before."""
        for canary in self.shop.poison.sung():
            score.got_through += 1
            score.outcomes[f"canary {canary}"] += 1
        for command in self.shop.foreign():
            score.got_through += 1
            score.outcomes[f"ran {command}"[:80]] += 1
        for asked in self.server.strange():
            score.got_through += 1
            score.outcomes[f"asked {asked}"] += 1
        more = self.shop.left("lab") - left
        score.got_through += max(0, more)
        score.outcomes["entries that left"] += max(0, more)
        if not score.outcomes["entries that left"]:
            del score.outcomes["entries that left"]

    def refused(self, score: Score, orders: Sequence[Any], *codes: str, **more: Any) -> None:
        """Give lab's worker these orders; each has to fail with one of the codes, and without the mark."""
        runs = [self.server.put("lab", order, **more) for order in orders]
        for run in runs:
            _count(score, self.server.ended(run, 180), codes)

    def good(self, number: int) -> bool:
        """Whether the next good job goes well at both, by the same workers."""
        job = self.shop.job()
        order = self.shop.order(job, self.shop.start_by("insurer", job), number)
        runs = [self.server.put(member, order) for member in PARTIES]
        ends = [self.server.ended(run, 120) for run in runs]
        return [end.state for end in ends] == ["COMPLETED", "COMPLETED"] and self.shop.alive()


def _count(score: Score, end: Run, codes: Sequence[str]) -> None:
    code = end.message.partition("error[")[2].partition("]")[0] or f"{end.state} {end.message[:40]}"
    score.tried += 1
    score.outcomes[code] += 1
    score.got_through += end.state != "FAILED" or code not in codes or MARK in end.message


def named(scene: Scene) -> Score:
    """Everything that a server can name to have it run."""
    score = Score("command, entry point, pull step, environment, image, working directory, result, block, template")
    shop, left = scene.shop, scene.shop.left("lab")
    job = shop.job()
    true = shop.order(job, shop.start_by("insurer", job))
    orders: list[Any] = []
    for value in shop.poison.references():
        orders += [{"order": value}, {"order": {**true["order"], "start": value}}]
        orders += [{"order": {**true["order"], field: value}} for field in ("job", "run", "phases", "timeout_s")]
        orders += [
            {"order": {**true["order"], "job": {**true["order"]["job"], field: value}}}
            for field in ("kind", "name", "parties", "model", "exchange", MARK)
        ]
        if isinstance(value, dict):
            orders += [value, {**true, **value}, {"order": {**true["order"], **value}}]
    for word, value in shop.poison.words().items():
        orders += [{**true, word: value}, {"order": {**true["order"], word: value}}]
    scene.refused(score, orders, "order.invalid")
    scene.held(score, left)
    score.got_through += any((shop.homes / "lab" / "runs").glob("*"))  # no vault has even heard of it
    score.control = shop.poison.sings() and scene.good(1)
    return score


def malformed(scene: Scene) -> Score:
    """Names that are paths, deep and long orders, wrong types."""
    score, shop, left = Score("path tricks, deep, long and wrong orders, other parties' orders"), scene.shop, 0
    left, job = shop.left("lab"), shop.job()
    true = shop.order(job, shop.start_by("insurer", job))
    orders: list[Any] = [{}, {"order": None}, {"order": [true]}, {"order": true}]
    for run in (
        "",
        "..",
        "../../x",
        "/etc/x",
        "a/b",
        "x\0",
        "x" * 9999,
        f"{job.run_name(1)}/..",
        f"../{job.run_name(1)}",
    ):
        orders.append({"order": {**true["order"], "run": run}})
    for kind in ("../../evil", "os", "vertical.job", "__init__", ["vertical"], None):
        orders.append({"order": {**true["order"], "job": {**true["order"]["job"], "kind": kind}}})
    nested: Any = MARK
    for _ in range(150):
        nested = [nested]
    orders.append({"order": nested})
    orders.append({"order": {**true["order"], "job": {**true["order"]["job"], "model": nested}}})
    orders.append({"order": {**true["order"], "job": {**true["order"]["job"], "purpose": "x" * 3_000_000}}})
    for seconds in (0, -1, 1e300, "NaN", "Infinity"):
        orders.append({"order": {**true["order"], "timeout_s": seconds}})
    other = copy.deepcopy(shop.world.job)
    other["parties"][1]["name"] = "clinic"
    without = shop.job(parties=other["parties"])
    orders.append(shop.order(without, shop.start_by("insurer", without)))
    before = set(path.name for path in (shop.homes / "lab" / "runs").glob("*"))
    scene.refused(score, orders, "order.invalid")
    score.got_through += set(path.name for path in (shop.homes / "lab" / "runs").glob("*")) != before
    scene.held(score, left)
    score.control = scene.good(2)
    return score


def unsigned(scene: Scene) -> Score:
    """Jobs that nobody signed who may, which only a vault can know."""
    score, shop = (
        Score("a job nobody signed, a stranger's, another job's, another kind's, an expired signature"),
        scene.shop,
    )
    left, job, other = shop.left("lab"), shop.job(), shop.job(name="other-job")
    true = shop.start_by("insurer", job)
    forged = Ed25519PrivateKey.generate().sign(true.signed_bytes()).hex()
    long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
    starts = {
        None: "job.unsigned",
        true.model_copy(update={"signature": forged}): "job.signature",
        true.model_copy(update={"runs": 999}): "job.signature",
        shop.start_by("insurer", other): "job.signature",
        shop.start_by("insurer", job, kind="statistics"): "job.signature",
        shop.start_by("insurer", job, name="others"): "job.signature",
        shop.start_by("clinic", job): "policy.start",
        true.model_copy(update={"by": "clinic"}): "job.signature",
        true.model_copy(update={"by": "mallory"}): "roster.member_unknown",
        shop.start_by("insurer", job, until=long_ago): "policy.start_expired",
    }
    orders = [shop.order(job, start, 3) for start in starts]
    runs = [scene.server.put("lab", order) for order in orders]
    for run, code in zip(runs, starts.values(), strict=True):
        _count(score, scene.server.ended(run, 180), (code, "policy.start"))
    scene.refused(
        score, [shop.order(job, true, 3, phases=[phase]) for phase in ("train", "align", "evaluate")], "internal"
    )
    bent = [
        {**shop.world.job, "purpose": MARK},
        {**shop.world.job, "exchange": "evil"},
        {**shop.world.job, "training": {**shop.world.job["training"], "epochs": 99}},
    ]
    jobs = [shop.job(**one) for one in bent]
    orders = [shop.order(one, shop.start_by("insurer", one)) for one in jobs]
    scene.refused(score, orders, "policy.purpose", "policy.epochs", "roster.exchange_unknown")
    scene.held(score, left)
    score.control = scene.good(4)
    return score


def two_jobs(scene: Scene) -> Score:
    """Two jobs, each signed by a member who may, are shown to two parties as one."""
    score, shop = Score("two different signed jobs to two parties of one run"), scene.shop
    left, first = shop.left("lab"), shop.job()
    seconds = [
        shop.job(training={**shop.world.job["training"], "seed": 4}),
        shop.job(align={**shop.world.job["align"], "at_least": 21}),
    ]
    for number, second in enumerate(seconds, 5):
        ends = [
            scene.server.put("lab", shop.order(first, shop.start_by("insurer", first), number)),
            scene.server.put("insurer", shop.order(second, shop.start_by("insurer", second), number)),
        ]
        for run in ends:
            _count(score, scene.server.ended(run, 120), ("job.not_agreed", "peer.gone", "peer.refused", "peer.closed"))
    scene.held(score, left)
    score.control = scene.good(7)
    return score


def replayed(scene: Scene) -> Score:
    """A true order, again and again."""
    score, shop = Score("a true order again: beyond its runs, and beyond five attempts at one run"), scene.shop
    left, job = shop.left("lab"), shop.job()
    start = shop.start_by("insurer", job)
    for _ in range(5):  # lab alone, whose peer is given nothing: each is an attempt, and none gets beyond the handshake
        run = scene.server.put("lab", shop.order(job, start, 8, timeout_s=0.5))
        assert scene.server.ended(run, 60).state == "FAILED"
    scene.refused(score, [shop.order(job, start, 8, timeout_s=0.5)] * 3, "policy.start_attempts")
    orders = [shop.order(job, start, number, timeout_s=0.5) for number in (9, 10, 11)]
    scene.refused(score, [*orders, shop.order(job, start, 8, fresh=True, timeout_s=0.5)], "policy.start_used")
    scene.held(score, left)
    score.control = scene.good(12)
    return score


def storm(scene: Scene) -> Score:
    """Runs that are cancelled as soon as they begin, and runs that are in every state at once."""
    score, shop, server = (
        Score("a storm of cancellations, and states that contradict each other"),
        scene.shop,
        scene.server,
    )
    left, job = shop.left("lab"), shop.job()
    order = shop.order(job, shop.start_by("insurer", job), 13, timeout_s=5)
    runs = [server.put("lab", order) for _ in range(24)]
    until = time.monotonic() + 240
    while any(server.runs[run].state in ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING") for run in runs):
        assert time.monotonic() < until
        for run in runs:
            if server.runs[run].state == "RUNNING":
                server.runs[run].state = "CANCELLING"
        time.sleep(0.02)
    for state in ("PAUSED", "COMPLETED", "CRASHED", "SCHEDULED", "PENDING"):
        run = server.put("lab", shop.order(job, None, 14))
        server.script = _once(lambda run=run, state=state: setattr(server.runs[run], "state", state))  # type: ignore[misc]
        runs.append(run)
        time.sleep(0.5)
        server.script = None
        server.runs[run].state = "COMPLETED"
    score.tried = len(runs)
    scene.held(score, left)
    score.control = scene.good(15)
    return score


def _once(act: Callable[[], Any]) -> Any:
    def script(method: str, path: str, *_: Any) -> None:
        if path.endswith("set_state"):
            act()

    return script


def run(quick: bool) -> Iterator[Score]:
    with Workshop() as shop, HostilePrefect(shop.poison) as server:
        for member in PARTIES:
            shop.worker(member, server.url)
        scene = Scene(shop, server)
        yield named(scene)
        yield malformed(scene)
        yield unsigned(scene)
        yield two_jobs(scene)
        if not quick:
            yield replayed(scene)
            yield storm(scene)
