"""What a person sees while a job runs: one line a phase, live in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column as RichColumn

from ..parties.events import Count, Finished, Metric, Phase, PublicEvent, Resumed
from ..parties.events import Progress as Step
from .jobs import Job

_UNITS = {Phase.ALIGN: "pass", Phase.TRAIN: "epoch", Phase.COMPARE: "model"}
_DONE = "[green]✓[/]"


class Screen:
    """A listener of the journal that draws."""

    def __init__(self, console: Console, job: Job, *, baselines: bool = False) -> None:
        self._console, self._job = console, job
        self._parties = job.members
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
        self._finished: dict[Phase, list[str]] = {phase: [] for phase in Phase}

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Draw while the job runs."""
        with self._progress:
            for number, phase in enumerate(self._shown, 1):
                self._lines[phase] = self._progress.add_task(phase.value, total=1.0, number=number, note="")
            yield

    def __call__(self, party: str, event: PublicEvent) -> None:
        """Take in one event."""
        match event:
            case Step():
                share = event.done / event.total if event.total else 1.0
                self._shares[event.phase][party] = (event.index - 1 + share) / event.units
                unit = _UNITS[event.phase]
                place = (event.done, event.total) if event.phase is Phase.COMPARE else (event.index, event.units)
                self._note(event.phase, unit, f"{unit} {place[0]}/{place[1]}")
            case Count(name="shared"):
                self._note(Phase.ALIGN, "shared", f"{event.value:,} shared patients")
            case Metric(name="auc", part="validation"):
                self._note(Phase.TRAIN, "auc", f"validation AUC {event.value:.3f}")
            case Resumed(phase=Phase.ALIGN):
                self._note(Phase.ALIGN, "resumed", "goes on with the alignment of the last attempt")
            case Resumed(epoch=epoch):
                self._note(Phase.TRAIN, "resumed", f"resumed after epoch {epoch}")
            case Finished() if event.phase in self._shown:
                self._finish(party, event.phase)

    def _finish(self, party: str, phase: Phase) -> None:
        finished = self._finished[phase]
        finished.append(party)
        self._shares[phase][party] = 1.0
        self._note(phase, "done", " ".join(f"{name} {_DONE}" for name in finished))
        if len(finished) == self._workers(phase) and not self._live:
            number = self._shown.index(phase) + 1
            self._console.print(f"  {number} {phase.value:<10} {self._text(phase)}", soft_wrap=True)

    def _note(self, phase: Phase, name: str, text: str) -> None:
        self._notes[phase][name] = text
        if phase in self._lines:
            share = sum(self._shares[phase].values()) / self._workers(phase)
            self._progress.update(self._lines[phase], completed=min(share, 1.0), note=self._text(phase))

    def _workers(self, phase: Phase) -> int:
        return 1 if phase is Phase.COMPARE else len(self._parties)

    def _text(self, phase: Phase) -> str:
        return "  ".join(self._notes[phase].values())
