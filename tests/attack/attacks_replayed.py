"""Frames of other sessions, other runs and other jobs, by a hostile exchange that has recorded them all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from duel import Duel
from hostile import Hostile, Seen, honest
from score import Score
from stage import Stage

from isthmus.flows.journal import Journal
from isthmus.flows.launch import join
from isthmus.flows.signed import sign_job
from isthmus.parties.errors import IsthmusError
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.session import Binding
from isthmus.parties.reach import room_of

_DIFFER = ("job.not_agreed", "job.start_differs")


class Replay:
    """Passes on what comes, and after every frame some of an earlier recording."""

    def __init__(self, recorded: list[Seen], each: int, *, in_front: bool) -> None:
        self.rest, self.each, self.in_front = list(recorded), each, in_front
        self.replayed = 0

    def __call__(self, seen: Seen) -> Iterable[Seen]:
        now, self.rest = self.rest[: self.each], self.rest[self.each :]
        now = [each.but(room=seen.room) for each in now]
        self.replayed += len(now)
        return [*now, seen] if self.in_front else [seen, *now]


def _replayed(stage: Stage, hostile: Hostile, score: Score, *, into_same_run: bool, tries: int) -> None:
    score.control = True
    for number in range(tries):
        hostile.forget()
        first = Duel(stage, hostile.address).start().finish()
        score.control &= first.went_well
        stage.hang_up()
        recorded = hostile.forget()
        second = Duel(stage, hostile.address, run=first.run if into_same_run else "", attempt=2)
        replay = Replay(recorded, 1 + number % 4, in_front=bool(number % 2))
        hostile.relay.scripts[room_of(Binding("hearts", second.run))] = replay
        second.start().finish()
        score.tried += replay.replayed
        score.got_through += second.wrong
        score.outcomes["ended well" if second.went_well else second.ends] += 1
        stage.hang_up()


def other_sessions(stage: Stage, hostile: Hostile, quick: bool) -> list[Score]:
    """Two members' frames of one session, all of them, sent into their next one."""
    tries = 2 if quick else 16
    same = Score("a replayed session: all its frames, in the next attempt at the same run, same signing keys")
    other = Score("another run's frames, in this one's room")
    _replayed(stage, hostile, same, into_same_run=True, tries=tries)
    _replayed(stage, hostile, other, into_same_run=False, tries=tries)
    return [same, other]


def whole_jobs(stage: Stage, hostile: Hostile) -> list[Score]:
    """The same with `isthmus join`: a job's frames into its second attempt, and into its second run."""
    scores = []
    stage.tap.target = ("127.0.0.1", int(hostile.address.rpartition(":")[2]))
    hostile.forget()
    stage.consortium.run()  # the control: by this way a whole job goes through
    recorded = hostile.forget()
    for told, words in (("its next attempt", ("--fresh",)), ("its next run", ("--run", 2))):
        score = Score(f"all frames of a job by `isthmus join`, in {told}", control=len(recorded) > 50)
        replay = Replay(recorded, 2, in_front=True)
        hostile.relay.script = replay
        before = _models(stage)
        before_them = {member: len(stage.consortium.said(member)) for member in ("insurer", "lab")}
        joined = {member: stage.consortium.join(member, "--timeout", 30, *words) for member in before_them}
        for member, process in joined.items():
            status = process.wait(180)
            said = stage.consortium.said(member)[before_them[member] :]
            code = said.rpartition("error[")[2].partition("]")[0] if status else "ended well"
            score.outcomes[code] += 1
            # It can keep two members from meeting, and then they say so at their deadline.
            score.got_through += code != "ended well" and (status, code.split(".")[0]) != (4, "peer")
        score.tried = replay.replayed
        changed = _models(stage) != before
        score.told = f"{len(recorded)} frames recorded; a model of its own was made: {changed}; {_counts(stage)}"
        scores.append(score)
    hostile.relay.script = honest
    return scores


def _models(stage: Stage) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in stage.world.homes.glob("*/models/*/part.safetensors")}


def _counts(stage: Stage) -> str:
    lines = [
        line.partition("not accepted: ")[2]
        for log in stage.world.homes.glob("*/runs/*/vault.log")
        for line in log.read_text().splitlines()
        if "not accepted" in line
    ]
    return "vaults refused " + (" and ".join(lines[-2:]) or "nothing")


def another_job(stage: Stage) -> Iterator[Score]:
    """The server gives two parties two jobs, both truly signed: as runs of their own, and as one run of neither."""
    stage.tap.target = ("127.0.0.1", stage.consortium.port)
    stage.consortium.start_exchange()
    one = stage.world.load_job()
    training = one.canonical()["training"]
    two = type(one).model_validate({**one.canonical(), "training": {**training, "epochs": training["epochs"] - 1}})
    starter = stage.home("insurer")
    bodies = [sign_job(job, starter, folder=stage.folder, days=1, runs=9) for job in (one, two)]
    names = [job.run_name(5) for job in (one, two)]
    score = Score("two parties are shown two signed jobs of one name: what leaves before they notice")
    sent = _shown(stage, score, bodies, names, _DIFFER)
    score.got_through += len(sent - {"agree"})
    score.told = f"by their ledgers, this was sent and nothing else: {', '.join(sent)}"
    score.control = any(score.outcomes[code] for code in _DIFFER) and "agree" in sent
    yield score
    score = Score("two parties are shown two signed jobs as a run of neither")
    score.got_through += len(_shown(stage, score, bodies, ["crossed-1", "crossed-1"], {"run.other_job"}))
    score.control = True  # the jobs are those that met above
    yield score


def _shown(stage: Stage, score: Score, bodies: list[Any], names: list[str], due: Iterable[str]) -> set[str]:
    """Have both parties join; returns the topics of all that left them, as their ledgers say."""

    async def both() -> list[BaseException | None]:
        sides = [
            join(job, stage.world.homes / member, name, Journal(name), timeout_s=30.0, start=start)
            for member, (job, start), name in zip(("insurer", "lab"), bodies, names, strict=True)
        ]
        return await asyncio.gather(*sides, return_exceptions=True)

    for end in asyncio.run(both()):
        score.tried += 1
        code = end.code if isinstance(end, IsthmusError) else repr(end)
        score.outcomes[code] += 1
        score.got_through += code not in (*due, "peer.gone", "peer.protocol")
    entries = [entry for member in ("insurer", "lab") for entry in Ledger(stage.home(member)).entries()]
    return {entry.topic.value for entry in entries if entry.run in names}


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage:
        with Hostile(stage) as hostile:
            yield from other_sessions(stage, hostile, quick)
            yield from whole_jobs(stage, hostile)
        yield from another_job(stage)
