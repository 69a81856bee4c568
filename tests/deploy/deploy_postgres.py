"""`make demo-postgres`: the consortium of docs/deploy.md, made by that page's blocks alone, on Debian's PostgreSQL.

1. Five machines out of Linux namespaces (`machines`): members reach the server and nobody else.
2. Every block of the page that is to be rehearsed is typed where the page says, as whom it says, in its order. Names
   are replaced (MEMBER), and at the lab strings are planted: in the data file's name, the SQL, a column and its values,
   an identifier and a number. A block that fails ends the demo.
3. The page's job is submitted and ends well. Then lab's SQL fails with a planted text, and lab's data file is none (of
   which DuckDB says the path): the same job ends with an error, and goes on once that is mended.
4. All that was written meanwhile on the server (PostgreSQL, as a dump and as it lies on the disk; the exchange's log)
   and on the hub (home, runs, logs), and all that lab's worker keeps, is searched for the planted strings. That they
   were within reach is seen in lab's model and vault.log.

Needs root, and Debian's `postgresql` and `nginx-light`. It took ten minutes on two cores that were busy with other
things. The last line is JSON; exit code 1 if anything was found, or anything that should have failed did not.
KEEP_LOGS=FOLDER keeps the services' logs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machines import Machines, missing
from page import PAGE, Block, blocks, of_section
from planted import FAILS, HOME, IN_LABS, PATH, SQL, make_data, reached, search, written

MEMBERS = ("hub", "insurer", "lab", "clinic")
PARTIES = ("insurer", "lab", "clinic")
HOSTS = ("relay.example.org", "prefect.example.org")
SIGNED = "/srv/consortium/mortality.signed.yaml"


class Rehearsal:
    """The page, typed at the machines."""

    def __init__(self, machines: Machines) -> None:
        self.machines, self.page = machines, blocks(PAGE.read_text(encoding="utf-8"))
        self.typed: list[Block] = []
        self.planted: set[str] = set()
        self.read_out = ""  # the digest, by the member who was telephoned
        self.began = time.monotonic()

    def section(self, number: int, upto: str | None = None, after: str | None = None) -> str:
        """Type a section's blocks, or those of it up to or after the one that holds a text; what they said."""
        made = of_section(self.page, number)
        if not made:
            raise RuntimeError(f"the page has no blocks in section {number}")
        if after is not None:
            made = made[_place(made, after) + 1 :]
        if upto is not None:
            made = made[: _place(made, upto) + 1]
        return "".join(self.type(block) for block in made)

    def type(self, block: Block) -> str:
        """Type one block at each of its machines."""
        self.typed.append(block)
        if not block.rehearsed:
            return ""
        said = ""
        for machine in block.machines:
            began = time.monotonic()
            done = self.machines.run(
                machine, self._here(block, machine), user=block.user, said=self._heard(block), timeout_s=400
            )
            said += done.stdout + done.stderr
            if found := re.search(r"^ +digest ([0-9a-f]{64})$", done.stdout, re.MULTILINE):
                self.read_out = found[1]
            shown = next((line for line in block.text.splitlines()[1:] if not line.startswith("set -a")), "")
            self.say(f"{machine:<8} {block.user:<17} {shown[:92]}   {time.monotonic() - began:.1f} s")
        return said

    def say(self, text: str) -> None:
        """To whoever looks on."""
        print(f"{time.monotonic() - self.began:6.1f}  {text}", file=sys.stderr, flush=True)

    def _here(self, block: Block, machine: str) -> str:
        text = block.text.replace("MEMBER=lab", f"MEMBER={machine}")
        if machine == "lab":
            for old, new in IN_LABS.items():
                if old in text:
                    text = text.replace(old, new)
                    self.planted.add(old)
        return text

    def _heard(self, block: Block) -> str:
        """What is typed when a block asks: the digest by voice, or the auth string."""
        if " DIGEST\n" in block.text:
            return self.read_out + "\n"
        if " AUTH\n" in block.text:
            return self.auth() + "\n"
        return ""

    def auth(self) -> str:
        """The auth string, as the server's administrator reads it."""
        (found,) = re.findall(r"AUTH_STRING=(.+)", self.machines.path("server", "/etc/isthmus/prefect.env").read_text())
        return str(found)

    def submit(self) -> tuple[float, int, str]:
        """Start the page's job again, as the page does; seconds, exit code, what was said."""
        (block,) = (one for one in of_section(self.page, 7) if one.text.endswith(f"submit {SIGNED}\n"))
        began = time.monotonic()
        done = self.machines.run("insurer", block.text, user=block.user, check=False, timeout_s=400)
        return time.monotonic() - began, done.returncode, done.stdout + done.stderr

    def wait_for_all(self) -> None:
        """Until `isthmus status` shows every member online."""
        look = "set -a; . /etc/isthmus/worker.env; set +a; isthmus status --json"
        until = time.monotonic() + 180
        while True:
            done = self.machines.run("hub", look, user="isthmus-worker", check=False)
            members = json.loads(done.stdout)["members"] if done.returncode == 0 else []
            if sorted(one["member"] for one in members if one["online"]) == sorted(MEMBERS):
                return
            if time.monotonic() > until:
                raise RuntimeError(f"not all members came online: {done.stdout}{done.stderr}")
            time.sleep(1)


