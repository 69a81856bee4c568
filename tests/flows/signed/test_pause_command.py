"""`isthmus pause`: parties are stopped by name, whatever else is wrong; and the examples of these commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from isthmus.flows.cli_starts import approve, pause, sign

from .at_the_lab import refused


def test_parties_are_paused_and_go_on(isthmus: Callable[..., str], homes: Path) -> None:
    assert isthmus("pause", "lab", "insurer") == "lab is paused\ninsurer is paused\n"
    assert isthmus("pause", "lab").startswith("lab was paused already: 20")
    assert (homes / "lab" / "paused").is_file()
    assert isthmus("pause", "lab", "insurer", "clinic", "--off") == (
        "lab goes on\ninsurer goes on\nclinic was not paused\n"
    )
    assert not (homes / "lab" / "paused").exists()


def test_a_name_that_is_wrong_does_not_keep_the_others_from_being_paused(
    isthmus: Callable[..., str], homes: Path
) -> None:
    error = refused(lambda: isthmus("pause", "lap", "lab"), "job.party_unknown")
    assert "lap" in error.what
    assert (homes / "lab" / "paused").exists()


def test_a_party_whose_yaml_is_broken_can_be_paused(isthmus: Callable[..., str], homes: Path) -> None:
    (homes / "lab" / "party.yaml").write_text("name: [")
    assert isthmus("pause", "lab") == "lab is paused\n"


def test_nobody_named_is_nobody_paused(isthmus: Callable[..., str], homes: Path) -> None:
    with pytest.raises(CycloptsError):
        isthmus("pause")
    assert not list(homes.rglob("paused"))


@pytest.mark.parametrize("command", [sign, approve, pause])
def test_every_command_has_an_example(command: Callable[..., Any]) -> None:
    assert f"Example: isthmus {command.__name__} " in (command.__doc__ or "")
