"""Which of a model's tensors the parties share, and which each keeps for itself.

- FedBN: batch normalisation, parameters and statistics, is private (Li et al., "FedBN", ICLR 2021)
- FedPer: the last layer is private (Arivazhagan et al., "Federated learning with personalization layers", 2019)
- private heads: whatever the job's patterns name

Float buffers, such as running means, are shared unless they are private. Integer buffers never travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a plan is read without torch
    from torch import Tensor, nn

    from .vector import Layout


@dataclass(frozen=True)
class Scope:
    """What stays private: names that match a pattern (``head.*``), batch normalisation, the last layer."""

    private: tuple[str, ...] = ()
    batch_norm: bool = False
    head: bool = False

    @property
    def whole(self) -> bool:
        """Whether everything that can travel is shared."""
        return not (self.private or self.batch_norm or self.head)

    def split(self, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The shared and the private tensors of a module, by name, in its own order.

        They are the module's own storage: writing into them changes it.
        """
        within = [name for name, part in module.named_modules() if self.batch_norm and _is_batch_norm(part)]
        if self.head:
            owners = [
                name for name, part in module.named_modules() if next(part.parameters(recurse=False), None) is not None
            ]
            within += owners[-1:]
        shared: dict[str, Tensor] = {}
        private: dict[str, Tensor] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            mine = any(fnmatchcase(name, pattern) for pattern in self.private)
            mine = mine or not tensor.is_floating_point() or name.rpartition(".")[0] in within
            (private if mine else shared)[name] = tensor
        return shared, private

    def layout(self, module: nn.Module) -> Layout:
        """The layout of what a module shares."""
        from .vector import Layout

        return Layout.of(self.split(module)[0])


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a batch of a single row would be an error."""
    return any(_is_batch_norm(part) for part in module.modules())


def _is_batch_norm(part: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(part, _BatchNorm)
