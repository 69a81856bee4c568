"""A real Prefect server for the tests of the flows: one a session, in its own folder, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..vertical_world import VerticalWorld
from .plants import VERBOSE, plant


@dataclass(frozen=True)
class Server:
    """Where the server answers, where it keeps its database, and the environment that leads a client to it."""

    url: str
    folder: Path
    env: dict[str, str]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    env = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    program = Path(sys.executable).with_name("prefect")
    words = [str(program), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_answers(url, process)
            yield Server(url, folder, env)
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def seen(
    copies: Callable[..., Any], server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, subprocess.CompletedProcess[str]]:
    """A vertical job with plants in it that went well, and what it printed: run once, looked at by several tests."""
    world = copies(VerticalWorld, tmp_path_factory.mktemp("seen") / "world")
    plant(world, fail=False)
    world.job["name"] = "seen-in-prefect"
    return world, world.command("run", str(world.job_file()), env={**server.env, **VERBOSE})


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the Prefect server did not start")
