"""The names that others may build on: adding, renaming or dropping one is a decision, with its line in CHANGELOG.md."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from cyclopts import App

from isthmus.flows.cli import app

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "isthmus.parties": [],  # its modules are imported by name: see its docstring
    "isthmus.parties.network": ["Carrier", "Channel", "Message", "Step", "Topic"],
    "isthmus.psi": [
        "Alignment",
        "PassCounts",
        "align_active",
        "align_as_initiator",
        "align_as_responder",
        "align_passive",
        "unreadable_dates",
    ],
    "isthmus.horizontal": [
        "Encoded",
        "PrivateDropout",
        "TabularEncoder",
        "TabularInput",
        "linear",
        "multilayer",
        "private_generator",
    ],
    "isthmus.transfer": [],  # its modules are imported by name
    "isthmus.vertical": [
        "ActivePart",
        "CentralModel",
        "EpochReport",
        "Parts",
        "PassivePart",
        "SplitPlan",
        "score_active",
        "score_passive",
        "split_rows",
        "train_active",
        "train_central",
        "train_passive",
    ],
    "isthmus.flows.kinds": ["KINDS", "room"],
    "isthmus.flows.kinds.finetune": [],
    "isthmus.flows.kinds.horizontal": [],
    "isthmus.flows.kinds.statistics": [],
    "isthmus.flows.kinds.transfer": [],
    "isthmus.flows.kinds.vertical": [],  # its rooms are asked for by name: see isthmus.flows.kinds
    "isthmus.flows.workers": [],
    "isthmus.flows": [
        "FinetuneJob",
        "HorizontalJob",
        "Model",
        "Shared",
        "StatisticsJob",
        "TransferJob",
        "VerticalJob",
        "align",
        "finetune",
        "horizontal",
        "measure",
        "publish_report",
        "statistics",
        "train_horizontal",
        "train_transfer",
        "train_vertical",
        "transfer",
        "vertical",
    ],
}
COMMANDS = [
    "approve",
    "audit show",
    "audit verify",
    "check",
    "consortium accept",
    "consortium add",
    "consortium revoke",
    "consortium sign",
    "consortium verify",
    "coordinator start",
    "demo",
    "describe",
    "exchange start",
    "explain",
    "init coordinator",
    "init exchange",
    "init party",
    "join",
    "keys",
    "party start",
    "pause",
    "rehearse",
    "run",
    "runs",
    "schema",
    "serve",
    "sign",
    "status",
    "submit",
    "up",
    "vault start",
]


def _commands(group: App, *before: str) -> Iterator[tuple[str, App]]:
    """Every command with the words that call it, groups opened."""
    for word in group:
        if word.startswith("-"):  # --help and --version
            continue
        words = (*before, word)
        inner = list(_commands(group[word], *words))
        yield from inner or [(" ".join(words), group[word])]


def test_every_package_has_its_names_written_down_here() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(PUBLIC) == set(settings["tool"]["setuptools"]["packages"])


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_names_these_things_and_no_others(package: str) -> None:
    assert sorted(import_module(package).__all__) == sorted(PUBLIC[package])


def test_every_name_leads_to_a_thing_that_says_what_it_is() -> None:
    code = (  # in a process of its own: it imports Prefect, which these tests keep out of theirs
        "from importlib import import_module\n"
        f"for package, names in {PUBLIC!r}.items():\n"
        "    for name in names:\n"
        "        assert getattr(import_module(package), name).__doc__, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PUBLIC)
def test_every_package_says_what_it_is_for(package: str) -> None:
    assert import_module(package).__doc__


def test_flows_refuses_a_name_that_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'diagonal'"):
        _ = import_module("isthmus.flows").diagonal


def test_the_command_line_has_these_commands_and_no_others() -> None:
    assert sorted(words for words, _ in _commands(app)) == COMMANDS


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_an_example_in_its_help_or_a_place_in_the_readme(words: str) -> None:
    call = f"isthmus {words}"
    assert f"Example: {call}" in dict(_commands(app))[words].help or call in (ROOT / "README.md").read_text("utf-8")
