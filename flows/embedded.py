"""A Prefect server of our own, for a machine that has none running: it lives as long as the command that started it.

Prefect can start one by itself, but that one shares the terminal's Ctrl-C, so that a stopped run waits for a dead
server, and it outlives a parent that was killed. This one is in a session of its own and ends when its standard input
does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..parties.errors import InternalError

START_S = 90.0
STOP_S = 2.0  # the runs have been recorded by then; what is left is the server's own tidying


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that is starting or running."""

    url: str
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Wait until it answers; raises `InternalError` if it does not in time."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310  (our own address)
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise InternalError("internal", party="the Prefect server", detail=f"exit code {self.process.poll()}")


@contextmanager
def embedded_server() -> Iterator[EmbeddedServer]:
    """Start a server on a free port of this machine, and stop it at the end. It takes seconds: see `wait`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "isthmus.flows.embedded", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
    )
    try:
        yield EmbeddedServer(f"http://127.0.0.1:{port}/api", process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


def main() -> None:
    """Be the server."""
    import uvicorn

    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="critical",
        lifespan="on",
    )


if __name__ == "__main__":
    main()
