"""A hostile exchange that answers a HELLO itself: the man in the middle, who knows all but the signing keys."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from duel import HIGHER, LOWER, Duel
from hostile import Hostile, Seen
from score import Score
from stage import JOB, Stage

from isthmus.parties.identity import Identity
from isthmus.parties.network.frame import HEADER_NBYTES, Header, Kind, parse
from isthmus.parties.network.message import MalformedMessageError
from isthmus.parties.network.session import Binding, Handshake, IdentityError, NotForUsError
from isthmus.parties.reach import room_of


class Middle:
    """Speaks to each victim in the peer's name. `claims` is the public key that it says it has."""

    def __init__(
        self, run: str, claims: dict[str, bytes] | None, victims: tuple[str, ...], *, hello_only: bool
    ) -> None:
        self.sessions = 0
        self.read: list[str] = []  # job digests that it could read
        self._hello_only = hello_only
        self._hands = {}
        for victim in victims:
            peer = HIGHER if victim == LOWER else LOWER
            key = Ed25519PrivateKey.generate()
            public = claims[peer] if claims else key.public_key().public_bytes_raw()
            self._hands[victim] = Handshake(
                key.sign,
                public,
                me=peer,
                peer=victim,
                peer_key=None,
                binding=Binding("hearts", run),
                attempt=1,
                job=JOB,
            )

    def __call__(self, seen: Seen) -> list[Seen]:
        try:
            header = parse(seen.frame)
        except MalformedMessageError:
            return [seen]
        hands = self._hands.get(header.source)
        if hands is None or header.kind not in (Kind.HELLO, Kind.AUTH):
            return [seen]
        payload = seen.frame[HEADER_NBYTES:]
        answers = []
        try:
            if header.kind is Kind.HELLO:
                answers = [(Kind.HELLO, hands.hello), (Kind.AUTH, hands.on_hello(payload))]
            elif not self._hello_only:
                answers = [(Kind.AUTH, hands.on_auth(payload))]
                if hands.session is not None:
                    self.read.append(hands.session.peer_job)
        except (NotForUsError, IdentityError):
            pass
        made = [(kind, content) for kind, content in answers if content is not None]
        return [seen.but(frame=Header(kind, header.source, header.destination).pack() + text) for kind, text in made]


def in_the_middle(stage: Stage, hostile: Hostile, quick: bool) -> list[Score]:
    """Both victims, or one alone; by its own key, or with the pinned public key and a signature that cannot be made."""
    claims = {name: Identity(stage.home(name)).public for name in (LOWER, HIGHER)}
    scores = []
    for told, own, victims, hello_only in (
        ("to both, with a key of its own", None, (LOWER, HIGHER), False),
        ("to both, under the pinned public keys", claims, (LOWER, HIGHER), False),
        ("to insurer alone", claims, (LOWER,), False),
        ("to lab alone", claims, (HIGHER,), False),
        ("to both, its HELLO alone: neither peer's is heard", None, (LOWER, HIGHER), True),
    ):
        score = Score(f"man in the middle answers {told}")
        learned = 0
        for number in range(1 if quick else 10):
            run = f"middle-{len(scores)}-{number}"
            middle = Middle(run, own, victims, hello_only=hello_only)
            hostile.relay.scripts[room_of(Binding("hearts", run))] = middle
            duel = Duel(stage, hostile.address, count=3, timeout_s=5.0, run=run)
            duel.start().finish()
            score.tried += len(victims)
            met = sum(side.channel._carrier._session is not None for side in duel.sides)  # type: ignore[attr-defined]
            score.got_through += duel.wrong + met + sum(side.right for side in duel.sides)
            score.outcomes[duel.ends] += 1
            learned += len(middle.read)
            stage.hang_up()
        score.told = f"learned: the job digest and public key of the lower name, {learned} times (as `session` says)"
        score.control = Duel(stage, hostile.address).start().finish().went_well
        stage.hang_up()
        scores.append(score)
    return scores


def reflected(stage: Stage, hostile: Hostile, quick: bool) -> list[Score]:
    """What a victim says comes back to it in the peer's name, which never gets anything."""
    score = Score("everything that a member says is sent back to it, in its peer's name")

    def script(seen: Seen) -> list[Seen]:
        return [seen.but(frame=seen.frame[:8] + seen.frame[40:72] + seen.frame[8:40] + seen.frame[72:])]

    for number in range(1 if quick else 5):
        duel = Duel(stage, hostile.address, count=3, timeout_s=5.0, run=f"mirror-{number}")
        hostile.relay.scripts[room_of(Binding("hearts", duel.run))] = script
        duel.start().finish()
        score.tried += 2
        score.got_through += duel.wrong + sum(side.right for side in duel.sides)
        score.outcomes[duel.ends] += 1
    score.control = Duel(stage, hostile.address).start().finish().went_well
    stage.hang_up()
    return [score]


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage, Hostile(stage) as hostile:
        yield from in_the_middle(stage, hostile, quick)
        yield from reflected(stage, hostile, quick)
