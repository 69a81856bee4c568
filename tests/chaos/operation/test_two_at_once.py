"""Two jobs at a time, of the same parties."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ...consortium import wait
from .pieces import LONG, Pieces, run_of


@pytest.mark.timeout(900)
def test_two_jobs_of_the_same_parties_at_once_both_complete(pieces: Pieces, say: Callable[[str], None]) -> None:
    jobs = [pieces.job(f"at-once-{number}", LONG) for number in (1, 2)]
    flows = [pieces.api.start(job) for job in jobs]
    wait(lambda: len(pieces.vaults("lab")) == 2 and len(pieces.vaults("insurer")) == 2, 120)
    for flow, job in zip(flows, jobs, strict=True):
        pieces.api.completed(flow, 300)
        run = run_of(job)
        assert pieces.models(run) == ["insurer", "lab"]
        assert pieces.attempts("lab", run) == 1
    spans = [(run["start_time"], run["end_time"]) for run in map(pieces.api.run, flows)]
    assert max(start for start, _ in spans) < min(end for _, end in spans)  # ISO times of one zone
    pieces.no_vault()
    say("two vaults at each party at a time, both jobs completed, each with its own models")
