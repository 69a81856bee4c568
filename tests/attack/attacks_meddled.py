"""A real Prefect server in the attacker's hands: changed definitions, and a coordinating flow that is told lies.

Coordinator (insurer, whose policy signs vertical jobs) and lab's worker speak to a proxy in front of the server, which
keeps what they ask, and bends what they are told.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from between import Between, RealPrefect
from poison import MARK
from score import Score
from workshop import FIRST_TOPIC, Workshop, wait_for

from isthmus.flows.workers.orders import said_key

KIND = "vertical/isthmus"
PORT = 4311
_UNPICKLE = """
import asyncio, json, sys
from prefect.client.schemas.objects import State
from prefect.results import ResultRecordMetadata
data = ResultRecordMetadata.model_validate(json.load(open(sys.argv[1])))
print(asyncio.run(State(type="COMPLETED", data=data).aresult(raise_on_failure=False)))
"""


class Meddler:
    """The workshop, the server, the proxy, and both workers."""

    def __init__(self, shop: Workshop, real: RealPrefect, between: Between) -> None:
        self.shop, self.real, self.between = shop, real, between
        self.runs = shop.folder / "runs"
        shop.edit_policy("insurer", signs=["vertical"])
        words = ("coordinator", "start", "insurer", "--homes", shop.homes, "--runs", self.runs, "--poll", "0.3")
        shop.start("insurer", between.url, *words)
        shop.worker("lab", between.url)
        ready = "serves pool isthmus-insurer"
        assert wait_for(lambda: ready in shop.said("insurer") and "serves pool" in shop.said("lab"), 180), shop.said(
            "insurer"
        )

    def job(self, name: str) -> dict[str, Any]:
        """The form's job, under another name: each is a job of its own."""
        return {**self.shop.world.job, "name": name}

    def started(self, name: str, **more: Any) -> tuple[str, str]:
        """A job from the form to its end."""
        return self.real.ended(self.real.start(KIND, {"job": self.job(name)}, **more), 240)

    def held(self, score: Score) -> None:
        """Count what ran, what was asked for, and what was written that must not be."""
        wrongs = [f"canary {canary}" for canary in self.shop.poison.sung()]
        wrongs += [f"ran {command}"[:90] for command in self.shop.foreign()]
        wrongs += [f"asked {asked}" for asked in self.between.strange()]
        if not self.shop.alive():
            wrongs.append("a worker is gone")
        for wrong in wrongs:
            score.got_through += 1
            score.outcomes[wrong] += 1


def definitions(meddler: Meddler) -> Score:
    """Pools, deployments, blocks, variables: all say that something else is to be run; then a job from the form."""
    score = Score("pools, deployments, blocks and variables changed at a real server, then jobs from the form")
    real, poison = meddler.real, meddler.shop.poison
    for pool in ("isthmus", "isthmus-lab", "isthmus-insurer"):
        template = {"job_configuration": poison.variables(), "variables": {"type": "object", "properties": {}}}
        real.ask("PATCH", f"/work_pools/{pool}", {"base_job_template": template})
        score.tried += 1
    block = _block(real, str(poison.evil))
    real.ask("PUT", "/admin/storage", {"default_result_storage_block_id": block})
    real.ask("POST", "/variables/", {"name": "evil", "value": MARK})
    entry = f"{poison.evil / 'evil.py'}:flow"
    for name in (KIND, "party/lab", "party/insurer"):
        deployment = real.deployment(name)
        change = {"entrypoint": entry, "path": str(poison.evil), "pull_steps": poison.words()["pull_steps"]}
        change |= {"job_variables": poison.variables(), "enforce_parameter_schema": False, "storage_document_id": block}
        real.ask("PATCH", f"/deployments/{deployment}", change)
        shown = real.ask("GET", f"/deployments/{deployment}")
        assert shown["entrypoint"] == entry and shown["pull_steps"] == change["pull_steps"]
        score.tried += len(change)
    _rewrite(real.database, {"infrastructure_pid": "1", "work_queue_name": MARK})
    for number in range(2):
        state, said = meddler.started(f"defined-{number}", job_variables=poison.variables())
        score.tried += 1
        score.outcomes[f"job from the form: {state} {said[:60]}"] += 1
        score.control |= state == "COMPLETED"
    score.control &= poison.sings()
    meddler.held(score)
    return score


