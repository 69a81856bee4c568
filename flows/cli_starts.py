"""`isthmus sign`, `isthmus approve` and `isthmus pause`: who may start jobs, seen from both sides."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number, mutually_exclusive

from ..parties.errors import InputError
from .options import Flag, Homes, Json
from .terminal import console, named_home

if TYPE_CHECKING:
    from ..parties.approvals import Request
    from ..parties.policy import Rate
    from ..parties.state import State

_PANEL = "Parameters"  # where the help shows them
# What cannot be said together with --reset-clock.
_RESET_OR_DIGEST = Group("reset or digest", show=False, validator=mutually_exclusive)
_RESET_OR_WITHDRAW = Group("reset or withdraw", show=False, validator=mutually_exclusive)

RunsFolder = Annotated[
    Path, Parameter(name="--runs-folder", env_var="ISTHMUS_RUNS", help="Folder with the finished runs.")
]


def sign(
    job: Path,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    homes: Homes = Path("homes"),
    days: Annotated[int, Parameter(validator=Number(gte=1, lte=3660))] = 7,
    runs: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 1,
    out: Path | None = None,
    runs_folder: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Sign a job as a member of the consortium, so that the other members start it.

    Example: isthmus sign job.yaml --as insurer --days 7

    Parameters
    ----------
    job
        The job file; one that is signed already is signed anew.
    as_
        The member whose identity signs: its home has to be here.
    days
        How long the signature lasts.
    runs
        How many runs it is good for, at each party.
    out
        Where the signed job is written; beside the job file, as NAME.signed.yaml, if not named.
    """
    from ..parties.home import PartyHome
    from .signed import parse_job_file, sign_job, write_signed

    plain, _ = parse_job_file(job)
    complete, start = sign_job(plain, PartyHome(named_home(homes, as_)), folder=runs_folder, days=days, runs=runs)
    target = out or job.with_name(f"{job.name.removesuffix(job.suffix).removesuffix('.signed')}.signed.yaml")
    write_signed(target, complete, start)
    if json:
        facts = {
            "file": str(target),
            "signature": start.model_dump_json(),
            "job": start.job,
            "start": start.digest(),
            **start.model_dump(mode="json", include={"by", "until", "runs"}),
        }
        sys.stdout.write(json_module.dumps(facts) + "\n")
        return
    lines = [
        f"job    {complete.name} ({complete.kind})",
        f"digest {start.job}",
        f"start  {start.digest()}",
        f"by     {start.by} of {start.consortium}",
        f"until  {_time(start.until)}",
        f"runs   {start.runs}",
        f"file   {target}",
        "",
        "for the field `signature` of a form in the Prefect UI:",
        start.model_dump_json(),
    ]
    console.print(*lines, sep="\n", soft_wrap=True, markup=False)


def approve(
    party: str,
    digest: Annotated[str | None, Parameter(group=(_PANEL, _RESET_OR_DIGEST))] = None,
    *,
    homes: Homes = Path("homes"),
    days: Annotated[int, Parameter(validator=Number(gte=1, lte=3660))] = 30,
    yes: Flag = False,
    withdraw: Annotated[bool, Parameter(negative="", group=(_PANEL, _RESET_OR_WITHDRAW))] = False,
    reset_clock: Annotated[bool, Parameter(negative="", group=(_PANEL, _RESET_OR_DIGEST, _RESET_OR_WITHDRAW))] = False,
    json: Json = False,
) -> None:
    """List the signed jobs that wait for a person at a party; or show one in full and approve it.

    An approval is for one signature: the same job signed again waits again.

    Example: isthmus approve lab 3f2a9c41

    Parameters
    ----------
    party
        The party whose approval it is.
    digest
        The start's digest, or its first eight digits and more. Without it, list.
    days
        How long the approval lasts.
    yes
        Agree without being asked.
    withdraw
        Take the approval back, or drop what waits: the next attempt asks anew.
    reset_clock
        Take the time of now for the latest that was seen, after a clock that was far ahead (`policy.clock`).
    """
    from ..parties.approvals import approve_request, find_request, requests, withdraw_approval
    from ..parties.home import PartyHome
    from ..parties.state import State

    home = PartyHome(named_home(homes, party))
    state = State(home)
    if reset_clock:
        _reset_clock(party, state, yes=yes, json=json)
        return
    if digest is None and not (yes or withdraw):
        _show_requests(party, requests(state), json=json)
        return
    request = find_request(state, digest or "", party=party)
    if not json:
        _show_request(request, home.config.policy.rate(request.start.by, request.start.kind))
    if withdraw:
        withdraw_approval(state, request.digest)
        said = f"{party} has forgotten it"
    elif yes or (not json and _asked(f"does {party} approve it for {days} days? [y/n] ")):
        until = approve_request(state, request.digest, days, party=party)
        request = replace(request, until=until)
        said = f"{party} approves it until {_time(until)}: start the job again"
    else:
        said = "not approved"
    if json:
        sys.stdout.write(json_module.dumps(_facts(request)) + "\n")
    else:
        console.print(said, soft_wrap=True, markup=False)


