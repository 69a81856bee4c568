"""`isthmus party|coordinator|vault start`, `up`, `submit` and `status`: a consortium in operation."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from ..parties.errors import InputError
from .journal import log_to_stderr
from .options import Flag, Homes, Json, Runs
from .terminal import console, named_home

Poll = Annotated[
    float, Parameter(validator=Number(gte=0.1, lte=60), help="Seconds between two looks at the Prefect server.")
]
Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=100), help="Jobs at a time.")]
Socket = Annotated[
    Path | None,
    Parameter(help="Where this member's vault listens, if another user keeps it: `isthmus vault start`."),
]

party = App(name="party", help="A party in operation: its own Prefect worker.")
coordinator = App(name="coordinator", help="The coordinator in operation: deployments, and the worker that runs them.")
vault = App(name="vault", help="A party's vault, as another operating-system user than its worker.")


@party.command(name="start")
def start_party(
    name: str, *, homes: Homes = Path("homes"), socket: Socket = None, poll: Poll = 1.0, limit: Limit = 8
) -> None:
    """Serve as a party's worker, until SIGTERM or Ctrl-C: do its part of jobs that the Prefect server brings.

    The server is that of PREFECT_API_URL (and PREFECT_API_AUTH_STRING). It says which job is due and nothing else:
    signature, policy and roster are judged by the party's vault.

    Example: isthmus party start lab --homes homes

    Parameters
    ----------
    name
        The party.
    """
    from .operating import require_consortium, serve_party
    from .workers.seat import Seat

    log_to_stderr()
    if socket is not None:
        seat, roster = Seat(name, socket=socket), None
    else:
        from ..parties.home import PartyHome

        home = named_home(homes, name)
        seat, roster = Seat(name, home=home), require_consortium(PartyHome(home)).roster.version
    _prepare()
    asyncio.run(serve_party(seat, poll_s=poll, limit=limit, roster=roster))


@coordinator.command(name="start")
def start_coordinator(
    name: str,
    *,
    homes: Homes = Path("homes"),
    runs: Runs = Path("runs"),
    socket: Socket = None,
    jobs: Annotated[tuple[Path, ...], Parameter(name="--job", negative="")] = (),
    poll: Poll = 1.0,
    limit: Limit = 8,
) -> None:
    """Register the consortium's pools and deployments, and run jobs, until SIGTERM or Ctrl-C.

    Example: isthmus coordinator start hub --homes homes

    Parameters
    ----------
    name
        The coordinator; any member of the roster may be it.
    jobs
        A job file that fills in the form of its kind; may be given for several kinds.
    """
    from ..parties.home import PartyHome
    from .jobs import load_job
    from .operating import require_consortium, serve_coordinator
    from .workers.seat import Seat

    log_to_stderr()
    home = named_home(homes, name)
    consortium = require_consortium(PartyHome(home))
    loaded = [load_job(path) for path in jobs]
    seat = Seat(name, consortium.name, None if socket else home.resolve(), socket)
    _prepare()
    asyncio.run(
        serve_coordinator(seat, consortium, runs=runs, jobs={job.kind: job for job in loaded}, poll_s=poll, limit=limit)
    )


@vault.command(name="start")
def start_vault(
    name: str,
    *,
    homes: Homes = Path("homes"),
    socket: Path,
    user: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    group: str | None = None,
    limit: Limit = 8,
) -> None:
    """Keep a party's vaults behind a Unix socket, until SIGTERM or Ctrl-C: run it as the user that owns the home.

    Its worker runs as another user, and cannot read what is in the home: this refuses to start where that user could.

    Example: isthmus vault start lab --socket /run/isthmus/lab.sock --user isthmus-worker --group isthmus-worker

    Parameters
    ----------
    name
        The party.
    socket
        Where to listen.
    user
        Who may connect, by name or number; without any, the user that this runs as.
    group
        The group that may open the socket.
    """
    from .closed_home import require_closed
    from .vault_service import VaultService, group_id, serve_vaults, user_id

    log_to_stderr()
    users = frozenset(user_id(one) for one in user) or frozenset({os.getuid()})
    require_closed(named_home(homes, name), users)
    service = VaultService(named_home(homes, name), socket, users, group_id(group) if group else None, limit)
    asyncio.run(serve_vaults(service))


def up(
    which: Literal["vertical", "hospitals"] = "vertical",
    *,
    folder: Path = Path("up"),
    port: Annotated[int, Parameter(validator=Number(gte=1, lte=65535))] = 4200,
    patients: int | None = None,
) -> None:
    """Run a whole consortium on this machine: Prefect with its UI, an exchange, a coordinator, a worker a party.

    The demo's jobs are in the UI, to be started, scheduled and watched. Ctrl-C ends all of it; what was made stays in
    the folder, and goes on from there the next time.

    Example: isthmus up

    Parameters
    ----------
    which
        A lab, an insurer and a clinic with shared patients; or five hospitals.
    folder
        Where homes, runs, logs and the server's database are.
    port
        Of the Prefect server and its UI, on this machine only; the next one that is free is taken.
    patients
        Take so many persons instead of all 5,000.
    """
    from .running import set_prefect_defaults
    from .sandbox import found_sandbox, free_port

    set_prefect_defaults()
    with console.status("making homes, keys and the roster"):
        sandbox = found_sandbox(folder, which, patients=patients)
    from .up import Up

    whole = Up(sandbox, free_port(port), console)
    members = ", ".join(sandbox.parties)
    console.print(f"[bold]isthmus up[/]    {members} and a coordinator, each a process of its own; starting …")

    def ready() -> None:
        console.print(
            f"  UI        {whole.ui}/deployments    pick a kind, Run, Custom run",
            f"  or        PREFECT_API_URL={whole.url} isthmus submit {sandbox.jobs[0]}",
            f"  exchange  {sandbox.exchange}   roster {sandbox.roster.version}, signed by all",
            f"  homes     {sandbox.homes}   logs {folder / 'logs'}   reports {folder / 'runs'}",
            "  Ctrl-C ends all of it",
            sep="\n",
            soft_wrap=True,
            highlight=False,
        )

    asyncio.run(whole.run(ready))


def submit(
    job: Path,
    *,
    cron: str | None = None,
    fresh: Flag = False,
    wait: Annotated[bool, Parameter(negative="--no-wait")] = True,
    json: Json = False,
) -> None:
    """Start a job file at the Prefect server, or schedule it there, as its form in the UI does.

    Example: isthmus submit job.signed.yaml --cron "0 3 1 * *"

    Parameters
    ----------
    job
        The job file: signed (`isthmus sign`), unless the coordinator signs jobs of its kind.
    cron
        Start it by itself at these times (UTC) from now on, instead of now. A signature has to last, and to be good for
        so many runs.
    fresh
        Start over, even if an earlier attempt can be resumed.
    wait
        See it end, and end with its error.
    """
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    _prepare()
    from .submitting import submit_and_show

    submit_and_show(loaded, start, cron=cron, fresh=fresh, wait=wait, json=json)


def status(*, json: Json = False) -> None:
    """Show who is online, with which version and roster, and how the last jobs went.

    Example: isthmus status

    The Prefect server is that of PREFECT_API_URL.
    """
    _prepare()
    from .status import show_status

    show_status(json=json)


def _prepare() -> None:
    """What Prefect reads from the environment, before it is imported. Raises `InputError` ``prefect.unreachable``."""
    if not os.environ.get("PREFECT_API_URL"):
        raise InputError("prefect.unreachable")
    from .running import set_prefect_defaults

    set_prefect_defaults()
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "0")  # we wait for the server ourselves, and say so
