"""Many jobs in a row by the same processes, which must not grow."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .pieces import SERVER, SHORT, Pieces, run_of

WARM = 2  # jobs after which the first figures are taken: what is imported and opened once is there by then
MORE_FILES = 4  # open files that a process may have more in the end
MORE_MIB = 16.0  # and memory
OF_A_RUN = re.compile(r"(runs|homes/[a-z]+/runs|homes/[a-z]+/models)/(many-[^/]+)/")


@dataclass(frozen=True)
class Figures:
    """Of every process but the Prefect server, by its name; files on disk by path from the folder."""

    files: dict[str, int]
    rss_mib: dict[str, float]
    disk: dict[str, int]


def _figures(pieces: Pieces, processes: int) -> Figures:
    """Taken once all that belongs to the last job has ended, and a flow is ready for the next."""
    assert len(pieces.settled()) == processes
    time.sleep(2)
    seen = {each.pid: each for each in pieces.mark.processes()}
    assert len(seen) == processes
    own = {name: seen[process.pid] for name, process in pieces.processes.items() if name != SERVER}
    own["flow that is ready"] = seen[pieces.flows()[0]]
    folders = {"": pieces.folder / "up", "tmp/": pieces.temporary}
    disk = {
        prefix + str(path.relative_to(folder)): path.stat().st_size
        for prefix, folder in folders.items()
        for path in _files(folder)
    }
    return Figures({name: each.files for name, each in own.items()}, {n: e.rss_mib for n, e in own.items()}, disk)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.timeout(3600)
def test_twenty_jobs_in_a_row_leave_processes_open_files_memory_and_folders_as_they_were(
    pieces: Pieces, say: Callable[[str], None], quick: bool
) -> None:
    jobs = 6 if quick else 20
    processes = len(pieces.settled())
    job = pieces.job("many", SHORT)
    taken: list[Figures] = []
    began = time.monotonic()
    for number in range(1, jobs + 1):
        pieces.api.completed(pieces.api.start(job), 120)
        assert len(pieces.models(run_of(job, number))) == 2
        if number >= WARM:
            taken.append(_figures(pieces, processes))
    first, last = taken[0], taken[-1]
    new = set(last.disk) - set(first.disk)
    assert {path for path in new if not OF_A_RUN.match(path)} == set()
    per_run = Counter(found[2] for path in last.disk if (found := OF_A_RUN.match(path)))
    assert len(per_run) == jobs
    assert len(set(per_run.values())) == 1, per_run
    for name, before in first.files.items():
        assert last.files[name] <= before + MORE_FILES, (name, [one.files[name] for one in taken])
        assert last.rss_mib[name] <= first.rss_mib[name] + MORE_MIB, (name, [one.rss_mib[name] for one in taken])
    grown = {
        path: size - first.disk[path] for path, size in last.disk.items() if size > first.disk.get(path, size) + 4096
    }
    say(
        f"{jobs} jobs in {time.monotonic() - began:.0f} s; after job {WARM} and after job {jobs}: {processes} "
        f"processes both times; open files {_both(first.files, last.files)}; MiB {_both(first.rss_mib, last.rss_mib)}; "
        f"{next(iter(per_run.values()))} files a run in folders of its own, no other new file; files that grew: "
        f"{ {path: f'{nbytes / 1024 / (jobs - WARM):.0f} KiB a job' for path, nbytes in grown.items()} }"
    )


def _both(first: dict[str, int] | dict[str, float], last: dict[str, int] | dict[str, float]) -> str:
    return ", ".join(f"{name} {first[name]:.0f} → {last[name]:.0f}" for name in first)
