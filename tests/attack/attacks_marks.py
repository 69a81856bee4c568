"""Is anything of what members say, hold or know to be found at the exchange, or on the wire?

Marks are put into messages (text and numbers), party.yaml, SQL, identifiers, labels and the job. They are searched, as
they are and in other clothes (UTF-16, hex, base64), in the exchange's memory while a job runs and after it, in its log
and metrics, in the bytes that a tap on the way has captured, and in the frames themselves, as the exchange has them
behind TLS. The same search finds them in a member's own memory, and a frame's header in the exchange's.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import yaml
from duel import Side
from hostile import Hostile
from score import Score
from stage import Stage

from isthmus.parties.network.admission import padded
from isthmus.parties.network.message import Message, Step, Topic
from tests.consortium import free_port, wait

_CHUNK_NBYTES = 1 << 20
_START_NBYTES = 7


def clothes(mark: bytes) -> dict[str, bytes]:
    """A mark as it may look in memory."""
    forms = {"raw": mark, "hex": mark.hex().encode(), "HEX": mark.hex().upper().encode()}
    if mark.isascii():
        forms |= {"utf-16": mark.decode().encode("utf-16-le"), "utf-16 BE": mark.decode().encode("utf-16-be")}
    for shift in range(3):  # wherever it begins within a group of three
        whole = base64.b64encode(bytes(shift) + mark)
        forms[f"base64+{shift}"] = whole[4 if shift else 0 : len(whole) - 4]
        forms[f"base64url+{shift}"] = base64.urlsafe_b64encode(bytes(shift) + mark)[4 if shift else 0 : len(whole) - 4]
    return forms


def found(chunks: Iterable[bytes], marks: dict[str, bytes], enough: int = sys.maxsize) -> set[str]:
    """Which marks stand anywhere in the chunks, or across two of them, and how; at the least `enough` of them."""
    forms = {f"{name} ({how})": form for name, mark in marks.items() for how, form in clothes(mark).items()}
    starts: dict[bytes, list[str]] = {}  # many begin alike, so that few are looked for
    for name, form in forms.items():
        starts.setdefault(form[:_START_NBYTES], []).append(name)
    seen: set[str] = set()
    longest, tail = max(map(len, forms.values())), b""
    for chunk in chunks:
        if chunk.count(0) == len(chunk):  # most of what is mapped was never used
            tail = bytes(longest)
            continue
        if len(seen) >= enough:
            break
        text = tail + chunk
        for start, names in starts.items():
            if start in text:
                seen |= {name for name in names if name not in seen and forms[name] in text}
        tail = text[-longest:]
    return seen


def memory(pid: int) -> Iterator[bytes]:
    """All that a process has in memory, mapping by mapping."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            while start < end:
                try:
                    mem.seek(start)
                    chunk = mem.read(min(_CHUNK_NBYTES, end - start))
                except (OSError, ValueError):
                    break
                if not chunk:
                    break
                yield chunk
                start += len(chunk)


def dump(pid: int, folder: Path, name: str) -> Iterator[bytes]:
    """A core dump by gcore, in chunks; the file is removed at the end."""
    prefix = folder / name
    subprocess.run(["gcore", "-o", prefix, str(pid)], check=True, capture_output=True, timeout=300)
    path = Path(f"{prefix}.{pid}")
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_NBYTES):
                yield chunk
    finally:
        path.unlink()


def marked(stage: Stage) -> dict[str, bytes]:
    """Put marks into the homes and the job; each is random, so nothing else can hold it."""
    word = {part: f"marked{secrets.token_hex(10)}" for part in ("yaml", "sql", "name", "id", "purpose", "ward")}
    stage.world.job["purpose"] = word["purpose"]
    for member in ("insurer", "lab"):

        def change(content: dict) -> None:  # type: ignore[type-arg]
            content["policy"]["purposes"] = [word["purpose"], word["yaml"]]
            for dataset in content["datasets"].values():
                dataset["sql"] = f"SELECT * FROM t WHERE '{word['sql']}' <> ''"

        stage.world.edit_party(member, change)
        with duckdb.connect(stage.world.homes / member / f"{member}.duckdb") as connection:
            connection.execute(f"UPDATE t SET sur = '{word['name']}' || sur, ssn = '{word['id']}' || ssn")
            if member == "lab":
                connection.execute(f"UPDATE t SET ward = ward || '{word['ward']}'")
    return {part: text.encode() for part, text in word.items()}