def fresh_database(machines: Machines) -> str:
    """What `apt-get install postgresql` leaves behind: a running cluster. Its version."""
    version = max(os.listdir("/usr/lib/postgresql"), key=int)
    machines.run(
        "server",
        f"rm -rf /etc/postgresql/{version}/main /var/lib/postgresql/{version}/main /var/log/postgresql/*\n"
        f"pg_createcluster {version} main --start",
    )
    return machines.run("server", "runuser -u postgres -- psql -Atc 'SHOW server_version'").stdout.strip()


def fail_and_mend(rehearsal: Rehearsal) -> dict[str, str]:
    """Have the job fail at lab, by its SQL and by a file that is no database; the codes it ended with."""
    machines, home = rehearsal.machines, f"{HOME}/lab"
    party = machines.path("lab", f"{home}/party.yaml")
    well = party.read_text()
    codes = {}
    assert SQL in well
    party.write_text(well.replace(SQL, FAILS))
    codes["sql"] = _code(rehearsal.submit())
    party.write_text(well)
    machines.run(
        "lab",
        f"cd {home}; mv {PATH}.duckdb away; head -c 20000 /dev/zero | tr '\\0' x > {PATH}.duckdb; chmod 644 *.duckdb",
    )
    codes["file"] = _code(rehearsal.submit())
    machines.run("lab", f"mv {home}/away {home}/{PATH}.duckdb")
    return codes


