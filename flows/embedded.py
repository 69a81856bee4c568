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

from ..parties.errors import InternalError

START_S = 90.0
STOP_S = 5.0


@contextmanager
def embedded_server() -> Iterator[str]:
    """Start a server on a free port of this machine; yields its API's address and stops it at the end.

    Raises `InternalError` if it does not answer in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "isthmus.flows.embedded", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
    )
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310  (our own address)
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise InternalError("internal", party="the Prefect server", detail=f"exit code {process.poll()}")


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
