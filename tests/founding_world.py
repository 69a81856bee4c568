"""The commands that found a consortium, given as words, and one that they have founded."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import App

from isthmus.flows.cli_consortium import consortium, init
from isthmus.parties.errors import InputError
from isthmus.parties.roster import Roster

MEMBERS = ("lab", "insurer", "hub")
ALL = "homes/lab homes/insurer homes/hub exchange"
app = App(name="isthmus", result_action="return_value")
app.command(init)
app.command(consortium)


class Commands:
    """Give a command and have what it printed, or, where it has to be refused, the error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, words: str) -> str:
        self._capsys.readouterr()
        app(words.split(), exit_on_error=False, print_error=False)
        printed = self._capsys.readouterr()
        assert printed.err == ""
        return printed.out

    def refused(self, words: str) -> InputError:
        """The error of a command."""
        with pytest.raises(InputError) as caught:
            self(words)
        assert caught.value.exit_code == 2
        return caught.value

    def found(self) -> str:
        """Make three homes and an exchange with a complete roster that nobody has accepted; all that was printed."""
        text = self("init party lab") + self("init party insurer") + self("init coordinator hub")
        text += self("init exchange relay --address relay.example.org:9443")
        files = " ".join(f"homes/{name}/{name}.member.yaml" for name in MEMBERS)
        text += self(f"consortium add roster.yaml {files} exchange/relay.member.yaml --name hearts")
        return text + self("consortium sign roster.yaml lab") + self("consortium sign roster.yaml hub")

    def accept(self) -> None:
        """Have the roster accepted everywhere."""
        self(f"consortium accept roster.yaml {ALL} --digest {Roster.read(Path('roster.yaml')).digest()}")
