"""A member that forges: another's name in its frames, another's key, a certificate that nobody has pinned."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from duel import Duel
from hostile import Hostile, Seen
from score import Score
from stage import Stage

from isthmus.parties.certificate import TLS_NAME, make_certificate
from isthmus.parties.errors import IsthmusError
from isthmus.parties.network.channel import CarrierTimeoutError
from isthmus.parties.network.frame import FIRST, LAST, MAX_FRAME_NBYTES, NAME_NBYTES, Header, Kind
from isthmus.parties.network.link import LinkEnd
from isthmus.parties.network.message import Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.session import Binding
from isthmus.parties.reach import room_of
from tests.consortium import wait

_PEM = serialization.Encoding.PEM


def _came(end: LinkEnd, seconds: float) -> int:
    """How many frames come within a time."""
    count, until = 0, time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        try:
            end.receive(left_s)
            count += 1
        except CarrierTimeoutError:
            break
    return count


def source_names(stage: Stage, quick: bool) -> list[Score]:
    """Clinic, a member like any other, writes frames with other names as their source through its own connection."""
    score = Score("clinic sends to lab in another's name, through its own connection to the exchange")
    link = stage.link("lab", run="names")
    ends = {name: link.end(name) for name in ("insurer", "clinic", "Clinic", "lab", "main")}
    wait(lambda: link.trouble is None)
    names = [b"insurer", b"lab", b"main", b"Clinic", b"clinic\0x", b"\0clinic", b"", b"clinic ", b"c" * NAME_NBYTES]
    kinds = list(Kind)[:2] if quick else list(Kind)
    for number, (name, kind) in enumerate((name, kind) for name in names for kind in kinds):
        stream = stage.stream("clinic", run="names", lane=("fast", "bulk")[number % 2], epoch=number + 1).accepted()
        honest = Header(kind, "lab", "clinic").pack()
        stream.send(honest[:40] + name.ljust(NAME_NBYTES, b"\0") + honest[72:] + bytes(200))
        score.tried += 1
        score.outcomes[" ".join(map(str, stream.status())).replace("StatusCode.", "")] += 1
    score.got_through = sum(_came(ends[name], 0.3) for name in ends)
    stage.stream("clinic", run="names", epoch=1000).accepted().send(Header(Kind.DATA, "lab", "clinic").pack())
    score.control = _came(ends["clinic"], 5.0) == 1
    stage.hang_up()
    return [score]


def sizes(stage: Stage) -> list[Score]:
    """Clinic writes what is no frame: nothing, half a header, more than a frame has, more than gRPC takes."""
    score = Score(
        "clinic sends 0 bytes, half a header, a frame and a byte, 3 MiB to lab, or frames to itself and to nobody"
    )
    link = stage.link("lab", run="sizes")
    end = link.end("clinic")
    wait(lambda: link.trouble is None)
    header = Header(Kind.DATA, "lab", "clinic", total=2**28).pack()
    bad = [b"", b"\0", header[:-1], header + bytes(MAX_FRAME_NBYTES - len(header) + 1), header + bytes(3 << 20)]
    bad += [Header(Kind.DATA, name, "clinic").pack() for name in ("clinic", "nobody", "LAB")]
    for number, whole in enumerate(bad):
        stream = stage.stream("clinic", run="sizes", epoch=number + 1).accepted()
        stream.send(whole)
        score.tried += 1
        score.outcomes[f"{stream.status()[0].name}"] += 1
    score.got_through = _came(end, 1.0)
    largest = header + bytes(MAX_FRAME_NBYTES - len(header))
    stage.stream("clinic", run="sizes", epoch=1000).accepted().send(largest)
    score.control = _came(end, 5.0) == 1
    stage.hang_up()
    return [score]


def own_session(stage: Stage, hostile: Hostile, quick: bool) -> list[Score]:
    """Clinic has a true session with lab, and an exchange that lets its frames pass under insurer's name."""
    score = Score("with the exchange's help: sealed by clinic's own session with lab, in insurer's name")
    run, tries = "colluding", 20 if quick else 200
    lab = stage.link("lab", run=run, address=hostile.address)
    clinic = stage.link("clinic", run=run, address=hostile.address)
    victim = stage.carrier(lab, "lab", "insurer", run=run)
    known = stage.carrier(lab, "lab", "clinic", run=run)
    insurer = stage.carrier(stage.link("insurer", run=run, address=hostile.address), "insurer", "lab", run=run)
    attacker = stage.carrier(clinic, "clinic", "lab", run=run)
    with ThreadPoolExecutor(4) as pool:
        for session in [pool.submit(one._meet, 30.0) for one in (victim, known, insurer, attacker)]:
            session.result()
    session, room = attacker._session, room_of(Binding("hearts", run))
    assert session is not None
    theirs = victim._incoming  # the attacker may even know the ids of insurer's own topics
    for number in range(tries):
        topic = list(Topic)[number % len(Topic)]
        sealer = session.sealer(topic.value)
        channel = sealer.channel if number % 2 else list(theirs)[number % len(theirs)]
        header = Header(Kind.DATA, "lab", "insurer", channel, number, FIRST | LAST, 20).pack()
        frame = sealer.seal(number, b"sealed by the clinic", header)
        hostile.write(Seen(room, ("fast", "bulk")[number % 2], frame))
        score.tried += 1
    received = []
    try:
        while True:
            received.append(victim.receive(1.0))
    except CarrierTimeoutError:
        pass
    score.got_through = len(received)
    score.outcomes.update(victim.refused)
    attacker._numbers[Topic.TRAIN] = tries  # behind what was sealed above
    known._incoming[session.sealer(Topic.TRAIN.value).channel].expected = tries
    attacker.send(Topic.TRAIN, [b"in its own name"], 5.0, lambda: None)
    score.control = bytes(known.receive(10.0)) == b"in its own name"
    stage.hang_up()
    return [score]


