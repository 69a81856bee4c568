"""The rehearsal as people run it: through Prefect, with real vault processes."""

from __future__ import annotations

import json
from typing import Any

from isthmus.flows.rehearsal import BANNER
from isthmus.flows.schema_of import describe, schema_text
from isthmus.parties.home import PartyHome

from .conftest import Server


def test_the_command_runs_a_whole_job_from_a_home_and_a_schema_file(world: Any, server: Server) -> None:
    schema = schema_text(describe(PartyHome(world.homes / "lab")))
    (world.folder / "lab.schema.yaml").write_text(schema)
    (world.homes / "lab").rename(world.folder / "elsewhere")
    words = ["rehearse", str(world.job_file()), "--schemas", ".", "--rows", "120"]
    done = world.command(*words, env={**server.env, "TMPDIR": str(world.folder)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(BANNER) == 2
    assert "together, no row shared" in done.stdout
    assert "in lab's party.yaml" in done.stdout
    assert not list(world.folder.glob("isthmus-rehearsal-*"))
    (summary,) = (world.folder / "rehearsals").glob("rehearsal-test-job-*/summary.json")
    assert json.loads(summary.read_text())["rehearsal"] == BANNER
