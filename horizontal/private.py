"""What a party keeps for itself from round to round, and writes into its checkpoints.

Private tensors of the module (and integer buffers, which never travel), SCAFFOLD's control, the residual of error
feedback, Ditto's personal model. Control and residual belong to an update: if that was not in the round's sum, since
the party was late, they go back to what they were. What is private is also remembered as it was when the best model
was judged.

A state's `label` counts the rounds up to the last one that the party trained in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .local import Trained
from .plan import RoundsPlan
from .transform import Packing, Vector
from .vector import Layout

Arrays = Mapping[str, NDArray[Any]]
_PERSONAL = "personal"  # among the private arrays; no tensor's name, since those stand behind "tensor."


class Private:
    """The state of one party. `needed` is whether there is anything to keep at all."""

    def __init__(self, module: nn.Module, plan: RoundsPlan, layout: Layout, packing: Packing) -> None:
        self._shared, self._tensors = plan.scope.split(module)
        kind, size = plan.objective.kind, layout.size
        self.label = 0
        self.control: Vector | None = np.zeros(size, np.float32) if kind == "scaffold" else None
        self.residual: Vector | None = np.zeros(packing.size, np.float32) if packing.feeds_back else None
        # Ditto's begins where the first shared model does: see `note`.
        self.personal: Vector | None = None
        self._next: dict[str, Vector] = {}  # control and residual, if the last update turns out to be in the sum
        self._ditto = kind == "ditto"
        self._layout = layout
        self._judged: tuple[int, dict[str, NDArray[Any]]] | None = None  # as it was when round r's model came
        self._best: tuple[int, dict[str, NDArray[Any]]] | None = None

    @property
    def needed(self) -> bool:
        """Whether a party that lost this could not go on as if nothing had happened."""
        return bool(self._tensors) or self._ditto or self.control is not None or self.residual is not None

    def settle(self, counted: int, best: int) -> None:
        """A round begins: `counted` labels the last update of this party that was in a sum, `best` the best model."""
        if self._next and counted == self.label:
            self.control = self._next.get("control", self.control)
            self.residual = self._next.get("residual", self.residual)
        self._next = {}
        self._keep(best)

    def note(self, round: int) -> None:
        """The model after `round` rounds is in the module and about to be judged."""
        if self._ditto and self.personal is None:
            self.personal = self._layout.flatten(self._shared)
        if self._tensors or self._ditto:
            self._judged = round, self._arrays()

    def trained(self, round: int, trained: Trained) -> None:
        """Take in what training changed; control and residual wait until `settle` says that the update was taken."""
        self.label = round + 1
        if trained.personal is not None:
            self.personal = trained.personal
        if trained.control_change is not None and self.control is not None:
            self._next["control"] = self.control + trained.control_change

    def left_over(self, residual: Vector | None) -> None:
        """What the transforms left out of the update."""
        if residual is not None:
            self._next["residual"] = residual

    def restore(self, round: int) -> None:
        """Go back to what was private when the model after `round` rounds was judged."""
        self._keep(round)
        if round < self.label and self._best is not None:
            self._set(self._best[1])

    def content(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything, for a checkpoint."""
        found = {f"now.{name}": value for name, value in self._arrays().items()}
        held = {"control": self.control, "residual": self.residual}
        found |= {f"held.{name}": value for name, value in held.items() if value is not None}
        found |= {f"next.{name}": value for name, value in self._next.items()}
        rounds = {}
        for when, kept in (("judged", self._judged), ("best", self._best)):
            if kept is not None:
                rounds[when] = kept[0]
                found |= {f"{when}.{name}": value for name, value in kept[1].items()}
        return found, {"label": self.label, "rounds": rounds}

    def load(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Take over what `content` gave."""
        groups: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in ("now", "held", "next", "judged", "best")}
        for name, value in arrays.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        self.label = meta["label"]
        self._set(groups["now"])
        self.control, self.residual = groups["held"].get("control"), groups["held"].get("residual")
        self._next = dict(groups["next"])
        rounds = meta["rounds"]
        self._judged = (rounds["judged"], groups["judged"]) if "judged" in rounds else None
        self._best = (rounds["best"], groups["best"]) if "best" in rounds else None

    def _keep(self, best: int) -> None:
        """Remember what was judged last as the best, unless a later model than that is better."""
        if self._judged is not None and self._judged[0] <= best and (not self._best or self._best[0] < self._judged[0]):
            self._best = self._judged

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found = {f"tensor.{name}": tensor.detach().numpy().copy() for name, tensor in self._tensors.items()}
        return found | ({_PERSONAL: self.personal.copy()} if self.personal is not None else {})

    def _set(self, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(torch.from_numpy(np.array(arrays[f"tensor.{name}"])))
        self.personal = arrays.get(_PERSONAL)