def demo(machines: Machines, folder: Path) -> dict[str, Any]:
    """All of it; what is printed at the end."""
    since = time.time() - 1
    rehearsal = Rehearsal(machines)
    version = fresh_database(machines)
    world = make_data(folder / "data")
    for number in (1, 2):
        rehearsal.section(number)
    for party in PARTIES:
        machines.run(party, "mkdir -m 700 /srv/export")
        name = PATH if party == "lab" else party
        shutil.copy(world.homes / party / f"{party}.duckdb", machines.path(party, f"/srv/export/{name}.duckdb"))
    for number in (3, 4, 5):
        rehearsal.section(number)
    rehearsal.section(6, upto="systemctl enable")
    rehearsal.wait_for_all()
    status = rehearsal.section(6, after="systemctl enable")
    began = time.monotonic()
    said = rehearsal.section(7, upto=f"isthmus submit {SIGNED}\n")
    job_s = time.monotonic() - began
    codes = fail_and_mend(rehearsal)
    mended_s, code, words = rehearsal.submit()
    said += words
    rehearsal.section(7, after=f"isthmus submit {SIGNED}\n")
    for number in (8, 9, 10, 11, 12):
        rehearsal.section(number)
    log = machines.path("server", "/var/log/services/isthmus-exchange.log")
    _until(lambda: "roster is now version 3" in log.read_text())
    backup = machines.run("lab", "tar --list --gzip --file /var/backups/isthmus-lab.tar.gz").stdout.split()
    own = "curl --silent --output /dev/null --write-out %{http_code} --cacert /etc/isthmus/prefect.crt"
    ui = machines.run("lab", "curl --silent --cacert /etc/isthmus/prefect.crt https://prefect.example.org/ui-settings")
    events = machines.path("server", "/var/log/nginx/isthmus.access.log").read_text()
    unknown = machines.run("lab", f"{own} https://prefect.example.org/api/work_pools/isthmus").stdout
    worker_reads = (
        machines.run("lab", f"cat {HOME}/lab/identity.key", user="isthmus-worker", check=False).returncode == 0
    )
    reports = list(machines.path("hub", "/var/lib/isthmus/runs").glob("*/report.html"))

    time.sleep(8)  # the server writes events down some seconds late
    places = dict(written(machines, since))
    places["what people saw"] = (said + status).encode()
    found = search(places)
    within_reach = reached(machines)
    checks = {
        "every block was typed": rehearsal.typed == rehearsal.page,
        "all plants were planted": rehearsal.planted == set(IN_LABS),
        "all members were online": "offline" not in status and "clinic" in status,
        "the job failed where it should": codes == {"sql": "data.sql", "file": "data.file_invalid"},
        "the job ended well once that was mended": code == 0,
        "the hub has a report": len(reports) > 0,
        "the plants were within reach": all(within_reach.values()),
        "nothing was found": not found,
        "the backup holds the state and no private key": "lab/state.duckdb" in backup
        and not any(name.endswith(".key") or PATH in name for name in backup),
        "without the auth string nobody is answered": unknown == "401",
        "the UI is told the server's public address": json.loads(ui.stdout)["api_url"] == f"https://{HOSTS[1]}/api",
        "events pass the proxy by WebSocket": '" 101 ' in events,
        "lab's worker cannot read lab's key": not worker_reads,
        "the exchange follows the roster": True,  # `_until` raises otherwise
    }
    return {
        "ok": all(checks.values()),
        "postgresql": version,
        "blocks": len(rehearsal.typed),
        "not_rehearsed": [
            f"{block.section}: {block.text.splitlines()[1]}" for block in rehearsal.page if not block.rehearsed
        ],
        "job_s": round(job_s, 1),
        "mended_s": round(mended_s, 1),
        "codes": codes,
        "reached": within_reach,
        "searched_files": len(places),
        "searched_mb": round(sum(map(len, places.values())) / 1e6, 1),
        "found": found,
        "failed_checks": [name for name, well in checks.items() if not well],
        "seconds": round(time.monotonic() - rehearsal.began),
    }


def _place(made: list[Block], text: str) -> int:
    return next(number for number, block in enumerate(made) if text in block.text)


def _code(submitted: tuple[float, int, str]) -> str:
    _, code, said = submitted
    word = re.search(r"error\[([a-z_.]+)\]", said)
    return word[1] if word and code else f"ended with {code}: {said}"


def _until(ask: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > until:
            raise RuntimeError("it did not happen in time")
        time.sleep(0.5)


def keep_logs(machines: Machines, folder: Path) -> None:
    """Copy what the services have said."""
    for name in ("server", *MEMBERS):
        logs = machines.path(name, "/var/log/services")
        if logs.exists():
            shutil.copytree(logs, folder / name, dirs_exist_ok=True)


def main() -> int:
    """Make the machines, run the demo, print its JSON."""
    lacks = missing() + [program for program in ("nginx", "pg_createcluster") if not shutil.which(program)]
    if lacks:
        print(
            f"make demo-postgres needs {', '.join(lacks)}: root, and apt-get install postgresql nginx-light",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the machines away, as Ctrl-C does
    with (
        tempfile.TemporaryDirectory(prefix="isthmus-deploy-") as folder,
        Machines(Path(folder), MEMBERS, HOSTS) as machines,
    ):
        try:
            outcome = demo(machines, Path(folder))
        finally:
            if keep := os.environ.get("KEEP_LOGS"):
                keep_logs(machines, Path(keep))
    print(json.dumps(outcome))
    return 0 if outcome["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
