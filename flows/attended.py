"""A process that ends with whoever started it, however that one ends: `python -m isthmus.flows.attended WORDS …`.

Its standard input is a pipe from the parent. At the pipe's end it is told to stop as by SIGTERM, and is gone soon
after. With ``prefect-server HOST PORT`` it is a whole Prefect server, otherwise the `isthmus` command of these
words.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import time

STOP_S = 30.0
COLLECT_S, WHOLE = 1.0, 30  # how often garbage is looked for, and how often in all that there is


def main(words: list[str]) -> None:
    """Run until done, or until the parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if words[:1] == ["prefect-server"]:
        _serve_prefect(words[1], int(words[2]))
        return
    from .cli import main as command

    command(words)


def _serve_prefect(host: str, port: int) -> None:
    import uvicorn

    gc.disable()
    threading.Thread(target=_collect_garbage, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host=host,
        port=port,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=3,
    )


def _collect_garbage() -> None:
    """Away from the thread of the event loop, which otherwise stands still for a minute now and then (seen under load).

    A statement of SQLite among the garbage cannot go before its connection is at rest. That one may be waiting, for up
    to a minute, for a lock whose holder needs the event loop to go on.
    """
    for turn in itertools.count(1):
        time.sleep(COLLECT_S)
        gc.collect(2 if turn % WHOLE == 0 else 1)


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not by sys.stdin, whose lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
