"""Checkpoints: safetensors files that are either whole or not there.

The last two steps are kept, so that parties which were stopped one step apart still have a step in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save

from .files import drop_partials, write_whole
from .network.message import Array

KEPT = 2
_META = "isthmus"


def write_tensors(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any], *, party: str) -> None:
    """Write arrays and JSON-able `meta` to a safetensors file, wholly or not at all.

    Raises `InputError` ``disk.full`` or ``disk.denied``.
    """
    # safetensors writes the memory as it lies: a transposed array would come back scrambled.
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_whole(path, save(dense, metadata={_META: json.dumps(meta, sort_keys=True)}), party=party)


def read_tensors(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write_tensors` wrote: arrays and meta."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
        return arrays, json.loads((file.metadata() or {}).get(_META, "{}"))


def parse_tensors(content: bytes, *, most_header_bytes: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `read_tensors`, of a file's content that anybody may have made; a longer header is not looked into, since what
    it is read into takes more memory than it does.

    Raises `ValueError`, `LookupError`, `TypeError`, `RecursionError` or `SafetensorError` for what is no such file.
    """
    size = int.from_bytes(content[:8], "little")
    if size > most_header_bytes:
        raise ValueError("the header is too long")
    arrays = load(content)
    return arrays, json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_META])


class Checkpoints:
    """The checkpoints of one party in one run, by step (a count that rises)."""

    def __init__(self, folder: Path, *, party: str) -> None:
        self.folder, self._party = folder, party

    def steps(self) -> list[int]:
        """The steps that can be loaded, ascending."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.safetensors"))
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Write one step, then drop all but the last two."""
        drop_partials(self.folder, "step-", party=self._party)
        write_tensors(self._path(step), arrays, meta, party=self._party)
        for old in self.steps()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)

    def load(self, step: int) -> tuple[dict[str, Array], dict[str, Any]]:
        """Read one step."""
        return read_tensors(self._path(step))

    def drop_after(self, step: int) -> None:
        """Forget the steps above `step`: the parties agreed to go on from there."""
        for later in self.steps():
            if later > step:
                self._path(later).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all steps."""
        self.drop_after(-1)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"
