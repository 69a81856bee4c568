"""An exchange that is killed in the middle of a transfer, and started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .transfers import peak_mib

DOWN_S = 1.0
MORE_MIB = 320  # that a member may take beside what it begins with: windows, queues, and the chunks themselves
EXCHANGE_MIB = 320


@pytest.mark.timeout(900)
def test_an_exchange_that_is_killed_twice_loses_nothing_of_a_transfer(
    transfer: Callable[[int], Any], say: Callable[[str], None], quick: bool
) -> None:
    moved = transfer(128 if quick else 1024)
    consortium, peaks = moved.consortium, []
    moved.start()
    for share in (0.25, 0.6):
        moved.wait_until_at(share)
        peaks.append(peak_mib(consortium.exchange.pid))
        consortium.kill_exchange()
        time.sleep(DOWN_S)
        consortium.start_exchange()
    sent, came = moved.ends(600)
    peaks.append(peak_mib(consortium.exchange.pid))
    assert all(moved.said(who).count("lost\n") >= 2 for who in moved.processes)
    assert sent["peak_mib"] - sent["before_mib"] < MORE_MIB
    assert came["peak_mib"] - came["before_mib"] < MORE_MIB
    assert max(peaks) < EXCHANGE_MIB
    say(
        f"{moved.mib} MiB in {moved.seconds:.0f} s with the exchange killed twice: same digest, {came['count']} chunks "
        f"in order; at most {sent['peak_mib']} MiB at the sender, {came['peak_mib']} MiB at the receiver, "
        f"{max(peaks)} MiB at the exchange"
    )
