"""A network that lets nothing through for a while, in both directions or in one, in the middle of a transfer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from ...parties.cut_proxy import CutProxy
from .transfers import RECEIVER, SENDER

STALLS = [(RECEIVER, None, 3), (SENDER, None, 25), (RECEIVER, None, 25), (SENDER, "up", 25), (RECEIVER, "down", 25)]
if os.environ.get("QUICK"):
    STALLS = [STALLS[0], STALLS[3]]


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("who", "direction", "seconds"), STALLS)
def test_a_transfer_outlives_a_way_that_is_stalled(
    transfer: Callable[[int], Any],
    say: Callable[[str], None],
    quick: bool,
    ends: ExitStack,
    who: str,
    direction: Any,
    seconds: int,
) -> None:
    moved = transfer(64 if quick else 192)
    proxy = ends.enter_context(CutProxy(moved.consortium.address))
    by_proxy = ("--address", proxy.address)
    moved.start(**{"sender" if who == SENDER else "receiver": by_proxy})
    moved.wait_until_at(0.2)
    proxy.pause(direction)
    time.sleep(seconds)
    at = moved.arrived()
    assert at < moved.mib  # it was really in the middle
    proxy.resume()
    sent, came = moved.ends()
    what = "both directions" if direction is None else f"only what goes {direction}"
    say(
        f"{moved.mib} MiB, {who}'s way stalled at {at} MiB for {seconds} s, {what}: same digest, {came['count']} "
        f"chunks in order, {moved.seconds:.0f} s in all; connections by the proxy {proxy.accepted}, "
        f"not accepted at the sender {sent['refused']}, at the receiver {came['refused']}"
    )
