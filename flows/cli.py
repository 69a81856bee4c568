"""`isthmus …`: the terminal. Heavy imports (torch, prefect) wait until a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from ..parties.errors import InputError, InternalError, IsthmusError
from . import cli_consortium, cli_explain, cli_look, cli_operate, cli_starts, running, terminal
from .cli_exchange import exchange
from .options import Flag, Homes, Json, Runs

if TYPE_CHECKING:
    from .jobs import Job

app = App(
    name="isthmus",
    help="Federated learning between organisations that may not show each other their rows.",
    help_epilogue="Start with `isthmus demo`. Every command has an example: `isthmus run --help`.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `main` says what to do next
)
for group in (
    *(cli_look.audit, cli_consortium.init, cli_consortium.consortium, exchange),
    *(cli_operate.party, cli_operate.coordinator, cli_operate.vault),
):
    app.command(group)
_COMMANDS: tuple[Callable[..., None], ...] = (
    *(cli_look.runs, cli_look.keys, cli_look.schema, cli_starts.sign, cli_starts.approve, cli_starts.pause),
    *(cli_explain.explain, cli_explain.describe, cli_explain.rehearse),
    *(cli_operate.up, cli_operate.submit, cli_operate.status),
)
for command in _COMMANDS:
    app.command(command)


@app.command
def demo(
    which: Literal["vertical", "hospitals", "transfer"] = "vertical",
    *,
    homes: Homes = Path("demo"),
    runs: Runs = Path("runs"),
    patients: int | None = None,
    epochs: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    baselines: bool = True,
    json: Json = False,
) -> None:
    """Real patients, two minutes: a lab and an insurer train one model on those they share.

    Or five hospitals on all of theirs; or a small clinic learns from the insurer.

    Example: isthmus demo

    Parameters
    ----------
    which
        The vertical job of a lab and an insurer, the horizontal one of five hospitals, or the transfer job of a clinic.
    patients
        Take so many persons instead of all 5,000.
    epochs
        Train at most so many epochs (of the hospitals: rounds; of a transfer: the source's) instead of the job's.
    baselines
        Also train what each could do alone, and pooled; the other two jobs say by themselves what each can do alone.
    """
    if which == "hospitals":
        running.show_hospitals(homes=homes, runs=runs, patients=patients, rounds=epochs, json=json)
        return
    from .demo import demo_job, make_homes, transfer_job

    make_homes(homes, patients=patients)
    job: Job = (transfer_job if which == "transfer" else demo_job)(patients=patients, epochs=epochs)
    if not json:
        terminal.console.print(
            f"[bold]isthmus demo[/]    a {job.members[-1]} and an insurer; real patients (SUPPORT2), mistyped\n"
            "                identities (FEBRL4); which columns sit where, and who has\n"
            "                which identity, is our arrangement\n"
        )
    compared = baselines and which == "vertical"
    running.run_and_show(job, homes=homes, runs=runs, baselines=compared, json=json, demo=True)


@app.command
def run(
    job: Path,
    *,
    homes: Homes = Path("homes"),
    runs: Runs = Path("runs"),
    fresh: Flag = False,
    baselines: Flag = False,
    json: Json = False,
) -> None:
    """Run a job: every party a process of its own on this machine.

    Example: isthmus run examples/vertical.yaml --homes demo

    Parameters
    ----------
    job
        The job file.
    fresh
        Start over, even if an earlier attempt can be resumed.
    baselines
        Simulations only, vertical jobs: also train what each party could do alone, and pooled. Every policy must
        allow it.
    """
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    if baselines and loaded.kind != "vertical":
        raise InputError("job.invalid", problem="only a vertical job has baselines", where="--baselines")
    running.run_and_show(loaded, homes=homes, runs=runs, fresh=fresh, baselines=baselines, json=json, start=start)


@app.command
def check(job: Path, *, homes: Homes = Path("homes"), runs: Runs = Path("runs"), json: Json = False) -> None:
    """Say what a job would do: what would leave, who would learn what. Nothing leaves.

    Example: isthmus check examples/vertical.yaml --homes demo

    Parameters
    ----------
    job
        The job file.
    """
    from .check import check_job
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    terminal.show_check(check_job(loaded.completed(runs), homes, start), homes, json=json)


@app.command
def join(
    job: Path,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    homes: Homes = Path("homes"),
    run: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    fresh: Flag = False,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    json: Json = False,
) -> None:
    """Take part in a job as one member, on this machine; the others do so on theirs. They meet at the exchange.

    The home belongs to a consortium (`isthmus consortium accept`), the job is signed (`isthmus sign`), and every member
    is given the same signed file.

    Example: isthmus join job.signed.yaml --as lab

    Parameters
    ----------
    job
        The signed job file.
    as_
        The member whose home is here.
    run
        Which run of this job it is: the same number at every member. A run that was stopped goes on.
    fresh
        Start over, even if an earlier attempt can be resumed.
    timeout
        Seconds to wait for a peer, or for the exchange, before giving up.
    """
    from .joining import join_and_show
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    join_and_show(loaded, start, as_, homes=homes, number=run, fresh=fresh, timeout_s=timeout, json=json)


@app.command
def serve(
    job: Path | None = None,
    *,
    homes: Homes = Path("homes"),
    runs: Runs = Path("runs"),
    name: str = "isthmus",
    cron: str | None = None,
) -> None:
    """Offer jobs in the Prefect UI: a deployment with its form for each kind, served on this machine.

    Example: isthmus serve examples/vertical.yaml --homes demo --cron "0 3 1 * *"

    Parameters
    ----------
    job
        A job file that fills the form in: then its kind alone is served. A schedule needs one.
    name
        The deployment's name.
    cron
        Start the job by itself at these times.
    """
    from .jobs import load_job

    loaded = load_job(job) if job else None
    if cron and loaded is None:
        raise InputError("job.invalid", problem="a schedule needs a job file", where="--cron")
    if loaded is not None:
        running.find_homes(loaded, homes)
    running.prepare_prefect(homes, runs)
    running.require_server()
    from .deploy import serve_jobs

    serve_jobs(name, loaded, cron)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with the codes of DESIGN section 11."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except IsthmusError as error:
        terminal.say(error, words)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        terminal.say(InputError("run.interrupted"), words)
        sys.exit(130)
    except BrokenPipeError:  # `isthmus runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as failure:
        if os.environ.get("ISTHMUS_DEBUG"):
            raise
        ours = InternalError("internal", party="isthmus", detail=repr(failure))
        ours.next = "run it again with ISTHMUS_DEBUG=1 to see the trace"
        terminal.say(ours, words)
        sys.exit(1)


if __name__ == "__main__":
    main()
