"""Simulations only: what each party could do alone, and what one who held all rows could do.

A process of its own (`python -m isthmus.flows.kinds.vertical.baselines`) reads the rows of **all** parties. No party of
the real world lets it: it runs only where every party's policy says `pooled_baselines: allow`, which is judged before
any row is read. It knows no Prefect and hands back a `Baselines`: numbers about models, no row and no identifier. What
a policy does not publish is left out of it here too.

Every model sees the same patients, split the same way, and is judged on the same held-out ones. What is chosen (when to
stop, how strong a penalty) is chosen on the validation patients, for each model from equally many candidates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ....parties.errors import InternalError, IsthmusError, PolicyRefusal
from ....parties.events import Finished, Phase, Progress, parse, public_failure
from ....parties.home import PartyHome, find_home
from ...journal import Journal
from ...vault_handle import environment
from .job import VerticalJob

SIMULATION = "simulation"  # stands in the journal where a party would
OUT_FILE, LOG_FILE, JOB_FILE = "baselines.json", "baselines.log", "job.json"
Told = Callable[[int, int, str], None]  # models done, models in all, the next one's name
_log = logging.getLogger("isthmus.baselines")


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Result):
    """Test AUC with its 95 % bootstrap interval."""

    auc: float
    low: float | None = None
    high: float | None = None


class Line(_Result):
    """A curve on a fixed grid."""

    x: tuple[float, ...] = Field(max_length=101)
    y: tuple[float, ...] = Field(max_length=101)


class Row(_Result):
    """One way to learn without the engine: who, on what, and how well three kinds of model do."""

    kind: Literal["alone", "all_rows", "pooled"]
    party: str | None = None
    train_rows: int | None  # None where a party's policy publishes no counts; `columns` as well
    columns: int | None
    network: Score  # the job's own model, whatever its kind
    logistic: Score
    boosting: Score
    roc: Line | None = None


class Gain(_Result):
    """Test AUC of the joint model minus that of the better party alone, paired by patient."""

    over: str
    value: float
    low: float
    high: float


class Linkage(_Result):
    """The alignment against the truth, where there is one (the demo's homes)."""

    precision: float
    recall: float
    shared: int  # in truth
    found: int


class Baselines(_Result):
    """What a simulation knows beside the run itself."""

    schema_version: Literal[1] = 1
    test_rows: int | None = None
    rows: tuple[Row, ...] = ()
    gain: Gain | None = None
    linkage: Linkage | None = None
    withheld_by: tuple[str, ...] = ()  # parties whose policies do not publish metrics
    seconds: float

    @classmethod
    def from_json(cls, text: str | bytes) -> Baselines:
        """Read what `model_dump_json` wrote; raises `pydantic.ValidationError`."""
        return cls.model_validate_json(text)


def may_pool(homes: Path, job: VerticalJob) -> list[PartyHome]:
    """The homes of all parties, if every policy allows that one process reads them; else raises `PolicyRefusal`.

    This also runs in the coordinating flow, whose errors Prefect keeps. So of an error in a party.yaml, which names
    datasets and columns, only what a vault may tell is raised.
    """
    found: list[PartyHome] = []
    public: IsthmusError | None = None
    try:
        found = [PartyHome(find_home(homes, party.name)) for party in job.parties]
    except IsthmusError as error:
        public = public_failure(Phase.COMPARE, error, job.aliases()).error()
    if public is not None:
        raise public  # afresh: no cause and no context travels with it
    for home in found:
        if home.config.policy.pooled_baselines != "allow":
            raise PolicyRefusal("policy.baselines", party=home.name)
    return found


async def run_baselines(
    homes: Path,
    folder: Path,
    run: str,
    job: VerticalJob | Mapping[str, Any],
    journal: Journal,
) -> Baselines:
    """Start the process, follow it in the journal, read its result; `folder` is the run's, where its files go.

    Raises what the process raised, such as `PolicyRefusal` ``policy.baselines``.
    """
    asked = job if isinstance(job, VerticalJob) else VerticalJob.model_validate(job)
    out, job_file = folder / OUT_FILE, folder / JOB_FILE
    job_file.write_text(json.dumps(asked.canonical(), indent=2), encoding="utf-8")
    with (folder / LOG_FILE).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "isthmus.flows.kinds.vertical.baselines"),
            *("--homes", str(homes), "--run", run, "--job", str(job_file), "--out", str(out)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            if b'"event"' in line:
                event = parse(line, asked.aliases())
                if event.event == "failed":
                    raise event.error()
            else:
                said = json.loads(line)
                step = Progress(phase=Phase.COMPARE, index=1, units=1, done=said["done"], total=said["total"])
                journal.note(SIMULATION, step)
        if await process.wait() != 0:
            raise InternalError("internal", party="baselines")
        found = Baselines.from_json(out.read_bytes())
        journal.note(SIMULATION, Finished(phase=Phase.COMPARE, seconds=found.seconds))
        return found
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the baselines of one finished run; returns the process's exit code."""
    parser = argparse.ArgumentParser(description="Simulations only: models that one process trains on all rows.")
    parser.add_argument("--homes", type=Path, required=True, help="folder with the homes of all parties")
    parser.add_argument("--run", required=True, help="the finished run")
    parser.add_argument("--job", type=Path, required=True, help="the job's file")
    parser.add_argument("--out", type=Path, required=True, help="where the result is written, as JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    aliases: frozenset[str] = frozenset()
    try:
        job = VerticalJob.from_file(options.job)
        aliases = job.aliases()
        homes = may_pool(options.homes, job)
        from .contenders import compare  # with torch and scikit-learn: a refusal need not wait for them

        baselines = compare(job, homes, options.run, _say)
        temporary = options.out.with_suffix(".partial")
        temporary.write_text(baselines.model_dump_json(indent=2), encoding="utf-8")
        temporary.replace(options.out)
        return 0
    except IsthmusError as error:
        public = public_failure(Phase.COMPARE, error, aliases)
        _log.error("%s", public.error())  # this log is the coordinator's
        sys.stdout.write(public.model_dump_json() + "\n")
        return error.exit_code
    except Exception as failure:  # its text may hold what it read: of such a fault only the place is written down
        place = "".join(traceback.format_tb(failure.__traceback__))
        _log.error("a fault of ours: %s\n%s", type(failure).__name__, place)
        sys.stdout.write(public_failure(Phase.COMPARE, InternalError("internal"), aliases).model_dump_json() + "\n")
        return InternalError.exit_code


def _say(done: int, total: int, name: str) -> None:
    sys.stdout.write(json.dumps({"done": done, "total": total, "name": name}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