def pause(party: str, *parties: str, homes: Homes = Path("homes"), off: Flag = False) -> None:
    """Stop all jobs of a party at once, and let none begin; it needs no server and no network.

    Example: isthmus pause lab

    Parameters
    ----------
    party
        Who is stopped.
    parties
        Further ones.
    off
        Let jobs begin again; what was stopped is started anew and resumes.
    """
    from ..parties.pause import pause as stop
    from ..parties.pause import pause_note, unpause

    unknown: list[InputError] = []
    for name in (party, *parties):
        try:
            home = named_home(homes, name)
        except InputError as error:  # the others are stopped all the same
            unknown.append(error)
            continue
        if off:
            text = "goes on" if unpause(home, party=name) else "was not paused"
        else:
            text = "is paused" if stop(home, party=name) else f"was paused already: {pause_note(home)}"
        console.print(f"{name} {text}", soft_wrap=True, markup=False)
    if unknown:
        raise unknown[0]


# --- below: what they print ------------------------------------------------------------------------------------------


def _show_requests(party: str, found: list[Request], *, json: bool) -> None:
    if json:
        sys.stdout.write(json_module.dumps([_facts(request) for request in found]) + "\n")
        return
    if not found:
        console.print(f"no job waits at {party}", markup=False)
        return
    rows = [("digest", "kind", "started by", "signed until", "asked", "approved until")]
    for request in found:
        until = _time(request.until) if request.until and request.holds(datetime.now(UTC)) else "waits"
        start = request.start
        rows.append((request.digest[:16], start.kind, start.by, _time(start.until), _time(request.asked), until))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # whole, however narrow the terminal: a digest is there to be copied
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(line.rstrip(), soft_wrap=True, markup=False)
    console.print(f"one in full, to approve it:  isthmus approve {party} DIGEST", soft_wrap=True, markup=False)


def _facts(request: Request) -> dict[str, Any]:
    start = request.start
    return {
        "digest": request.digest,
        "kind": start.kind,
        "starter": start.by,
        "runs": start.runs,
        "signed_until": start.until.isoformat(),
        "asked": request.asked.isoformat(),
        "approved_until": request.until.isoformat() if request.until else None,
        "job": json_module.loads(request.job),
    }


def _show_request(request: Request, rate: Rate | None) -> None:
    import yaml

    # ASCII alone: a name with signs that look like others, or turn the line round, must not pass for another name.
    job = yaml.safe_dump(json_module.loads(request.job), sort_keys=False, width=100)
    start = request.start
    console.print(
        job.rstrip(),
        "",
        f"digest      {request.digest}",
        f"started by  {start.by}, asked {_time(request.asked)}",
        f"signed for  {start.runs} {'run' if start.runs == 1 else 'runs'}, until {_time(start.until)}",
        f"policy      {f'lets {start.by} start {rate}' if rate else f'does not let {start.by} start it'}",
        *([f"approved    until {_time(request.until)}"] if request.until else []),
        sep="\n",
        soft_wrap=True,
        markup=False,
    )


def _reset_clock(party: str, state: State, *, yes: bool, json: bool) -> None:
    now = datetime.now(UTC)
    ahead = state.seconds_ahead(now)
    if ahead and not json:
        console.print(
            f"{party} has seen a time {ahead} s ahead of its clock, which now says {_time(now)}.",
            "Reset only if that is right: a clock that was set back would revive what has run out.",
            "  signatures and approvals that are over by the other time alone hold again",
            "  runs begun by the other time count as begun now; what was approved by it waits again",
            sep="\n",
            soft_wrap=True,
            markup=False,
        )
    reset = bool(ahead) and (yes or (not json and _asked(f"does {party} reset its clock? [y/n] ")))
    if reset:
        state.reset_clock(datetime.now(UTC))
    if json:
        sys.stdout.write(json_module.dumps({"party": party, "seconds_ahead": ahead, "reset": reset}) + "\n")
        return
    said = f"{party} goes by its clock again: start the job again" if reset else "not reset"
    console.print(said if ahead else f"{party} goes by its clock", soft_wrap=True, markup=False)


def _asked(question: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError("approval.unasked")
    return console.input(question, markup=False).strip().lower() in ("y", "yes")


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")
