"""A receiver that takes 1 MB a second: the sender waits for it, and nobody's memory grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from ...parties.cut_proxy import CutProxy
from .member import CHUNK_NBYTES
from .transfers import peak_mib

RATE = 1_000_000  # bytes a second
WINDOW_MIB = 32
MORE_MIB = 192  # that a member may take beside what it begins with
EXCHANGE_MIB = 256


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    "slow", ["its way is slow"] if os.environ.get("QUICK") else ["its way is slow", "it is slow itself"]
)
def test_a_slow_receiver_slows_the_sender_and_fills_no_memory(
    transfer: Callable[[int], Any], say: Callable[[str], None], quick: bool, ends: ExitStack, slow: str
) -> None:
    moved = transfer(48 if quick else 64)
    if slow == "its way is slow":
        proxy = ends.enter_context(CutProxy(moved.consortium.address, buffer_nbytes=1024 * 1024))
        proxy.rate["down"] = RATE
        moved.start(receiver=("--address", proxy.address, "--ping"), sender=("--ping",))
    else:
        moved.start(receiver=("--pace", CHUNK_NBYTES / RATE))
    sent, came = moved.ends()
    exchange_mib = peak_mib(moved.consortium.exchange.pid)
    # At the slowest it could hand over all but a window at once, and had to wait for the rest to be taken.
    assert sent["seconds"] > (moved.mib - WINDOW_MIB) / 2
    assert sent["peak_mib"] - sent["before_mib"] < MORE_MIB
    assert came["peak_mib"] - came["before_mib"] < MORE_MIB
    assert exchange_mib < EXCHANGE_MIB
    if sent["slowest_ping_s"] is not None:
        assert sent["pings"] > 10
        assert sent["slowest_ping_s"] < 20
    pings = f"{sent['pings']} small messages meanwhile, the slowest answered after {sent['slowest_ping_s']} s; "
    say(
        f"{moved.mib} MiB at 1 MB/s ({slow}): same digest; the sender handed them over in {sent['seconds']} s; "
        f"{pings if sent['pings'] else ''}at most {sent['peak_mib']} MiB at the sender, {came['peak_mib']} MiB at the "
        f"receiver, {exchange_mib} MiB at the exchange"
    )
