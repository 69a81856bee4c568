"""A party's own part of a trained model, and its encoded rows in the shared order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..horizontal.tabular import Encoded, TabularEncoder
from ..parties.checkpoint import write_tensors
from .models import ActiveModel, Bottom, SplitPlan


@dataclass(frozen=True)
class _Part:
    plan: SplitPlan
    party: str
    encoder: TabularEncoder
    rows: Encoded

    def _save(self, path: Path, module: torch.nn.Module) -> None:
        arrays = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        meta = {"party": self.party, "plan": asdict(self.plan), "encoder": self.encoder.to_dict()}
        write_tensors(path, arrays, meta, party=self.party)


@dataclass(frozen=True)
class ActivePart(_Part):
    """The active party's part of a trained model, and its encoded rows in the shared order."""

    model: ActiveModel
    best_epoch: int

    def save(self, path: Path) -> None:
        """Write weights and encoder to a safetensors file, which stays at the party."""
        self._save(path, self.model)


@dataclass(frozen=True)
class PassivePart(_Part):
    """A passive party's part of a trained model, and its encoded rows in the shared order."""

    model: Bottom

    def save(self, path: Path) -> None:
        """Write weights and encoder to a safetensors file, which stays at the party."""
        self._save(path, self.model)
