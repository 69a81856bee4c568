"""A small consortium, a job file, and the commands `sign`, `approve` and `pause` as people call them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App

from isthmus.flows.cli_starts import approve, pause, sign
from isthmus.parties.certificate import make_certificate
from isthmus.parties.consortium import accept
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.roster import Roster

from ...kept_open import make_state
from .at_the_lab import EXAMPLES, PLANTED

POLICY = {"starts": {"insurer": {"vertical": "4 per day"}}, "approve": ["vertical"]}

app = App(result_action="return_value")
for command in (sign, approve, pause):
    app.command(command)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An insurer and a lab in one consortium, and a clinic in none."""
    homes = tmp_path_factory.mktemp("founded")
    members, identities = {}, {}
    for name, policy in (("insurer", {}), ("lab", POLICY), ("clinic", {})):
        (homes / name).mkdir()
        (homes / name / "party.yaml").write_text(yaml.safe_dump({"name": name, "policy": policy}))
        if name != "clinic":
            identities[name] = Identity(PartyHome(homes / name))
            members[name] = {
                "role": "party",
                "key": identities[name].public.hex(),
                "certificate": make_certificate().certificate.decode(),
                "until": date.today() + timedelta(days=100),
            }
    roster = Roster.model_validate({"consortium": "heart", "version": 1, "threshold": 2, "members": members})
    signatures = {name: identity.sign(roster.canonical()).hex() for name, identity in identities.items()}
    roster = roster.model_copy(update={"signatures": signatures})
    for name in identities:
        accept(homes / name, roster, roster.digest())
    make_state(homes / "lab")
    return homes


@pytest.fixture
def homes(tmp_path: Path, founded: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(founded, tmp_path / "homes"))


@pytest.fixture
def isthmus(homes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command; returns what it printed. `answer` sits at a terminal and types."""
    monkeypatch.chdir(homes.parent)

    def call(*words: str, answer: str | None = None) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO() if answer is None else _Terminal(answer))
        app([*words, "--homes", str(homes)], exit_on_error=False, print_error=False)
        return capsys.readouterr().out

    return call


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    content = yaml.safe_load((EXAMPLES / "vertical.yaml").read_text())
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**content, "purpose": PLANTED}, sort_keys=False))
    return path


@pytest.fixture
def signed(isthmus: Callable[..., str], job_file: Path) -> dict[str, Any]:
    isthmus("sign", str(job_file), "--as", "insurer")
    content: dict[str, Any] = yaml.safe_load((job_file.parent / "job.signed.yaml").read_text())
    return content
