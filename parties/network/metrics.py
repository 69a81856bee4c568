"""What an exchange counts, shown to Prometheus; and whether it is well. On loopback only: numbers tell who works.

Counting costs two additions a frame: the figures are put into Prometheus' form when it asks.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..errors import InputError

LANES = ("fast", "bulk")


class LaneFigures:
    """What passed on one lane."""

    def __init__(self) -> None:
        self.connections = 0
        self.frames = 0
        self.nbytes = 0
        self.waiting_nbytes: Callable[[], int] = int  # of frames in outboxes


class Figures(Collector):
    """The figures of one exchange; labels are lanes and fixed words, never a member's name or a room."""

    def __init__(self) -> None:
        self.lanes = {lane: LaneFigures() for lane in LANES}
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.roster_version: int | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The figures in Prometheus' form."""
        connections = GaugeMetricFamily("isthmus_exchange_connections", "Streams of members now.", labels=["lane"])
        waiting = GaugeMetricFamily("isthmus_exchange_outbox_bytes", "Bytes that wait for receivers.", labels=["lane"])
        frames = CounterMetricFamily("isthmus_exchange_frames", "Frames passed on.", labels=["lane"])
        nbytes = CounterMetricFamily("isthmus_exchange_frame_bytes", "Bytes passed on.", labels=["lane"])
        for lane, figures in self.lanes.items():
            connections.add_metric([lane], figures.connections)
            waiting.add_metric([lane], figures.waiting_nbytes())
            frames.add_metric([lane], figures.frames)
            nbytes.add_metric([lane], figures.nbytes)
        dropped = CounterMetricFamily("isthmus_exchange_dropped", "Frames not passed on.", labels=["reason"])
        refused = CounterMetricFamily("isthmus_exchange_refused", "Streams refused or cut.", labels=["reason"])
        for family, counts in ((dropped, self.dropped), (refused, self.refused)):
            for reason, count in sorted(counts.copy().items()):
                family.add_metric([reason], count)
        yield from (connections, waiting, frames, nbytes, dropped, refused)
        if self.roster_version is not None:
            version = GaugeMetricFamily("isthmus_exchange_roster_version", "Version of the roster that is followed.")
            version.add_metric([], self.roster_version)
            yield version


class MetricsServer:
    """``/metrics`` and ``/healthz`` over HTTP, in threads of its own.

    `address` is ``127.0.0.1:PORT`` or ``[::1]:PORT``; raises `InputError` ``exchange.invalid`` for one that others
    could reach, and ``exchange.port_taken``. `healthy` is asked for each ``/healthz``: 200, or 503 when it is not.
    """

    def __init__(self, address: str, registry: CollectorRegistry, healthy: Callable[[], bool]) -> None:
        host, port = _loopback(address)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    well = healthy()
                    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
                    self._answer(status, b"ok\n" if well else b"not serving\n", "text/plain")
                else:
                    self._answer(HTTPStatus.NOT_FOUND, b"/metrics or /healthz\n", "text/plain")

            def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Every scrape would be a line."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            self._server = Server((host, port), Handler)
        except OSError as failure:
            raise InputError("exchange.port_taken", address=address, detail=str(failure)) from failure
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _loopback(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        number = int(port)
        if not ip.is_loopback or not 0 <= number <= 65535:
            raise ValueError("not on loopback")
    except ValueError as failure:
        problem = f"'{address}' is not a loopback address with a port, such as 127.0.0.1:9464"
        raise InputError("exchange.invalid", field="metrics", problem=problem) from failure
    return str(ip), number
