"""Which model a job names, and the digest of its code where it is the user's own: known before anything is imported.

`code_digest`, by which the parties agree that they hold the same, reads the source and runs nothing of it; it covers
the one file that defines the class, not what that file imports.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, Literal

from ..parties.errors import InputError

ModelKind = Literal["network", "linear", "own"]


@dataclass(frozen=True)
class ModelSpec:
    """The model of a job: public, and the same at every party.

    `hidden` (widths) and `dropout` belong to the network, `path` (``package.module.Class``) and `options` (its keyword
    arguments) to a model of one's own. A linear model is logistic regression, linear regression or Cox's model.
    """

    kind: ModelKind = "network"
    hidden: tuple[int, ...] = (32, 16)
    dropout: float = 0.0
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """Whether large categories are embedded. A coefficient a level, and one matrix, are what the others expect."""
        return self.kind == "network"


def code_digest(path: str, *, party: str) -> str:
    """SHA-256 of the source file of the module that defines the class, 64 hex digits. Runs no code of it.

    Raises `InputError` ``model.unknown`` where there is no such file.
    """
    module, _, name = path.rpartition(".")
    spec = _find(module) if module and name else None
    if spec is None or not isinstance(spec.loader, SourceFileLoader) or spec.origin is None:
        raise InputError("model.unknown", party=party, detail=f"no Python source is found for {path!r}")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _find(module: str) -> ModuleSpec | None:
    """Find a module as `import` would, without importing the packages that it is in."""
    path: Any = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next((found for find in finders if (found := find(name, path)) is not None), None)
        if spec is None or (depth < len(parts) and spec.submodule_search_locations is None):
            return None
        path = spec.submodule_search_locations
    return spec
