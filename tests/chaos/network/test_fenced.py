"""Two processes of one member in the same run: the newer one takes over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .joined import Joined, assert_same

TIMEOUT_S = 15.0


@pytest.mark.timeout(500)
def test_a_newer_process_of_a_member_fences_the_older_and_completes_the_job(
    vertical: Joined, say: Callable[[str], None], tmp_path: Path
) -> None:
    vertical.consortium.start_exchange()
    vertical.join("insurer", "lab", timeout_s=TIMEOUT_S)
    vertical.wait(lambda: vertical.steps("lab") >= 2)
    vertical.proxy.delay_s.update(up=0.2, down=0.2)  # it will not be over before the newer one is there
    older = vertical.processes["lab"]
    vertical.join("lab", timeout_s=200)
    newer = vertical.processes["lab"]
    assert older.wait(60) == 4
    assert "error[exchange.fenced]" in vertical.said("lab")  # both write to one log; the newer has said nothing yet
    vertical.wait(lambda: vertical.attempts("lab") == 2)
    vertical.proxy.delay_s.update(up=0, down=0)
    took = vertical.ends_with("insurer", 4, "peer.deadline", "peer.gone", within_s=TIMEOUT_S)
    assert newer.poll() is None  # it waits for the peer's new attempt
    vertical.nothing_half_written()
    vertical.join("insurer", timeout_s=100)
    vertical.ends_well()
    assert "resumed after epoch" in vertical.said("insurer")
    models = vertical.models()
    assert_same(models, vertical.uninterrupted(tmp_path / "twin"))
    vertical.nothing_half_written(models)
    say(
        f"lab started a second time in mid-training: the older ended with exchange.fenced (4), insurer {took:.0f} s "
        "later with a peer's error (4); with insurer's next attempt the newer completed, the models are the twin's"
    )
