"""`isthmus exchange start`: serve as the relay between the members of a consortium, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json as json_module
import logging
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import App, Parameter

from ..parties.errors import InputError

if TYPE_CHECKING:
    from ..parties.network.exchange import Admitted
    from ..parties.roster import Roster

_FILES = ("exchange.yaml", "tls.crt", "tls.key")
_STOP_S = 1.0  # what streams have to end when the exchange is told to stop
_log = logging.getLogger(__name__)

exchange = App(name="exchange", help="The relay that members of a consortium connect out to.")


@exchange.command
def start(
    *,
    folder: Path = Path("exchange"),
    json: Annotated[bool, Parameter(negative="", help="Print the line that says it serves as JSON.")] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C. It keeps nothing on disk, can read nothing, and may be started again at any time.

    The folder holds exchange.yaml, tls.key and tls.crt (`isthmus init exchange`) and the roster that was accepted there
    (`isthmus consortium accept`), which is followed as it changes. Its log, on stderr, names members, runs' rooms and
    counts.

    Example: isthmus exchange start --folder exchange

    Parameters
    ----------
    folder
        Where the exchange keeps its files.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("isthmus" if __name__.startswith("isthmus") else __name__).setLevel(logging.INFO)
    asyncio.run(_serve(folder, json=json))


async def _serve(folder: Path, *, json: bool) -> None:
    from pydantic import BaseModel, ConfigDict

    from ..parties.certificate import fingerprint
    from ..parties.consortium import Consortium, check_certificate
    from ..parties.home import read_certificate, read_private
    from ..parties.network.exchange import Exchange
    from ..parties.network.metrics import MetricsServer
    from ..parties.roster import Name
    from ..parties.strict_yaml import read_part

    class Configuration(BaseModel):
        """The content of exchange.yaml."""

        model_config = ConfigDict(extra="forbid")

        name: Name
        listen: str
        metrics: str | None = None

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    configured, at, secret = (folder / file for file in _FILES)
    try:
        configuration = read_part(Configuration, configured)
    except InputError as error:
        problem = str(error.facts.get("problem", "there is no such file that can be read"))
        field = str(error.facts.get("field", error.facts.get("file")))
        raise InputError("exchange.invalid", where=str(configured), field=field, problem=problem) from error
    name = configuration.name
    certificate, key = read_certificate(at, name), read_private(secret, name)
    followed = FollowedRoster(folder)
    entry = Consortium(followed.roster, name).exchange(name)
    check_certificate(entry.certificate.encode(), certificate, key, party=name)
    relay = Exchange(listen=configuration.listen, certificate=certificate, key=key, admitted=followed)
    with contextlib.ExitStack() as ends:
        if configuration.metrics:
            ends.callback(MetricsServer(configuration.metrics, relay.figures.registry, relay.healthy).close)
        _allow_connections()
        port = await relay.start()
        address = f"{configuration.listen.rpartition(':')[0]}:{port}"
        members = tuple(sorted(set(followed.roster.members) - followed.roster.revoked))
        _say(_Serving(name, address, fingerprint(certificate), followed.roster.version, members), json=json)
        await relay.serve_until(stopped.wait(), _STOP_S)


def _allow_connections() -> None:
    """Take as many open files as the system lets us: each connection is one, also of whoever never says a word."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class FollowedRoster:
    """The roster that a folder has accepted, read again whenever its files change: who may use the exchange now.

    A new one that cannot be believed, or is an older version, leaves the one before in force, and is logged. Raises
    `InputError` ``roster.not_pinned`` and those of `consortium.pinned` when there is none to begin with.
    """

    def __init__(self, folder: Path) -> None:
        from ..parties.home import PIN_FILE, ROSTER_FILE

        self._folder, self._files = folder, (folder / ROSTER_FILE, folder / PIN_FILE)
        self._seen = self._look()
        self.roster = self._read()

    def __call__(self) -> Admitted:
        """Who may use the exchange now."""
        from ..parties.network.exchange import Admitted

        if (seen := self._look()) != self._seen:
            self._seen = seen
            self._follow()
        now, members = datetime.now(UTC), self.roster.members
        return Admitted(
            members={name: member.certificate.encode() for name, member in members.items()},
            revoked=self.roster.revoked,
            expired=frozenset(name for name, member in members.items() if member.expired(now)),
            version=self.roster.version,
        )

    def _follow(self) -> None:
        try:
            roster = self._read()
        except InputError as error:
            _log.error("the roster is not taken, version %d stays: %s", self.roster.version, error)
            return
        if roster.version < self.roster.version:
            _log.error(
                "the roster in %s is version %d, and %d stays", self._folder, roster.version, self.roster.version
            )
        elif roster.digest() != self.roster.digest():
            _log.info("the roster is now version %d", roster.version)
            self.roster = roster

    def _read(self) -> Roster:
        from ..parties.consortium import pinned

        roster = pinned(self._folder)
        if roster is None:
            raise InputError("roster.not_pinned", party=self._folder.name)
        return roster

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when one of the files does."""
        return tuple(_mark(file) for file in self._files)


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class _Serving(NamedTuple):
    """What whoever starts an exchange is told."""

    exchange: str
    address: str
    certificate: str
    roster: int
    members: tuple[str, ...]


def _say(serving: _Serving, *, json: bool) -> None:
    line = (
        json_module.dumps(serving._asdict())
        if json
        else (
            f"exchange {serving.exchange} serves on {serving.address}, certificate {serving.certificate}, "
            f"roster {serving.roster}, members: {', '.join(serving.members)}"
        )
    )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