def unpinned_key(stage: Stage, quick: bool) -> list[Score]:
    """Somebody holds lab's TLS key, so the exchange lets it in as lab, and not lab's identity key."""
    score = Score("lab's TLS certificate, another identity key: the handshake with insurer")
    for number in range(3 if quick else 20):
        for me, peer in (("lab", "insurer"), ("insurer", "lab")):
            run, key = f"unpinned-{me}-{number}", Ed25519PrivateKey.generate()
            victim = stage.carrier(stage.link(peer, run=run), peer, me, run=run)
            attacker = stage.carrier(stage.link(me, run=run), me, peer, run=run, signs=key)
            with ThreadPoolExecutor(2) as pool:
                pool.submit(_silently, attacker)
                try:
                    victim._meet(8.0)
                    score.got_through += 1
                except (ConnectionError, TimeoutError) as failure:
                    score.outcomes[str(failure)] += 1
            score.tried += 1
            stage.hang_up()
    score.got_through += score.tried - score.outcomes["peer.identity"]
    score.control = Duel(stage, stage.real).start().finish().went_well
    stage.hang_up()
    return [score]


def _silently(carrier: ResumingCarrier, timeout_s: float = 8.0) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError, IsthmusError):
        carrier._meet(timeout_s)


def unpinned_key_process(stage: Stage) -> list[Score]:
    """The same, where insurer is `isthmus join`: what its people read."""
    score = Score("the same against `isthmus join`: it ends with peer.identity")
    job = stage.world.load_job()
    run = job.meeting(job.run_name(1))
    joined = stage.consortium.join("insurer", "--timeout", "60")
    key = Ed25519PrivateKey.generate()
    attacker = stage.carrier(stage.link("lab", run=run), "lab", "insurer", run=run, job=job.digest(), signs=key)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_silently, attacker, 90.0)
        status = joined.wait(120)
    said = stage.consortium.said("insurer")
    score.tried, score.got_through = 1, int(status != 4 or "error[peer.identity]" not in said)
    score.outcomes[next((line for line in said.splitlines() if "error[" in line), said[-200:])] += 1
    stage.hang_up()
    stage.consortium.run("--run", 2)  # the two true ones
    score.control = True
    return [score]


def _issued(issuer: bytes, key: bytes) -> tuple[bytes, bytes]:
    """A certificate that a member has signed with its own TLS key, for somebody else."""
    parent = x509.load_pem_x509_certificate(issuer)
    signer = serialization.load_pem_private_key(key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    child, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "insurer")]))
        .issuer_name(parent.subject)
        .public_key(child.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    plain = child.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(_PEM) + issuer, plain


def certificates(stage: Stage) -> list[Score]:
    """Certificates that the roster does not hold, at the real exchange."""
    score = Score(
        "certificates that are not in the roster: strange, issued by a member, exchange's subject, none's key"
    )
    stranger = make_certificate()
    home = stage.home("clinic")
    issued = _issued(home.tls_certificate(), home.tls_key())
    cases = {
        "a stranger's": (stranger.certificate, stranger.key),
        "issued by clinic": issued,
        "issued by clinic, without the chain": (issued[0][: issued[0].index(b"-----END") + 26], issued[1]),
    }
    for name, own in cases.items():
        for lane in ("fast", "bulk"):
            stream = stage.stream("clinic", run="certificates", lane=lane, own=own)
            code, words = stream.status()
            score.tried += 1
            score.got_through += code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)
            shown = words if code is grpc.StatusCode.PERMISSION_DENIED else "TLS"
            score.outcomes[f"{name}: {code.name} {shown}"] += 1
    score.control = stage.stream("clinic", run="certificates").accepted().call.is_active()
    stage.hang_up()
    return [score]


def run(quick: bool) -> Iterator[Score]:
    with Stage().found() as stage:
        stage.consortium.start_exchange()
        yield from source_names(stage, quick)
        yield from sizes(stage)
        yield from certificates(stage)
        yield from unpinned_key(stage, quick)
        yield from unpinned_key_process(stage)
        with Hostile(stage) as hostile:
            yield from own_session(stage, hostile, quick)
