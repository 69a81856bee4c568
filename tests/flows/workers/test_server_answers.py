"""A server that lies in every answer: what is read of it, how much, how long, and where our questions go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from isthmus.flows.workers import wire
from isthmus.flows.workers.server import Server, ServerGoneError
from isthmus.flows.workers.wire import Answer, Wire, WireError

AUTHORIZATION = "Basic c2VjcmV0"
Respond = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def _http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Liar:
    """A server that says `bytes`, or does what a function does; `asked` are the requests as they came."""

    def __init__(self, says: bytes | Respond) -> None:
        self.says, self.asked = says, list[bytes]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            if isinstance(self.says, bytes):
                writer.write(self.says)
                await writer.drain()
            else:
                await self.says(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def ask(says: bytes | Respond, call: Callable[[Server], Awaitable[Any]], *, answer_s: float = 5.0) -> tuple[Any, Liar]:
    """What a call to a server comes to that says this: its value, or its exception."""

    async def whole() -> tuple[Any, Liar]:
        liar = Liar(says)
        listening = await asyncio.start_server(liar, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        headers = {"Authorization": AUTHORIZATION, "Accept-Encoding": "identity"}
        base = f"http://127.0.0.1:{port}/api"
        async with httpx.AsyncClient(base_url=base, headers=headers, follow_redirects=False, trust_env=False) as client:
            server = Server(Wire(client, answer_s=answer_s), patience_s=0)
            try:
                return await call(server), liar
            except ServerGoneError as failure:
                return failure, liar
            finally:
                listening.close()

    return asyncio.run(asyncio.wait_for(whole(), 30))


def scheduled(says: bytes | Respond, **options: Any) -> tuple[Any, Liar]:
    return ask(says, lambda server: server.scheduled("isthmus-lab"), **options)


def test_of_a_run_its_ids_and_parameters_are_read_and_nothing_else_that_the_server_names() -> None:
    run, flow = uuid4(), uuid4()
    poison = {
        "command": "touch /evil/x",
        "entrypoint": "evil.py:flow",
        "pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "touch /evil/x"}}],
        "job_variables": {"env": {"PYTHONPATH": "/evil"}, "image": "evil", "working_dir": "/evil"},
        "infrastructure_document_id": str(uuid4()),
        "storage_document_id": str(uuid4()),
        "state": {"type": "SCHEDULED", "data": {"type": "reference", "storage_key": "/evil/x"}},
    }
    given = {"id": str(run), "flow_id": str(flow), "parameters": {"order": {}}, **poison}
    (one,), _ = scheduled(_http(json.dumps([{"work_pool_id": str(uuid4()), "flow_run": given}]).encode()))
    assert one.model_dump() == {"id": run, "flow_id": flow, "parameters": {"order": {}}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[[]]",
        b"[1]",
        b'"text"',
        b'[{"flow_run": null}]',
        b'[{"flow_run": {"id": "../../admin", "flow_id": "x", "parameters": {}}}]',
        b'[{"flow_run": {"id": 7, "flow_id": [], "parameters": {}}}]',
        json.dumps([{"flow_run": {"id": str(uuid4()), "flow_id": str(uuid4()), "parameters": "x"}}]).encode(),
        json.dumps([{"flow_run": {"id": str(uuid4()), "flow_id": str(uuid4()), "parameters": None}}]).encode(),
        b"[" * 100_000,
        b'[{"flow_run":' * 50_000,
        b"\xff\xfe\x00",
        b'[{"flow_run": {"id": "' + b"9" * 1_000_000 + b'"}}]',
        b"1" * 100_000,
        b"NaN",
        b"<html>",
        b"\x80\x04\x95\x00.",  # what pickle writes
    ],
)
def test_what_is_no_answer_of_a_prefect_server_is_that_and_nothing_else(body: bytes) -> None:
    failure, _ = scheduled(_http(body))
    assert isinstance(failure, ServerGoneError)


@pytest.mark.parametrize("kind", ["PICKLED", "", None, 5, "completed"])
def test_a_state_is_one_of_prefects_types(kind: Any) -> None:
    body = json.dumps([{"id": str(uuid4()), "state": {"type": kind}}]).encode()
    failure, _ = ask(_http(body), lambda server: server.states([uuid4()]))
    assert isinstance(failure, ServerGoneError)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:{port}/elsewhere", "/other", "//evil.example/x", "file:///etc/passwd"]
)
def test_no_redirect_is_followed_and_nobody_else_sees_the_password(status: str, where: str) -> None:
    async def whole() -> tuple[Any, list[bytes]]:
        other = Liar(_http(b"[]"))
        listening = await asyncio.start_server(other, "127.0.0.1", 0)
        place = where.format(port=listening.sockets[0].getsockname()[1])
        failure, liar = await asyncio.to_thread(scheduled, _http(b"", status, f"Location: {place}"))
        listening.close()
        assert len(liar.asked) == 1
        return failure, other.asked

    failure, asked = asyncio.run(whole())
    assert isinstance(failure, ServerGoneError)
    assert asked == []


def test_the_password_goes_to_the_server_of_the_settings() -> None:
    _, liar = scheduled(_http(b"[]"))
    assert AUTHORIZATION.encode() in liar.asked[0]


def test_an_answer_without_end_is_read_up_to_a_bound() -> None:
    written = 0

    async def flood(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
            written += 65536

    failure, _ = scheduled(flood)
    assert isinstance(failure, ServerGoneError)
    assert "too long" in str(failure)
    assert written < wire.MOST_NBYTES + 16 * 1024 * 1024  # what lies in the sockets' buffers


def test_an_answer_that_drips_is_given_up_in_time() -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    failure, _ = scheduled(drip, answer_s=0.5)
    assert isinstance(failure, ServerGoneError)
    assert "too long" in str(failure)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X-A: b\r\n"])
def test_a_head_without_end_is_given_up_too(piece: bytes) -> None:
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    failure, _ = scheduled(drip, answer_s=0.5)
    assert isinstance(failure, ServerGoneError)


def test_a_server_cannot_have_us_wait_for_its_maintenance() -> None:
    """Prefect's own client waits as long as these headers say, again and again."""
    says = _http(b"", "503 Unavailable", "Prefect-Maintenance: true", "Retry-After: 1000000")
    failure, liar = scheduled(says)
    assert "503" in str(failure)
    assert len(liar.asked) == 1


