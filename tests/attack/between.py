"""A real Prefect server, and a proxy in front of it that can bend every answer: a hostile server that knows all of it.

Websockets, by which Prefect's events travel, are passed on as they are.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
from hostile_prefect import FINAL

# What a worker or a coordinating flow of ours has no business with: there, code and secrets would come from.
STRANGE = re.compile(
    r"/(block_\w+|variables|admin/storage|admin/settings|saved_searches|ui)\b|/storage\b|filesystem|download"
)
Bend = Callable[[str, str, Any], Any]


class RealPrefect:
    """A Prefect server of its own in `folder`, on `port`. Use as a context manager."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder / "prefect-server", port
        self.folder.mkdir()
        self.database = self.folder / "prefect.db"
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)

    def __enter__(self) -> Self:
        environment = {**os.environ, "PREFECT_HOME": str(self.folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        environment |= {"DO_NOT_TRACK": "1", "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}
        words = [sys.executable, "-P", "-m", "isthmus.flows.attended", "prefect-server", "127.0.0.1", str(self.port)]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + 180
        while True:
            try:
                if self._client.get("/health").status_code == 200:
                    return self
            except httpx.HTTPError:
                assert time.monotonic() < until and self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.3)

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait(20)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the attacker's, who has every right at the server; SQLite under load answers 503 now and then."""
        until = time.monotonic() + 90
        while True:
            answer = self._client.request(method, path, json=body)
            if answer.status_code < 500 or time.monotonic() > until:
                assert answer.is_success, (method, path, answer.text[:500])
                return answer.json() if answer.content else None
            time.sleep(0.5)

    def deployment(self, name: str) -> str:
        """The id of a deployment, by FLOW/NAME."""
        found: str = self.ask("GET", f"/deployments/name/{name}")["id"]
        return found

    def start(self, name: str, parameters: Any, **more: Any) -> str:
        """Start a run of a deployment; `more` stands beside its parameters."""
        path = f"/deployments/{self.deployment(name)}/create_flow_run"
        run: str = self.ask("POST", path, {"parameters": parameters, "enforce_parameter_schema": False, **more})["id"]
        return run

    def ended(self, run: str, seconds: float = 180) -> tuple[str, str]:
        """Wait for a run's end: the type of its state, and what it says."""
        until = time.monotonic() + seconds
        while (state := self.ask("GET", f"/flow_runs/{run}")["state"])["type"] not in FINAL:
            assert time.monotonic() < until, state
            time.sleep(0.3)
        return state["type"], state.get("message") or ""


class Between:
    """A proxy to a server. `bend` gets method, path and an answer's JSON, and says what is answered instead."""

    def __init__(self, port: int, own_port: int = 0) -> None:
        self.bend: Bend | None = None
        self.bent = 0
        self.asked: set[str] = set()
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                between.asked.add(f"{self.command} {self.path}")
                (between._tunnel if self.headers.get("Upgrade") else between._pass)(self, port)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", own_port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def strange(self) -> list[str]:
        """What was asked that could bring code or secrets."""
        return sorted(asked for asked in self.asked if STRANGE.search(asked))

    def _pass(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        kept = {
            name: value for name, value in handler.headers.items() if name.lower() not in ("host", "accept-encoding")
        }
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(handler.command, handler.path, body or None, kept)
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
        connection.close()
        if self.bend is not None:
            status, content = self._bent(handler, status, content)
        handler.send_response(status)
        handler.send_header("Content-Type", answer.getheader("Content-Type") or "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _bent(self, handler: BaseHTTPRequestHandler, status: int, content: bytes) -> tuple[int, bytes]:
        assert self.bend is not None
        try:
            true = json.loads(content) if content else None
        except ValueError:
            true = content.decode(errors="replace")
        said = self.bend(handler.command, handler.path, true)
        if said is None or said == true:
            return status, content
        self.bent += 1
        return (200 if status == 404 else status), said.encode() if isinstance(said, str) else json.dumps(said).encode()

    def _tunnel(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as real:
            lines = [f"{handler.command} {handler.path} HTTP/1.1", *(f"{n}: {v}" for n, v in handler.headers.items())]
            real.sendall("\r\n".join([*lines, "", ""]).encode())
            ends = {handler.connection: real, real: handler.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    if not (piece := end.recv(65536)):
                        handler.close_connection = True
                        return
                    ends[end].sendall(piece)
