"""A member that was let in and may no longer be: revoked, or its certificate has ended, while its streams are open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from duel import Duel
from score import Score
from stage import MEMBERS, Stage

from isthmus.parties.certificate import make_certificate
from isthmus.parties.identity import Identity
from isthmus.parties.roster import Roster
from tests.consortium import isthmus, wait

CUT_WITHIN_S = 30.0
LIVES_S = 40


def _joined_alone(stage: Stage, member: str) -> Any:
    """A member that waits for its peer at the exchange."""
    before = _log(stage).count(f"{member} connected")
    process = stage.consortium.join(member, "--timeout", "300")
    wait(lambda: _log(stage).count(f"{member} connected") == before + 2, 60)
    return process


def _log(stage: Stage) -> str:
    return (stage.folder / "exchange.log").read_text()


def _cut(stage: Stage, process: Any, member: str, since: Callable[[], float], score: Score, word: str) -> None:
    """Wait until the exchange has cut it and the member's process has ended, and note when."""
    try:
        wait(lambda: f"{member} cut: {word}" in _log(stage), 60)
    except AssertionError:
        print(_log(stage), stage.consortium.said(member))
        raise
    seconds = time.time() - since()
    status = process.wait(60)
    ended = time.time() - since()
    said = stage.consortium.said(member)
    code = next((text.partition("]")[0] for text in said.split("error[")[1:]), said[-200:])
    score.tried += 1
    score.got_through += int(seconds > CUT_WITHIN_S or status != 4 or code != f"exchange.{word}")
    score.outcomes[code] += 1
    score.told = f"cut after {seconds:.1f} s, its process ended after {ended:.1f} s"


def revoked(stage: Stage) -> list[Score]:
    """Lab is revoked by version n+1 of the roster, which the exchange alone has accepted so far."""
    score, peers = Score("lab is revoked on a live stream"), Score("insurer has accepted the revocation: lab as a peer")
    score.control = Duel(stage, stage.real).start().finish().went_well
    stage.hang_up()
    process = _joined_alone(stage, "lab")
    isthmus("consortium", "revoke", stage.consortium.roster, "lab")
    for member in ("insurer", "clinic"):
        isthmus("consortium", "sign", stage.consortium.roster, member, "--homes", stage.world.homes)
    isthmus("consortium", "accept", stage.consortium.roster, stage.consortium.exchange_folder)
    accepted = time.time()
    _cut(stage, process, "lab", lambda: accepted, score, "revoked")
    again = stage.stream("lab", run="revoked")
    score.tried += 1
    score.got_through += again.status()[1] not in ("revoked",)
    score.outcomes[f"a new stream: {again.status()[1]}"] += 1
    isthmus("consortium", "accept", stage.consortium.roster, stage.world.homes / "insurer")
    joined = stage.consortium.join("insurer", "--timeout", "20")
    status, said = joined.wait(60), stage.consortium.said("insurer")
    peers.tried, peers.got_through = 1, int(status != 2 or "error[roster.revoked]" not in said)
    peers.outcomes[next((line for line in said.splitlines() if "error[" in line), said[-200:])[:100]] += 1
    peers.control = score.control
    stage.hang_up()
    return [score, peers]


def expired(stage: Stage) -> list[Score]:
    """Lab's certificate, pinned by all, ends in a few seconds."""
    score = Score("lab's certificate ends on a live stream")
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LIVES_S)
    made = make_certificate(1, now=ends - timedelta(days=1))
    home = stage.world.homes / "lab"
    (home / "tls.crt").write_bytes(made.certificate)
    (home / "tls.key").write_bytes(made.key)
    before = Roster.read(stage.consortium.roster)
    lab = before.members["lab"].model_copy(update={"certificate": made.certificate.decode(), "until": ends.date()})
    later = before.model_copy(update={"version": before.version + 1, "members": {**before.members, "lab": lab}})
    signed = {name: Identity(stage.home(name)).sign(later.canonical()).hex() for name in MEMBERS}
    later.model_copy(update={"signatures": signed}).write(stage.consortium.roster)
    folders = [*(stage.world.homes / name for name in MEMBERS), stage.consortium.exchange_folder]
    isthmus("consortium", "accept", stage.consortium.roster, *folders)
    stage.consortium.start_exchange()
    process = _joined_alone(stage, "lab")
    score.control = datetime.now(UTC) < ends  # it was let in, by this very certificate
    _cut(stage, process, "lab", ends.timestamp, score, "expired")
    score.tried += 1
    code, words = stage.stream("lab", run="expired").status()
    score.got_through += code.name not in ("UNAVAILABLE", "PERMISSION_DENIED")
    score.outcomes[f"a new stream: {code.name} {words if words == 'expired' else 'TLS'}"] += 1
    return [score]


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage:
        stage.consortium.start_exchange()
        yield from revoked(stage)
    with Stage().found() as stage:
        yield from expired(stage)