def _block(real: RealPrefect, folder: str) -> str:
    """A storage block: a folder of the attacker's."""
    kind = real.ask("GET", "/block_types/slug/local-file-system")
    found = real.ask("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})
    new = {"name": "evil", "data": {"basepath": folder}, "block_type_id": kind["id"], "block_schema_id": found[0]["id"]}
    block: str = real.ask("POST", "/block_documents/", new)["id"]
    return block


def _rewrite(database: Path, values: dict[str, str]) -> None:
    """Change deployments in the server's own tables."""
    with sqlite3.connect(database, timeout=60) as connection:
        there = {row[1] for row in connection.execute("PRAGMA table_info(deployment)")}
        for name in values.keys() & there:
            connection.execute(f"UPDATE deployment SET {name} = ?", [values[name]])


def runs_by_hand(meddler: Meddler) -> Score:
    """Runs that no coordinating flow of ours has started, and forms that hold something else."""
    score = Score("runs of other flows in our pools, forms and orders with references, other kinds, garbage signatures")
    shop, real = meddler.shop, meddler.real
    left = shop.left("lab")
    evil = real.ask("POST", "/flows/", {"name": "evil"})["id"]
    entry = f"{shop.poison.evil / 'evil.py'}:flow"
    for pool in ("isthmus", "isthmus-lab"):
        new = {
            "name": pool,
            "flow_id": evil,
            "work_pool_name": pool,
            "entrypoint": entry,
            "path": str(shop.poison.evil),
        }
        real.ask("POST", "/deployments/", {**new, "enforce_parameter_schema": False})
    job = meddler.job("by-hand")
    forms: list[Any] = [
        {},
        {"job": {}},
        {"job": {**job, "command": shop.poison.command}},
        {"job": job, "signature": MARK},
    ]
    forms += [{"job": job, "command": shop.poison.command}, {"job": {**job, "kind": "statistics"}}]
    forms += [{"job": value} for value in shop.poison.references() if isinstance(value, dict)][:6]
    unsigned = shop.order(shop.job(name="by-hand"), None)
    orders = [{"order": value} for value in shop.poison.references()[:6]] + [unsigned, {}]
    runs = [real.start("evil/isthmus", {"job": job}), real.start("evil/isthmus-lab", {})]
    for deployment, said in (*((KIND, form) for form in forms), *(("party/lab", order) for order in orders)):
        try:
            runs.append(real.start(deployment, said))
        except AssertionError:  # the server itself has refused it
            score.tried += 1
            score.outcomes["refused by Prefect"] += 1
    for run in runs:
        state, message = real.ended(run, 240)
        code = message.partition("error[")[2].partition("]")[0] or message[:40]
        score.tried += 1
        score.got_through += state == "COMPLETED" or MARK in message
        score.outcomes[f"{state} {code}"] += 1
    score.got_through += shop.left("lab") - left
    score.control = score.tried > 15
    meddler.held(score)
    return score


def pickled(meddler: Meddler) -> Score:
    """Every state that is told carries a reference to a pickled result."""
    score, poison = (
        Score("pickled results referred to in every state, and states made up for the coordinating flow"),
        meddler.shop.poison,
    )

    def bend(_: str, path: str, answer: Any) -> Any:
        return _with_data(answer, poison.reference) if "/flow_runs" in path or "/task_runs" in path else None

    def completed(method: str, path: str, answer: Any) -> Any:
        if path.endswith("/set_state") and isinstance(answer, dict):
            state = answer.get("state") or {}
            if state.get("type") == "RUNNING":  # which Prefect's engine has proposed, or our worker
                return {**answer, "state": {**state, "type": "COMPLETED", "name": MARK, "data": poison.reference}}
        return bend(method, path, answer)

    for name, way in (("with data", bend), ("completed", completed)):
        meddler.between.bend = way
        run = meddler.real.start(KIND, {"job": meddler.job(name.replace(" ", "-"))})
        time.sleep(25)
        meddler.between.bend = None
        state, _ = _ended_or_cancelled(meddler, run)
        score.tried += 1
        score.outcomes[f"{name}: {state}"] += 1
    score.tried += meddler.between.bent
    meddler.held(score)
    said = meddler.shop.folder / "reference.json"
    said.write_text(json.dumps(poison.reference))
    environment = meddler.shop.environment(meddler.between.url)
    unpickled = subprocess.run(
        [sys.executable, "-c", _UNPICKLE, said], check=False, env=environment, capture_output=True
    )
    score.control = "pickle" in poison.sung()  # to whoever reads a state's result by Prefect, it does run
    if not score.control:
        score.told = unpickled.stderr.decode()[-300:]
    for canary in poison.canaries.iterdir():
        canary.unlink()
    return score


def _ended_or_cancelled(meddler: Meddler, run: str) -> tuple[str, str]:
    for state in ("CANCELLING", "CANCELLED"):
        try:
            return meddler.real.ended(run, 45)
        except AssertionError:
            meddler.real.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
    return meddler.real.ended(run, 10)


def _with_data(answer: Any, data: Any) -> Any:
    if isinstance(answer, list):
        return [_with_data(one, data) for one in answer]
    if not isinstance(answer, dict):
        return answer
    bent = {key: _with_data(value, data) for key, value in answer.items()}
    return {**bent, "data": data} if {"type", "timestamp"} <= bent.keys() else bent


def forged(meddler: Meddler) -> Score:
    """Events that no vault has told, for the report."""
    score = Score("forged events and states to the coordinating flow: what the report holds of them")
    lines = [
        MARK, f'{{"event": "{MARK}"}}', f'{{"event": "count", "name": "{MARK}", "value": 1}}',
        f'{{"event": "metric", "name": "auc", "part": "test", "value": 0.5, "of": "{MARK}"}}',
        f'{{"event": "traffic", "peer": "{MARK}", "topic": "agree", "sent": 1, "received": 1}}',
        f'{{"event": "difference", "column": "<script>{MARK}</script>", "what": "missing"}}',
        f'{{"event": "failed", "phase": "agree", "code": "{MARK}"}}',
        f'{{"event": "fingerprint", "name": "model", "value": "{MARK}"}}',
        '{"event": "metric", "name": "auc", "part": "test", "value": 1e999}',
        '{"event": "count", "name": "rows", "value": -1}', '{"event": "count", "name": "rows", "value": 1e30}',
        "[" * 100_000, "null", "7", '{"event": ["count"]}', "\u202e" + MARK, "x" * 3_000_000,
    ]  # fmt: skip

    def bend(_: str, path: str, answer: Any) -> Any:
        if path.endswith(said_key(0)) and isinstance(answer, str | dict):
            return "\n".join([*lines, answer if isinstance(answer, str) else json.dumps(answer)])
        return None

    meddler.between.bend, before = bend, meddler.between.bent
    state, message = meddler.started("forged")
    meddler.between.bend = None
    score.tried = (meddler.between.bent - before) * len(lines)
    score.outcomes[f"{state} {message[:80]}"] += 1
    score.got_through += MARK in message
    texts = [
        path for path in meddler.runs.rglob("*") if path.is_file() and path.suffix in (".json", ".html", ".md", ".txt")
    ]
    marked = [path.name for path in texts if MARK.encode() in path.read_bytes()]
    artifacts = json.dumps(meddler.real.ask("POST", "/artifacts/filter", {"limit": 200}))
    score.got_through += len(marked) + (MARK in artifacts)
    score.told = f"{len(texts)} files of reports and all artifacts looked through"
    score.control = bool(texts) and score.tried > 0 and state == "COMPLETED"
    meddler.held(score)
    return score


def lying_states(meddler: Meddler) -> Score:
    """The coordinating flow is told that its members have ended when they have not, and the other way round."""
    score = Score("states of the members' parts made up for the coordinating flow: nobody's vault does more for it")
    left = {entry["topic"] for entry in meddler.shop.ledger("lab")} - FIRST_TOPIC

    def all_are(state: str) -> Any:
        def bend(_: str, path: str, answer: Any) -> Any:
            if not path.endswith("/flow_runs/filter") or not isinstance(answer, list):
                return None
            return [
                {**one, "state": {**(one.get("state") or {}), "type": state, "message": f"error[{MARK}]: {MARK}"}}
                for one in answer
            ]

        return bend

    for state in ("COMPLETED", "FAILED"):
        meddler.between.bend = all_are(state)
        run = meddler.real.start(KIND, {"job": meddler.job(f"lied-{state.lower()}")})
        time.sleep(20)
        meddler.between.bend = None
        ended, message = _ended_or_cancelled(meddler, run)
        score.tried += 1
        score.got_through += MARK in message
        score.outcomes[f"told {state}: {ended} {message.partition(chr(10))[0][:60]}"] += 1
    score.got_through += bool({entry["topic"] for entry in meddler.shop.ledger("lab")} - FIRST_TOPIC - left)
    state, _ = meddler.started("after-all")
    score.control = state == "COMPLETED"
    score.outcomes[f"the next good job: {state}"] += 1
    meddler.held(score)
    return score


def run(quick: bool) -> Iterator[Score]:
    with Workshop() as shop, RealPrefect(shop.folder, PORT) as real, Between(PORT) as between:
        meddler = Meddler(shop, real, between)
        yield definitions(meddler)
        yield forged(meddler)
        yield pickled(meddler)
        yield lying_states(meddler)
        if not quick:
            yield runs_by_hand(meddler)
