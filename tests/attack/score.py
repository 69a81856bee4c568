"""What an attack tells: how often it was tried, how often it got through, whether it did reach its target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.parties.errors import IsthmusError


@dataclass
class Score:
    """The outcome of one attack.

    `control` says whether the same without the tampering did get through: without it, the attack has shown nothing.
    `told` are figures for people. `outcomes` counts how the tries ended.
    """

    attack: str
    tried: int = 0
    got_through: int = 0
    control: bool = False
    told: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)

    def refused(self, call: Callable[[], object], *codes: str) -> None:
        """Try something that has to be refused with one of these codes."""
        self.tried += 1
        try:
            call()
        except IsthmusError as failure:
            self.outcomes[failure.code] += 1
            self.got_through += failure.code not in codes
        except Exception as failure:  # an exception that nobody has foreseen is a hole, too
            self.outcomes[f"{type(failure).__name__}: {failure}"[:80]] += 1
            self.got_through += 1
        else:
            self.outcomes["taken"] += 1
            self.got_through += 1

    @property
    def held(self) -> bool:
        """Whether nothing got through and the attack really ran."""
        return self.tried > 0 and not self.got_through and self.control

    def line(self) -> str:
        """One line of the table, and what else there is to tell below it."""
        control = "ok" if self.control else "FAILED"
        verdict = "" if self.held else "   <-- NOT HELD"
        text = f"  tried {self.tried:9,}  got through {self.got_through:2}  control {control:6}  {self.attack}{verdict}"
        if self.told:
            text += f"\n      {self.told}"
        if self.outcomes:
            text += "\n      " + ", ".join(f"{word} {count}" for word, count in self.outcomes.most_common(8))
        return text
