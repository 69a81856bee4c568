"""What a person sees while a job runs: one line a phase, live in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column as RichColumn

from ..parties.events import (
    Chosen,
    Count,
    Difference,
    Failed,
    Finished,
    Metric,
    Phase,
    PublicEvent,
    Reachable,
    Resumed,
    Round,
)
from ..parties.events import Progress as Step
from .jobs import Job
from .kinds.horizontal.job import HorizontalJob
from .kinds.horizontal.report import MAIN
from .terminal import difference_text

_LED = (Phase.PREPARE, Phase.MEASURE)  # the coordinator alone says how far these are
_DONE, _GONE = "[green]✓[/]", "[red]✗[/]"


class Screen:
    """A listener of the journal that draws."""

    def __init__(
        self, console: Console, job: Job, *, baselines: bool = False, members: tuple[str, ...] | None = None
    ) -> None:
        self._console, self._job = console, job
        self._parties = members or job.members  # those that are heard here
        self._units = {**job.units, Phase.COMPARE: "model"}
        self._score = MAIN[job.task][1] if isinstance(job, HorizontalJob) else "AUC"
        compared = (Phase.COMPARE,) if baselines else ()
        self._shown: tuple[Phase, ...] = (*(phase for phase in job.phases if phase is not Phase.CLOSE), *compared)
        self._live = console.is_terminal
        bar = 20 if console.width >= 100 else 8  # the words matter more
        self._progress = Progress(
            TextColumn("  {task.fields[number]} {task.description:<10}", table_column=RichColumn(width=14)),
            BarColumn(bar_width=bar, table_column=RichColumn(width=bar)),
            TextColumn("{task.fields[note]}", table_column=RichColumn(no_wrap=True)),
            console=console,
            disable=not self._live,
        )
        self._lines: dict[Phase, TaskID] = {}
        self._shares: dict[Phase, dict[str, float]] = {phase: {} for phase in Phase}
        self._notes: dict[Phase, dict[str, str]] = {phase: {} for phase in Phase}
        self._ended: dict[Phase, dict[str, str]] = {phase: {} for phase in Phase}  # and how, by party
        self._printed: set[Phase] = set()
        self._away = False

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Draw while the job runs."""
        with self._progress:
            for number, phase in enumerate(self._shown, 1):
                self._lines[phase] = self._progress.add_task(phase.value, total=1.0, number=number, note="")
            yield
            for phase in self._shown:  # whose last members the job went on without
                self._print(phase)

    def __call__(self, party: str, event: PublicEvent) -> None:
        """Take in one event."""
        match event:
            case Step():
                share = event.done / event.total if event.total else 1.0
                self._shares[event.phase][party] = (event.index - 1 + share) / event.units
                unit = self._units.get(event.phase, "part")
                place = (event.done, event.total) if event.phase is Phase.COMPARE else (event.index, event.units)
                self._note(event.phase, unit, f"{unit} {place[0]}/{place[1]}")
            case Count(name="shared"):
                self._note(Phase.ALIGN, "shared", f"{event.value:,} shared patients")
            case Metric(name="auc", part="validation", of=None):
                self._note(Phase.TRAIN, "score", f"validation AUC {event.value:.3f}")
            case Chosen():
                self._note(Phase.EVALUATE, "kept", f"keeps {event.of}")
            case Round(validation_score=float(score)):
                self._note(Phase.TRAIN, "score", f"validation {self._score} {score:.3f}")
            case Difference():
                self._console.print(f"  {difference_text(party, event.column, event.what)}", soft_wrap=True)
            case Resumed(phase=Phase.ALIGN):
                self._note(Phase.ALIGN, "resumed", "goes on with the alignment of the last attempt")
            case Resumed(epoch=int(done)) | Resumed(round=int(done)) | Resumed(model=int(done)):
                unit = self._units.get(event.phase, "part")
                self._note(event.phase, "resumed", f"resumed after {unit} {done}")
            case Reachable(up=up):
                if not up:
                    self._console.print(f"  {party} cannot reach the exchange, and keeps trying")
                elif self._away:
                    self._console.print(f"  {party} has reached the exchange")
                self._away = not up
            case Finished() if event.phase in self._shown:
                self._end(party, event.phase, _DONE)
            case Failed() if event.phase in self._shown:
                self._end(party, event.phase, f"{_GONE} {event.code}")

    def _end(self, party: str, phase: Phase, how: str) -> None:
        self._ended[phase][party] = how
        self._shares[phase][party] = 1.0
        self._note(phase, "done", " ".join(f"{name} {mark}" for name, mark in self._ended[phase].items()))
        if len(self._ended[phase]) == self._workers(phase):
            self._print(phase)

    def _print(self, phase: Phase) -> None:
        """The line of a phase that somebody finished, where nothing is live; once."""
        if self._live or phase in self._printed or _DONE not in self._ended[phase].values():
            return
        self._printed.add(phase)
        number = self._shown.index(phase) + 1
        self._console.print(f"  {number} {phase.value:<10} {self._text(phase)}", soft_wrap=True)

    def _note(self, phase: Phase, name: str, text: str) -> None:
        self._notes[phase][name] = text
        if phase in self._lines:
            shares = self._shares[phase].values()
            share = max(shares, default=0.0) if phase in _LED else sum(shares) / self._workers(phase)
            self._progress.update(self._lines[phase], completed=min(share, 1.0), note=self._text(phase))

    def _workers(self, phase: Phase) -> int:
        return 1 if phase is Phase.COMPARE else len(self._parties)

    def _text(self, phase: Phase) -> str:
        return "  ".join(self._notes[phase].values())
