"""`isthmus join`: one member's side of a job whose other members are on other machines, without Prefect."""

from __future__ import annotations

import asyncio
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, IsthmusError
from ..parties.events import Fingerprint, Metric, Traffic
from ..parties.home import PartyHome
from ..parties.network.message import Topic
from .jobs import Job
from .journal import Journal
from .launch import join
from .screen import Screen
from .terminal import console, named_home, size_text
from .vault_log import LOG_FILE

if TYPE_CHECKING:
    from ..parties.starts import Start


TOLD_FILE = "told.json"  # in the home's folder of a run: all that its vault has told


def join_and_show(
    job: Job, start: Start | None, member: str, *, homes: Path, number: int, fresh: bool, timeout_s: float, json: bool
) -> None:
    """Take part in a job as one member, draw while it runs, print what this member's vault has told."""
    if member not in job.members:
        raise InputError("job.member_unknown", party=member)
    home = named_home(homes, member)
    consortium = consortium_of(PartyHome(home))  # what is wrong with either is said here in full
    run = job.run_name(number)
    out = Console(stderr=True, highlight=False) if json else console
    screen = Screen(out, job, members=(member,))
    journal = Journal(run, listeners=[screen])
    out.print(f"{member} joins {run} as {job.role(member)}", soft_wrap=True)
    try:
        with screen.showing():
            asyncio.run(join(job, home, run, journal, fresh=fresh, timeout_s=timeout_s, start=start))
    except IsthmusError as error:
        error.where = f"{home / 'runs' / run / LOG_FILE} says more"
        if error.code in ("peer.deadline", "peer.gone") and error.facts.get("topic") == Topic.AGREE:
            peer = error.facts.get("peer", "its peer")
            error.next = (
                f"see that {peer} has joined, with the same signed file and --run {number}, and what it was told; "
                "then join again"
            )
        if error.code.startswith("exchange.") and consortium is not None:
            error.where = f"{consortium.exchange(job.exchange).address}; {error.where}"
        raise
    events = [event.model_dump(mode="json", exclude_none=True) for _, event in journal.events]
    told = json_module.dumps({"run": run, "party": member, "events": events}) + "\n"
    (home / "runs" / run / TOLD_FILE).write_text(told, encoding="utf-8")
    if json:
        sys.stdout.write(told)
        return
    for line in _closing_lines(journal, home, run):
        out.print(line, soft_wrap=True)


def _closing_lines(journal: Journal, home: Path, run: str) -> list[str]:
    lines = [_score(metric) for _, metric in journal.of(Metric) if metric.part == "test"]
    sent: dict[str, int] = {}
    for _, traffic in journal.of(Traffic):
        sent[traffic.peer] = sent.get(traffic.peer, 0) + traffic.sent
    lines += [f"  left for {peer}: {size_text(nbytes)}" for peer, nbytes in sent.items()]
    for _, mark in journal.of(Fingerprint):
        if mark.name == "model":
            lines.append(f"  model   {home / 'models' / run / 'part.safetensors'}   {mark.value[:16]}")
        if mark.name == "ledger":
            lines.append(f"  told    {home / 'runs' / run / TOLD_FILE}")
            lines.append(f"  ledger  {mark.value[:16]}   isthmus audit show {home.name} --homes {home.parent}")
    return lines


def _score(metric: Metric) -> str:
    whose: Any = f" of {metric.of}" if metric.of else ""
    interval = f" ({metric.low:.3f}–{metric.high:.3f})" if metric.low is not None and metric.high is not None else ""
    return f"  {metric.name}{whose}, held-out rows: {metric.value:.3f}{interval}"