def _talk(stage: Stage, address: str, run: str, marks: dict[str, bytes], *, rounds: int) -> list[Side]:
    """Two members send the marks to each other, as text and as numbers, large and small."""
    pattern = np.frombuffer(marks["numbers"], dtype="<f8")
    made = []
    for number in range(rounds):
        items = np.tile(pattern, 40_000 if number % 5 == 0 else 4)
        topic, step = ((Topic.TRAIN, Step.FORWARD), (Topic.AGREE, Step.JOB))[number % 2]
        fields = {"text": marks["text"].decode(), "bytes": marks["bytes"], "list": [marks["text"].decode()] * 5}
        made.append(Message(topic, step, fields, {"items": items}))
    sides = []
    for me, peer in (("insurer", "lab"), ("lab", "insurer")):
        sides.append(Side(stage.channel(me, peer, run=run, address=address, timeout_s=60.0), made, made))
    for side in sides:
        side.start()
    return sides


def at_the_exchange(stage: Stage, marks: dict[str, bytes], quick: bool) -> list[Score]:
    """The exchange's memory while frames pass and after, its log and its metrics; the wire; all with real processes."""
    inside = Score("marks in the exchange's memory: /proc/PID/mem and gcore, during and after; its log and metrics")
    wire = Score("marks in the captured traffic of both members")
    metrics = free_port()
    own = {"name": "main", "listen": stage.consortium.listen, "metrics": f"127.0.0.1:{metrics}"}
    (stage.consortium.exchange_folder / "exchange.yaml").write_text(yaml.safe_dump(own))
    pid, stage.tap.records = stage.consortium.start_exchange().pid, True
    joined = [stage.consortium.join(member) for member in ("insurer", "lab")]
    vault = stage.consortium.vault_of(joined[1])
    in_vault = wait(lambda: found(memory(vault), marks, enough=1), 60)
    sides = _talk(stage, stage.tap.address, "marked", marks, rounds=20 if quick else 200)
    wait(lambda: all(side.right > 3 for side in sides), 120)
    hits: list[set[str]] = []
    looks = 1 if quick else 4
    header = {"a header": padded("lab") + padded("insurer"), "the other": padded("insurer") + padded("lab")}
    for number in range(looks):
        hits.append(found(memory(pid), marks))
        hits.append(found(dump(pid, stage.folder, f"core{number}"), marks))
    in_exchange = found(memory(pid), header, enough=1)
    in_member = found(memory(os.getpid()), marks, enough=3)
    for side in sides:
        side.join(120)
    wait(lambda: all(process.poll() is not None for process in joined), 200)
    assert all(process.returncode == 0 for process in joined), stage.consortium.said("lab")
    hits += [found(memory(pid), marks), found(dump(pid, stage.folder, "after"), marks)]
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10) as answer:
        told = answer.read()
    hits.append(found([told, (stage.folder / "exchange.log").read_bytes()], marks))
    inside.tried = len(hits) * len(marks)
    inside.got_through = sum(map(len, hits))
    inside.outcomes.update(hit for each in hits for hit in each)
    inside.control = bool(in_exchange and in_member and in_vault) and b"exchange_frames" in told
    inside.told = f"the same search found {len(in_member)} in a member's memory, {len(in_vault)} in a vault's"
    captured = found(stage.tap.captured, marks)
    wire.tried, wire.got_through = len(marks), len(captured)
    nbytes = sum(map(len, stage.tap.captured))
    wire.told = f"{nbytes:,} bytes captured"
    wire.control = nbytes > 1_000_000 and all(side.right == len(side.mine) for side in sides)
    stage.tap.records = False
    stage.hang_up()
    return [inside, wire]


def inside_tls(stage: Stage, hostile: Hostile, marks: dict[str, bytes]) -> list[Score]:
    """All frames of a job and of marked messages, as an exchange has them: TLS has ended there."""
    score = Score("marks in all frames of a job, recorded by a hostile exchange behind TLS")
    stage.tap.target = ("127.0.0.1", int(hostile.address.rpartition(":")[2]))
    sides = _talk(stage, hostile.address, "recorded", marks, rounds=20)
    for side in sides:
        side.join(120)
    stage.consortium.run("--run", 2)
    recorded = hostile.forget()
    frames = [seen.frame for seen in recorded]
    hits = found(frames, marks)
    score.tried, score.got_through = len(frames), len(hits)
    score.outcomes.update(hits)
    score.told = f"{len(frames)} frames, {sum(map(len, frames)):,} bytes, {len(marks)} marks"
    names = found(frames, {"names": padded("lab") + padded("insurer")})
    score.control = bool(names) and all(side.right == len(side.mine) for side in sides)
    return [score]


def run(quick: bool) -> Iterator[Score]:
    # Enough of a job that there is time to look at the exchange while it runs.
    with Stage(persons=240, epochs=4) as stage:
        marks = marked(stage)
        marks |= {"text": f"marked{secrets.token_hex(10)}".encode(), "bytes": b"\xf0\x9f" + secrets.token_bytes(20)}
        marks["numbers"] = np.random.default_rng(7).normal(size=4).astype("<f8").tobytes()
        stage.found()
        yield from at_the_exchange(stage, marks, quick)
        with Hostile(stage) as hostile:
            yield from inside_tls(stage, hostile, marks)