def test_a_server_that_wants_a_token_for_ever_is_asked_three_times() -> None:
    """Prefect's own client asks for a token to ask for a token."""
    failure, liar = scheduled(_http(b'{"detail": "Invalid CSRF token."}', "403 Forbidden"))
    assert isinstance(failure, ServerGoneError)
    assert len(liar.asked) <= 3


def test_a_token_is_got_and_shown_where_a_server_wants_one() -> None:
    async def guarded(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /api/csrf-token?client="):
            writer.write(_http(b'{"token": "abc", "expiration": "2126-01-01T00:00:00Z"}'))
        elif b"prefect-csrf-token: abc" in head.lower():
            writer.write(_http(b"[]"))
        else:
            writer.write(_http(b'{"detail": "Missing CSRF token."}', "403 Forbidden"))
        await writer.drain()

    assert scheduled(guarded)[0] == []


def test_a_token_is_no_way_to_write_headers() -> None:
    async def guarded(head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET"):
            writer.write(_http(b'{"token": "a\\r\\nX-Evil: 1", "expiration": "2126-01-01T00:00:00Z"}'))
        else:
            writer.write(_http(b"CSRF token", "403 Forbidden"))
        await writer.drain()

    failure, liar = scheduled(guarded)
    assert isinstance(failure, ServerGoneError)
    assert not any(b"X-Evil" in head for head in liar.asked)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_nothing_is_unpacked(coding: str) -> None:
    """A thousand times as much may be in it."""
    import gzip

    body = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    failure, _ = scheduled(_http(body, "200 OK", f"Content-Encoding: {coding}"))
    assert isinstance(failure, ServerGoneError)


@pytest.mark.parametrize("charset", ["utf-16", "zlib_codec", "idna", "rot13", "unicode_escape", "nonsense"])
def test_a_text_is_utf_8_whatever_the_server_calls_it(charset: str) -> None:
    says = _http(b"caf\xc3\xa9 \xff", "200 OK", f"Content-Type: text/plain; charset={charset}")
    text, _ = ask(says, lambda server: server.read(uuid4(), "isthmus-events-0"))
    assert text == "café �"


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]x",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        bytes(range(256)) * 20,
    ],
)
def test_bytes_that_are_no_http_are_an_absent_server(says: bytes) -> None:
    failure, _ = scheduled(says, answer_s=2)
    assert isinstance(failure, ServerGoneError)


def test_cookies_that_a_server_sets_are_kept_from_nobody_else_and_break_nothing() -> None:
    answer, _ = scheduled(_http(b"[]", "200 OK", "Set-Cookie: a=b; Domain=evil.example", "Set-Cookie: \x01"))
    assert answer == [] or isinstance(answer, ServerGoneError)


def test_an_answer_is_had_by_its_bytes() -> None:
    async def whole() -> Answer:
        listening = await asyncio.start_server(Liar(_http(b"hello", "404 Not Found")), "127.0.0.1", 0)
        base = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with listening, httpx.AsyncClient(base_url=base, trust_env=False) as client:
            return await Wire(client).request("GET", "/x")

    assert asyncio.run(whole()) == Answer(404, b"hello")


def test_nobody_there_is_a_wire_error() -> None:
    async def whole() -> None:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as client:
            await Wire(client).request("GET", "/x")

    with pytest.raises(WireError, match="ConnectError"):
        asyncio.run(whole())
