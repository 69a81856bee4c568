"""Answers of a hostile Prefect server, at a real worker: what they make of its memory, its time, its password."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from hostile_prefect import HostilePrefect, Script
from score import Score
from workshop import PASSWORD, Workshop, memory_mib, wait_for

from isthmus.flows.workers.wire import ANSWER_S, MOST_NBYTES

LIE_S = 1.5
MOST_MORE_MIB = 256.0  # an answer of 4 MiB, and what its parsing takes at worst


def _http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _always(says: bytes) -> Script:
    return lambda *_: says


def _json(value: Any) -> Script:
    return _always(_http(json.dumps(value).encode()))


class Elsewhere:
    """Another host, which should never be asked anything: where redirects lead."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        elsewhere = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                elsewhere.asked.append(f"{self.command} {self.path} {self.headers.get('Authorization')}")
                self.send_response(200)
                self.end_headers()

            do_GET = do_POST = do_PATCH = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def reached(self) -> bool:
        """Whether it answers at all."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        connection.request("GET", "/control")
        return connection.getresponse().status == 200 and bool(self.asked)


class Lies:
    """One lie after the other to lab's worker; after each it has to do what it is told next."""

    def __init__(self, shop: Workshop, server: HostilePrefect) -> None:
        self._shop, self._server = shop, server
        self.worker = shop.worker("lab", server.url)
        assert self.next_is_done(60)

    def next_is_done(self, seconds: float) -> bool:
        """Whether an order that is none is answered."""
        run = self._server.put("lab", {"order": None})
        return bool(wait_for(lambda: "order.invalid" in self._server.runs[run].message, seconds))

    def lie(self, score: Score, name: str, script: Script, *, for_s: float = LIE_S, back_s: float = 15.0) -> None:
        """Lie for a while; the worker must live, take the next order, have grown little, and have asked nothing odd."""
        before, asked = memory_mib(self.worker.pid), len(self._server.asked)
        self._server.script = script
        time.sleep(for_s)
        self._server.script = None
        well = self.worker.poll() is None and self.next_is_done(back_s)
        more = memory_mib(self.worker.pid) - before if self.worker.poll() is None else 0.0
        score.tried += len(self._server.asked) - asked
        wrong = not well or more > MOST_MORE_MIB or bool(self._server.strange()) or bool(self._shop.poison.sung())
        score.got_through += wrong
        if wrong:
            score.told += f"WRONG {name}: alive {well}, +{more:.0f} MiB, strange {self._server.strange()}; "
        score.outcomes[f"{name}: +{more:.0f} MiB" if well else f"{name}: the worker is gone"] += 1


def types(lies: Lies) -> Score:
    """Answers of other types than a Prefect server's."""
    score = Score("answers of wrong types, deep, none, of other statuses, no HTTP at all")
    run = str(uuid4())
    texts: dict[str, bytes] = {
        "empty": b"", "null": b"null", "object": b"{}", "number": b"7", "deep": b"[" * 1_000_000,
        "deep objects": b'{"a":' * 500_000, "pickle": b"\x80\x04\x95\x00.", "not utf-8": b"\xff\xfe\xff",
        "huge number": b"9" * 1_000_000, "html": b"<html>", "NaN": b"[NaN]",
        "no uuid": b'[{"flow_run": {"id": "../../admin", "flow_id": "x"}}]',
        "parameters": json.dumps([{"flow_run": {"id": run, "flow_id": run, "parameters": [1]}}]).encode(),
        "many lists": b"[[" + b"[]," * 1_300_000 + b"[]]]",
        "many": b"[" + b",".join([b'{"flow_run": 1}'] * 200_000) + b"]",
    }  # fmt: skip
    for name, text in texts.items():
        lies.lie(score, name, _always(_http(text)), for_s=0.5)
    for status in (
        "204 No",
        "304 Not",
        "400 Bad",
        "401 No",
        "403 No",
        "404 No",
        "418 Tea",
        "429 Many",
        "500 X",
        "503 X",
    ):
        lies.lie(score, status, _always(_http(b"", status)), for_s=0.5)
    for status in ("403 CSRF token", "503 X"):
        headers = ("Prefect-Maintenance: true", "Retry-After: 1000000")
        body = b"Invalid CSRF token"
        lies.lie(score, f"{status} for ever", _always(_http(body, status, *headers)))
    for says in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", bytes(range(256)) * 99):
        lies.lie(score, repr(says[:12]), _always(says), for_s=0.5)
    score.control = True  # each lie has shown that the next order is taken
    return score


