"""Signed jobs that must not start: unsigned, altered, strangers', expired, spent, too often."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from score import Score
from stage import Stage

from isthmus.flows.signed import read_job_file, write_signed
from isthmus.parties.errors import InputError, IsthmusError
from isthmus.parties.identity import Identity
from isthmus.parties.policy import Policy
from isthmus.parties.starts import Start, judge_start, sign_start
from isthmus.parties.state import State

NOW = datetime.now(UTC).replace(microsecond=0)
JOB = "c" * 64


class Judge:
    """Lab, which lets insurer start a vertical job three times more today."""

    def __init__(self, stage: Stage) -> None:
        self.state, self.roster = State(stage.home("lab")), stage.roster
        with self.state.transaction() as connection:
            noted = connection.execute("SELECT count(*) FROM starts").fetchone()
        assert noted is not None
        self.policy = Policy.model_validate({"starts": {"insurer": {"vertical": f"{noted[0] + 3} per day"}}})
        self.revoked: set[str] = set()
        self._runs = itertools.count()

    def __call__(self, start: Start | None, **changes: Any) -> None:
        says: dict[str, Any] = {"policy": self.policy, "state": self.state, "party": "lab", "consortium": "hearts"}
        says |= {"key_of": self._key_of, "kind": "vertical", "job_digest": JOB, "begins_anew": False, "now": NOW}
        judge_start(start, **{**says, "run": f"run-{next(self._runs)}", **changes})

    def _key_of(self, name: str) -> bytes:
        if name in self.revoked:
            raise InputError("roster.revoked", party="lab", peer=name)
        if name not in self.roster.members:
            raise InputError("roster.member_unknown", party="lab", peer=name)
        return self.roster.members[name].public


def starts(stage: Stage) -> list[Score]:
    """A hostile server that carries jobs and signatures, a non-member, a revoked member, one without leave."""
    score, judge = (
        Score("signed jobs that must not start: unsigned, altered, strangers', spent, too often"),
        Judge(stage),
    )
    insurer, clinic = Identity(stage.home("insurer")), Identity(stage.home("clinic"))

    def start(by: Identity = insurer, **changes: Any) -> Start:
        says = {
            "name": "hearts",
            "job": JOB,
            "kind": "vertical",
            "until": NOW + timedelta(days=1),
            "runs": 1,
            **changes,
        }
        return sign_start(by, says["name"], says["job"], says["kind"], until=says["until"], runs=says["runs"])

    true = start()
    for changes in (
        {"job": "d" * 64}, {"kind": "statistics"}, {"consortium": "other"}, {"by": "clinic"}, {"runs": 1000},
        {"until": NOW + timedelta(days=300)}, {"nonce": "0" * 32}, {"signature": "0" * 128},
        {"signature": true.signature[:64] + "0" * 64},
    ):  # fmt: skip
        altered = true.model_copy(update=changes)
        digest = altered.job
        score.refused(lambda a=altered, d=digest: judge(a, job_digest=d, kind=a.kind), "job.signature", "policy.start")  # type: ignore[misc]
    score.refused(lambda: judge(None), "job.unsigned")
    score.refused(lambda: judge(start(job="d" * 64)), "job.signature")
    score.refused(lambda: judge(start(name="other")), "job.signature")
    score.refused(lambda: judge(start(kind="statistics")), "job.signature")
    score.refused(lambda: judge(start(kind="statistics"), kind="statistics"), "policy.start")
    score.refused(lambda: judge(start(clinic)), "policy.start")
    score.refused(lambda: judge(start().model_copy(update={"by": "mallory"})), "roster.member_unknown")
    for until in (NOW - timedelta(days=1), NOW - timedelta(hours=2)):
        score.refused(lambda until=until: judge(start(until=until)), "policy.start_expired")  # type: ignore[misc]
    judge.revoked = {"insurer"}
    score.refused(lambda: judge(start()), "roster.revoked")
    judge.revoked = set()
    judge(true)
    score.control = True
    for _ in range(20):  # the same word again, its signature by whatever means another
        score.refused(lambda: judge(true), "policy.start_used")
    score.refused(lambda: judge(true, begins_anew=True, run="run-0"), "policy.start_used")
    for _ in range(2):
        judge(start())
    for _ in range(20):
        score.refused(lambda: judge(start()), "policy.start_rate")
    # A clock that is set back does not make the day begin again.
    score.refused(lambda: judge(start(), now=NOW - timedelta(days=30)), "policy.clock")
    return [score]


def _race(homes: Path, start: Start, gate: Any, outcomes: Any, number: int) -> None:
    from isthmus.parties.home import PartyHome

    state = State(PartyHome(homes / "lab"))
    key = Identity(PartyHome(homes / "insurer")).public
    gate.wait(60)
    try:
        judge_start(
            start, policy=Policy.model_validate({"starts": {"insurer": {"vertical": "100 per day"}}}), state=state,
            party="lab", consortium="hearts", key_of=lambda _: key, kind="vertical", job_digest=JOB,
            run=f"race-{number}", begins_anew=False, now=NOW,
        )  # fmt: skip
        outcomes.put("started")
    except IsthmusError as failure:
        outcomes.put(failure.code)


def race(stage: Stage, quick: bool) -> list[Score]:
    """Several processes at lab are shown the same start, good for one run, at the same moment."""
    score = Score("a start good for one run, shown to six processes of a party at once")
    insurer, context = Identity(stage.home("insurer")), multiprocessing.get_context("fork")
    for round_number in range(1 if quick else 5):
        start = sign_start(insurer, "hearts", JOB, "vertical", until=NOW + timedelta(days=1), runs=1)
        gate, outcomes = context.Barrier(6), context.Queue()
        racers = [
            context.Process(target=_race, args=(stage.world.homes, start, gate, outcomes, 10 * round_number + number))
            for number in range(6)
        ]
        for racer in racers:
            racer.start()
        ends = [outcomes.get(timeout=120) for _ in racers]
        for racer in racers:
            racer.join(30)
        score.tried += 6
        score.outcomes.update(ends)
        score.got_through += max(0, ends.count("started") - 1)
        score.control |= "started" in ends
    return [score]


def changed_files(stage: Stage) -> list[Score]:
    """A signed job's file, changed on its way to a member that joins: real processes."""
    score = Score("`isthmus join` with a job file that was changed after it was signed")
    path, whole = stage.consortium.signed, stage.consortium.signed.read_text()
    job, start = read_job_file(path)
    assert start is not None
    changes: dict[str, Callable[[], None]] = {
        "epochs": lambda: path.write_text(whole.replace("epochs: 2", "epochs: 3")),
        "purpose": lambda: path.write_text(whole.replace("purpose: testing", "purpose: others")),
        "unsigned": lambda: path.write_text((stage.folder / "job.yaml").read_text()),
        "runs": lambda: write_signed(path, job, start.model_copy(update={"runs": 999})),
        "starter": lambda: write_signed(path, job, start.model_copy(update={"by": "clinic"})),
    }
    for name, change in changes.items():
        change()
        assert path.read_text() != whole
        process = stage.consortium.join("lab", "--timeout", "5")
        status = process.wait(120)
        said = stage.consortium.said("lab").rpartition("error[")[2].partition("]")[0]
        score.tried += 1
        score.got_through += status not in (2, 3) or said not in ("job.signature", "job.unsigned", "policy.start")
        score.outcomes[f"{name}: {said}"] += 1
        path.write_text(whole)
    process = stage.consortium.join("lab", "--timeout", "2")  # true: it gets as far as the exchange, which is down
    score.control = process.wait(120) == 4
    return [score]


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage:
        yield from changed_files(stage)
        yield from race(stage, quick)
        yield from starts(stage)
