"""Rosters and signed jobs that somebody forged, altered, replayed, or wrote to stop whoever reads them."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from score import Score
from stage import MEMBERS, Stage

from isthmus.flows.signed import read_job_file, write_signed
from isthmus.parties.certificate import make_certificate
from isthmus.parties.consortium import accept, pinned
from isthmus.parties.errors import InputError, IsthmusError
from isthmus.parties.identity import Identity
from isthmus.parties.policy import Policy
from isthmus.parties.roster import Roster
from isthmus.parties.starts import Start, judge_start, sign_start
from isthmus.parties.state import State

NOW = datetime.now(UTC).replace(microsecond=0)
JOB = "c" * 64
AT_ONCE_S = 20.0  # for a bomb to be refused, on a machine that is busy


# --- rosters ----------------------------------------------------------------------------------------------------------


def rosters(stage: Stage) -> list[Score]:
    """Whoever carries the file, fewer members than the threshold, and a member that was revoked."""
    score = Score("rosters that must not be accepted: signatures, rollback, swapped pins, other members' keys")
    folder, first = stage.world.homes / "lab", stage.roster
    keys = {name: Identity(stage.home(name)) for name in MEMBERS}
    mallory = Ed25519PrivateKey.generate()
    public = mallory.public_key().public_bytes_raw().hex()

    def signed(made: Roster, *signers: str, forged: tuple[str, ...] = ()) -> Roster:
        signatures = {name: keys[name].sign(made.canonical()).hex() for name in signers}
        signatures |= {name: mallory.sign(made.canonical()).hex() for name in forged}
        return made.model_copy(update={"signatures": signatures})

    def version(number: int, **changes: Any) -> Roster:
        return first.model_copy(update={"version": number, "signatures": {}, **changes})

    def with_key(name: str, **changes: Any) -> dict[str, Any]:
        return {**first.members, name: first.members[name].model_copy(update=changes)}

    stolen = with_key("clinic", key=public)
    extra = {f"new{number}": first.members["clinic"].model_copy(update=_fresh()) for number in range(3)}
    own = {name: member for name, member in with_key("lab", key=public).items() if name == "lab"} | extra
    second = version(2)
    cases: dict[str, tuple[Roster, str]] = {
        "unsigned": (second, "roster.signatures"),
        "one signature of two": (signed(second, "insurer"), "roster.signatures"),
        "signatures of no member": (signed(second, forged=("insurer", "lab", "mallory")), "roster.signatures"),
        "one true, the rest forged": (signed(second, "clinic", forged=("insurer", "lab")), "roster.signatures"),
        "one signature under three names": (_thrice(signed(second, "clinic")), "roster.signatures"),
        "signatures of another version": (_taken(version(3), signed(second, *MEMBERS)), "roster.signatures"),
        "signed by keys that it brings itself": (_by_itself(version(2, members=own), extra), "roster.signatures"),
        "a swapped key, signed by its new owner": (
            signed(version(2, members=stolen), "insurer", forged=("clinic",)),
            "roster.signatures",
        ),
        "threshold lowered to 1": (signed(version(2, threshold=1), "clinic"), "roster.signatures"),
        "same version, other content": (signed(version(1, members=stolen), *MEMBERS), "roster.older"),
        "another consortium": (signed(version(2, consortium="other"), *MEMBERS), "roster.invalid"),
        "edited after it was signed": (
            _taken(version(2, members=stolen), signed(second, *MEMBERS)),
            "roster.signatures",
        ),
    }
    for name, (made, code) in cases.items():
        digest = made.digest() if name != "same version, other content" else None
        score.refused(lambda made=made, digest=digest: accept(folder, made, digest), code)  # type: ignore[misc]
        score.outcomes[name] += 0
    accept(folder, signed(second, "insurer", "clinic"))
    found = pinned(folder)
    score.control = found is not None and found.version == 2
    revoked = with_key("clinic", revoked=NOW)
    accept(folder, signed(version(3, members=revoked), "insurer", "lab"))
    score.refused(lambda: accept(folder, first), "roster.older")
    score.refused(lambda: accept(folder, signed(second, *MEMBERS)), "roster.older")
    score.refused(
        lambda: accept(folder, signed(version(4), "clinic", "lab")), "roster.signatures"
    )  # to let it in again
    score.refused(lambda: accept(folder, signed(version(4), "lab")), "roster.signatures")
    for name in ("roster.yaml", "roster.pin"):
        kept = (folder / name).read_bytes()
        for old, new in ((b"127.0.0.1", b"127.0.0.2"), (b'"version": 3', b'"version": 2'), (b"party", b"coordinator")):
            if old in kept:
                (folder / name).write_bytes(kept.replace(old, new, 1))
                score.refused(lambda: pinned(folder), "roster.altered")
                (folder / name).write_bytes(kept)
    score.told = ", ".join(cases)
    return [score]


def _fresh() -> dict[str, str]:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    return {"key": key, "certificate": make_certificate().certificate.decode()}


def _thrice(made: Roster) -> Roster:
    signature = made.signatures["clinic"]
    return made.model_copy(update={"signatures": dict.fromkeys((*MEMBERS, "Clinic", "clinic2"), signature)})


def _taken(made: Roster, other: Roster) -> Roster:
    return made.model_copy(update={"signatures": other.signatures})


def _by_itself(made: Roster, extra: dict[str, Any]) -> Roster:
    return made.model_copy(update={"signatures": dict.fromkeys(extra, "0" * 128)})


def bombs(stage: Stage) -> list[Score]:
    """Files that are to fill a reader's memory, take its time, or make it fail with an exception of its own."""
    score = Score("YAML bombs, as a roster and as a job file: aliases, numbers, tags, nesting, names twice, 2 MB")
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
    texts = {
        "aliases of aliases": laughs,
        "an alias of itself": "a: &a [*a]",
        "merge keys": "a: &a {b: 1}\nc: {<<: *a}",
        "a name twice": (stage.consortium.roster).read_text() + "version: 1\n",
        "2 MB of comment": "#" * 2_000_000,
        "base 60, 400 KB": "version: " + "1:" * 200_000 + "1",
        "base 60 as a float": "version: " + "1:" * 400 + "1.0",
        "hexadecimal, 900 KB": "version: 0x" + "f" * 900_000,
        "nested 900,000 deep": "[" * 900_000,
        "nested maps": "{a: " * 100_000,
        **{
            f"tag {tag}": f"version: !!{tag} x"
            for tag in ("bool", "int", "float", "timestamp", "set", "omap", "binary")
        },
        "a python object": "version: !!python/object/apply:os.getcwd []",
        "a lone surrogate": 'consortium: "\\ud800"\nkind: vertical\nname: "\\ud800"',
        "zeros": "\0" * 1000,
        "not UTF-8": "\xff",
    }
    path, slowest = stage.folder / "bomb.yaml", 0.0
    for text in texts.values():
        path.write_bytes(text.encode("latin-1"))
        for read in (Roster.read, read_job_file):
            began = time.monotonic()
            score.refused(lambda read=read: read(path), "roster.invalid", "job.not_yaml", "job.invalid")  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
    score.got_through += slowest > AT_ONCE_S
    score.told = f"{', '.join(texts)}; the slowest took {slowest:.1f} s"
    score.control = Roster.read(stage.consortium.roster).version == 1
    return [score]


# --- signed jobs ------------------------------------------------------------------------------------------------------


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
    score.refused(lambda: judge(start(), now=NOW - timedelta(days=30)), "policy.start_rate")
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
        yield from bombs(stage)
        yield from changed_files(stage)
        yield from race(stage, quick)
        yield from rosters(stage)
        yield from starts(stage)
