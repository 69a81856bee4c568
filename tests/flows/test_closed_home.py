"""A home whose vault is kept by another user than its worker is closed to that user, or the vault does not start."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from isthmus.flows import closed_home
from isthmus.flows.closed_home import require_closed
from isthmus.parties.errors import InputError

STRANGER = 4_000_123  # a number that no user of this machine has


@pytest.fixture
def homes() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def home(homes: Path, mode: int = 0o700, **content: object) -> Path:
    folder = homes / "lab"
    folder.mkdir()
    (folder / "party.yaml").write_text(yaml.safe_dump({"name": "lab", **content}))
    folder.chmod(mode)
    return folder


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        require_closed(folder, {STRANGER})
    return caught.value


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o710, 0o701, 0o704, 0o770, 0o777])
def test_a_home_that_others_can_enter_is_refused_and_the_cure_is_named(homes: Path, mode: int) -> None:
    failure = refused(home(homes, mode))
    assert failure.code == "home.open"
    assert "chmod 700" in failure.next


def test_a_home_for_its_owner_alone_is_fine_whatever_the_modes_within(homes: Path) -> None:
    folder = home(homes, data="lab.duckdb")
    (folder / "lab.duckdb").touch(mode=0o644)
    require_closed(folder, {STRANGER})


@pytest.mark.parametrize(("mode", "open_"), [(0o644, True), (0o604, True), (0o640, False), (0o600, False)])
def test_data_that_lie_elsewhere_are_looked_at_there(homes: Path, mode: int, open_: bool) -> None:
    (homes / "rows.duckdb").touch()
    (homes / "rows.duckdb").chmod(mode)
    folder = home(homes, data=str(homes / "rows.duckdb"))
    if open_:
        assert refused(folder).code == "home.open"
    else:
        require_closed(folder, {STRANGER})


def test_attached_data_are_looked_at_and_a_closed_folder_above_them_is_enough(homes: Path) -> None:
    inside = homes / "inside"
    inside.mkdir()
    (inside / "more.duckdb").touch(mode=0o644)
    folder = home(homes, attach={"more": str(inside / "more.duckdb")})
    assert refused(folder).code == "home.open"
    inside.chmod(0o700)
    require_closed(folder, {STRANGER})


def test_a_program_that_the_user_can_change_is_refused(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = homes / "program"
    program.mkdir()
    monkeypatch.setattr(closed_home, "_program", lambda: [program])
    folder = home(homes)
    require_closed(folder, {STRANGER})
    program.chmod(0o777)
    assert refused(folder).code == "home.program"


def test_a_worker_of_the_vaults_own_user_is_warned_of(homes: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_closed(home(homes), {os.getuid()})
    assert "can read whatever the vault can" in caplog.text


def test_what_is_made_by_the_commands_is_closed(homes: Path) -> None:
    from isthmus.flows.founding import found_member

    found_member("lab", "party", homes)
    folder = homes / "lab"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    require_closed(folder, {STRANGER})