def random_answers(lies: Lies, quick: bool) -> Score:
    """True answers with bytes changed."""
    score, generator = Score("true answers with bytes flipped, cut and put in"), random.Random(7731)
    server = lies._server

    def script(method: str, path: str, body: Any, connection: socket.socket) -> bytes:
        with server._turn:
            status, answer = server._answer(method, path.removeprefix("/api"), body)
        text = bytearray(json.dumps(answer).encode())
        for _ in range(generator.randrange(1, 6)):
            place = generator.randrange(len(text) or 1)
            change = generator.randrange(3)
            if change == 0 and text:
                text[place] = generator.randrange(256)
            elif change == 1:
                del text[place : place + generator.randrange(40)]
            else:
                text[place:place] = generator.choice([b"[", b"{", b'"', b"null", b"\\u0000", b"1e999", b"\x00", b"-"])
        return _http(bytes(text), generator.choice([f"{status} OK", "200 OK", "500 No"]))

    run = server.put("lab", {"order": {}})
    lies.lie(score, "changed", script, for_s=5 if quick else 60)
    score.control = score.tried > 20 and run in server.runs
    return score


def endless(lies: Lies, quick: bool) -> Score:
    """Answers without end, all at once or a byte at a time, and small ones that are huge once unpacked."""
    score = Score("answers without end, that drip, that unpack to a thousand times their size")
    written = [0]

    def flood(_: str, __: str, ___: Any, connection: socket.socket) -> bytes:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)
            written[0] += 65536

    def drip(head: bytes, piece: bytes) -> Script:
        def script(_: str, __: str, ___: Any, connection: socket.socket) -> bytes:
            connection.sendall(head)
            while True:
                connection.sendall(piece)
                time.sleep(0.2)

        return script

    packed = gzip.compress(b" " * 400_000_000)
    for coding in ("gzip", "deflate"):
        lies.lie(score, coding, _always(_http(packed, "200 OK", f"Content-Encoding: {coding}")))
    lies.lie(
        score, "a gigabyte said", _always(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * 9_000_000)
    )
    lies.lie(score, "without end", flood, back_s=ANSWER_S + 20)
    lies.lie(score, "headers", _always(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 500_000))
    drips = [("a byte at a time", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ")]
    if not quick:
        drips.append(("informational for ever", b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
    for name, head, piece in drips:
        lies.lie(score, name, drip(head, piece), back_s=ANSWER_S + 20)
    score.told = f"of a flood {written[0] / 2**20:.0f} MiB were taken; an answer may have {MOST_NBYTES / 2**20:.0f}"
    score.control = written[0] > 0
    return score


def redirects(lies: Lies) -> Score:
    """Redirects to another host, by which a server would have the worker ask within its own network."""
    score, elsewhere = Score("redirects to another host, with the worker's password or without"), Elsewhere()
    for status in ("301 X", "302 X", "303 X", "307 X", "308 X"):
        for place in (f"http://{elsewhere.address}/x", f"//{elsewhere.address}/x", f"http://a:b@{elsewhere.address}/"):
            lies.lie(score, status, _always(_http(b"", status, f"Location: {place}")), for_s=0.4)
    cookie = f"a=b; Domain={elsewhere.address}"
    lies.lie(
        score,
        "cookies",
        _always(_http(b"[]", "200 OK", f"Set-Cookie: {cookie}", f"Link: <http://{elsewhere.address}>")),
    )
    score.got_through += len(elsewhere.asked)
    score.told = f"asked elsewhere: {elsewhere.asked or 'nothing'}"
    score.control = elsewhere.reached() and any(said.startswith("Basic ") for said in lies._server.passwords)
    return score


def run(quick: bool) -> Iterator[Score]:
    with Workshop() as shop, HostilePrefect(shop.poison) as server:
        lies = Lies(shop, server)
        parts: list[Callable[[], Score]] = [
            lambda: types(lies),
            lambda: redirects(lies),
            lambda: random_answers(lies, quick),
            lambda: endless(lies, quick),
        ]
        for part in parts:
            yield part()
        log = shop.said("lab")
        last = Score("the worker's log holds no password and no trace of an exception")
        last.tried, last.control = log.count("\n"), "no orders" in log
        last.got_through = log.count("Traceback") + log.count(PASSWORD)
        yield last
