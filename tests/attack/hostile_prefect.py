"""A hostile Prefect server: it speaks what our worker asks, and every answer carries poison beside the truth.

`script` may answer anything else instead, or write bytes that are no HTTP. What was asked is kept.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from uuid import uuid4

from poison import Poison

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
_ID = r"[0-9a-f-]{36}"
# All that our worker asks of a server, and nothing else: a block, a variable or a file would be strange.
KNOWN = re.compile(
    rf"/api/(flow_runs/filter|work_pools/isthmus-[a-z]+/(get_scheduled_flow_runs|workers/heartbeat|workers/[^/]+)"
    rf"|flow_runs/{_ID}(/set_state|/input(/isthmus-events-\d+)?)?|task_runs/({_ID}/set_state)?|events"
    rf"|csrf-token\?client={_ID})"
)


@dataclass
class Run:
    """A run as this server has it, and what it was told of it."""

    pool: str
    parameters: Any
    more: dict[str, Any]
    state: str = "SCHEDULED"
    message: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)


Script = Callable[[str, str, Any, "socket.socket"], bytes | None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a worker that has hung up


class HostilePrefect:
    """Use as a context manager. `script` gets method, path, body and the connection: bytes are the whole answer as it
    is written, None leaves it to the server; a script may also write by itself and raise `ConnectionError`.
    """

    def __init__(self, poison: Poison, port: int = 0) -> None:
        self.poison, self.runs = poison, dict[str, Run]()
        self.script: Script | None = None
        self.asked: list[str] = []
        self.passwords: set[str] = set()
        self._turn = threading.RLock()
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                hostile._serve(self)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what the attacker does --------------------------------------------------------------------------------------

    def put(self, member: str, parameters: Any, **more: Any) -> str:
        """Have a run wait in a member's pool; `more` stands beside it."""
        run = str(uuid4())
        with self._turn:
            self.runs[run] = Run(f"isthmus-{member}", parameters, more)
        return run

    def ended(self, run: str, seconds: float = 60) -> Run:
        """Wait for a run's end."""
        until = time.monotonic() + seconds
        while self.runs[run].state not in FINAL:
            assert time.monotonic() < until, self.runs[run]
            time.sleep(0.05)
        return self.runs[run]

    def strange(self) -> list[str]:
        """What was asked that our worker has no business with."""
        return sorted({asked for asked in self.asked if not KNOWN.fullmatch(asked.partition(" ")[2])})

    # --- what it answers ---------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        text = handler.rfile.read(length)
        body = json.loads(text) if text else None
        self.asked.append(f"{handler.command} {handler.path}")
        self.passwords.add(handler.headers.get("Authorization") or "")
        if self.script is not None:
            try:
                said = self.script(handler.command, handler.path, body, handler.connection)
            except OSError:
                handler.close_connection = True
                return
            if said is not None:
                handler.wfile.write(said)
                handler.close_connection = True
                return
        with self._turn:
            status, answer = self._answer(handler.command, handler.path.removeprefix("/api"), body)
        content = b"" if answer is None else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path == "/flow_runs/filter":
            return 200, self._filtered(body)
        if path.endswith("/get_scheduled_flow_runs"):
            return 200, [{"work_pool_id": str(uuid4()), "flow_run": self._shown(run)} for run in self._due(parts[1])]
        if parts[0] == "flow_runs" and parts[-1] == "set_state":
            return 200, self._set(parts[1], body["state"])
        if parts[0] == "flow_runs" and len(parts) == 3 and method == "POST":
            self.runs[parts[1]].inputs[body["key"]] = body["value"]
            return 201, None
        if parts[0] == "task_runs":
            return 201, {**self.poison.words(), "id": str(uuid4()), "state": {**self.poison.state(), "type": "PENDING"}}
        return 200, self.poison.words()

    def _filtered(self, body: Any) -> list[dict[str, Any]]:
        asked = body.get("flow_runs", {}).get("id", {}).get("any_")
        if asked is not None:
            return [self._shown(run) for run in asked if run in self.runs]
        return [self._shown(run) for run in self._due(body["work_pools"]["name"]["any_"][0])][:1]

    def _due(self, pool: str) -> list[str]:
        return [run for run, of in self.runs.items() if of.pool == pool and of.state == "SCHEDULED"]

    def _shown(self, run: str) -> dict[str, Any]:
        of = self.runs[run]
        state = {**self.poison.state(), "type": of.state}
        given = {"id": run, "flow_id": str(uuid4()), "parameters": of.parameters, "state": state}
        return {**self.poison.words(), **given, **of.more}

    def _set(self, run: str, state: dict[str, Any]) -> dict[str, Any]:
        of = self.runs[run]
        of.history.append(state["type"])
        of.state, of.message = state["type"], state.get("message") or ""
        return {"status": "ACCEPT", "state": {**self.poison.state(), "type": of.state}, "details": self.poison.words()}
