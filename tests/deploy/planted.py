"""What is planted at the lab of `deploy_postgres`, and where it is looked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from machines import Machines
from page import ROOT

sys.path.append(str(ROOT))
from tests.flows.plants import PLANTS, found_in, plant
from tests.vertical_world import VerticalWorld

HOME = "/var/lib/isthmus/homes"
PERSONS = 800
PATH = "plantedpath77"
SECRETS = (*PLANTS.values(), PATH)
SQL = f"SELECT * FROM results WHERE '{PLANTS['sql']}' <> ''"
FAILS = f"{SQL} AND (SELECT error('{PLANTS['failure']}' || max(ssn)) FROM results) IS NULL"
IN_LABS = {  # what of the page is planted at lab
    "/srv/export/$MEMBER.duckdb": f"/srv/export/{PATH}.duckdb",
    "data: lab.duckdb": f"data: {PATH}.duckdb",
    "$MEMBER/$MEMBER.duckdb": f"$MEMBER/{PATH}.duckdb",
    "SELECT * FROM results": SQL,
    "columns: [alb, ward]": f"columns: [alb, ward, {PLANTS['column']}]",
}


def make_data(folder: Path) -> VerticalWorld:
    """What the parties' databases export: tables about partly the same patients, with plants in lab's."""
    world = VerticalWorld(folder, PERSONS, passive=("lab", "clinic"))
    plant(world, fail=False)
    world.sql("lab", "ALTER TABLE t RENAME TO results")
    world.sql("insurer", "ALTER TABLE t RENAME TO members")
    world.sql("clinic", "ALTER TABLE t RENAME COLUMN alb TO pressure")
    world.sql("clinic", "ALTER TABLE t RENAME COLUMN ward TO smoker")
    world.sql("clinic", "ALTER TABLE t RENAME TO visits")
    return world


def reached(machines: Machines) -> dict[str, bool]:
    """Whether the plants were where a vault had them in hand."""
    home = machines.path("lab", f"{HOME}/lab")
    parts = b"".join(path.read_bytes() for path in home.glob("models/*/part.safetensors"))
    logs = "".join(path.read_text() for path in home.glob("runs/*/vault.log"))
    return {
        "column": PLANTS["column"].encode() in parts,
        "value": PLANTS["value"].encode() in parts,
        "failure and identifier": PLANTS["failure"] + PLANTS["identifier"] in logs,
        "path": PATH in logs,
    }


def written(machines: Machines, since: float) -> Iterator[tuple[str, bytes]]:
    """All that was written where nothing of a party may be: whole on server and hub, the worker's at lab."""
    dump = machines.run("server", "runuser -u postgres -- pg_dump prefect").stdout
    if "hospital-mortality" not in dump:
        raise RuntimeError("the dump of the database does not hold the job: it would be searched in vain")
    yield "server: pg_dump", dump.encode()
    for machine, folders in (
        ("server", ("etc", "home", "run", "srv", "tmp", "var")),
        ("hub", ("etc", "home", "run", "tmp", "var")),
        ("lab", ("var/lib/isthmus-worker", "var/log/services", "tmp")),
    ):
        root = machines.path(machine, "/")
        for folder in folders:
            for path in (root / folder).rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since:
                    yield f"{machine}: /{path.relative_to(root)}", path.read_bytes()


def search(places: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Where a plant is, in any of its forms."""
    return found_in(places, SECRETS)
