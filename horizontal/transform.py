"""What happens to a party's update on its way: clipped, thinned out, written with fewer bits.

In order: ``clip`` (L2 norm), ``top_k`` (the share of places that moved most), then ``fp16`` or ``int8``. A message
then holds fewer bytes: places as uint32, values as float16, or as eight bits with a float32 scale for `SCALE_ITEMS`.

What top-k and int8 leave out is not lost: the party keeps it and adds it to its next update (error feedback; Seide et
al. 2014, Karimireddy et al., "Error feedback fixes SignSGD", ICML 2019). Over rounds, what was sent adds up to what was
meant, up to what is still kept. Clipping comes before that and is not fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError
from ..parties.network.message import Array

Vector = NDArray[np.float32]
TransformKind = Literal["clip", "top_k", "fp16", "int8"]

SCALE_ITEMS = 4096  # values that share a scale
_LEVELS, _ZERO = 127, 128  # eight bits are sent as unsigned: 128 stands for zero
_ORDER: tuple[TransformKind, ...] = ("clip", "top_k", "fp16", "int8")


@dataclass(frozen=True)
class Transform:
    """One step: ``clip`` has a `norm`, ``top_k`` a `share` of the places, in (0, 1]."""

    kind: TransformKind
    norm: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Packed:
    """An update as it is sent: values, their places (ascending) if not all are sent, their scales if they are bytes."""

    values: Array
    index: Array | None = None
    scale: Array | None = None

    def arrays(self) -> dict[str, Array]:
        """What is there, by name."""
        named = {"values": self.values, "index": self.index, "scale": self.scale}
        return {name: array for name, array in named.items() if array is not None}


@dataclass(frozen=True)
class Packing:
    """What the transforms make of an update of `size` numbers: both sides derive it from the plan."""

    transforms: tuple[Transform, ...]
    size: int

    @property
    def feeds_back(self) -> bool:
        """Whether the party keeps what was left out."""
        return any(one.kind in ("top_k", "int8") for one in self.transforms)

    @property
    def kept(self) -> int:
        """How many values are sent."""
        shares = [one.share for one in self.transforms if one.kind == "top_k"]
        return min(self.size, max(1, round(shares[0] * self.size))) if shares else self.size

    @property
    def dtypes(self) -> dict[str, str]:
        """The arrays that are sent, and their types."""
        kinds = {one.kind for one in self.transforms}
        found = {"values": "<f2" if "fp16" in kinds else "|u1" if "int8" in kinds else "<f4"}
        if "top_k" in kinds:
            found["index"] = "<u4"
        if "int8" in kinds:
            found["scale"] = "<f4"
        return found

    def encode(self, update: Vector, residual: Vector | None, party: str) -> tuple[Packed, Vector | None]:
        """An update ``(size,)`` as it is sent, and what is left to send, ``(size,)`` (None without feedback).

        Raises `InputError` ``update.too_large`` for what 16 bits cannot hold.
        """
        for one in self.transforms:
            if one.kind == "clip":
                update = clipped(update, one.norm)
        if residual is not None and self.feeds_back:
            update = update + residual
        index: Array | None = None
        values: Array = update
        if "index" in self.dtypes:
            index = largest(update, self.kept)
            values = update[index]
        scale: Array | None = None
        if self.dtypes["values"] == "<f2":
            with np.errstate(over="ignore"):
                values = values.astype("<f2")
            if not np.isfinite(values).all():
                raise InputError("update.too_large", party=party)
        elif self.dtypes["values"] == "|u1":
            values, scale = to_bytes(values)
        packed = Packed(values, index, scale)
        return packed, update - self.decode(packed) if self.feeds_back else None

    def decode(self, packed: Packed) -> Vector:
        """The update ``(size,)`` that was sent."""
        values = packed.values
        if packed.scale is not None:
            values = from_bytes(values, packed.scale)
        if packed.index is None:
            return values.astype(np.float32, copy=False)
        found = np.zeros(self.size, np.float32)
        found[packed.index] = values
        return found


def clipped(update: Vector, norm: float) -> Vector:
    """The update, scaled down to an L2 norm of at most `norm`."""
    length = float(np.sqrt(np.square(update, dtype=np.float64).sum()))
    return update if length <= norm else (update * (norm / length)).astype(np.float32)


def largest(update: Vector, count: int) -> NDArray[np.uint32]:
    """The places of the `count` largest absolute values, ascending."""
    if count >= len(update):
        return np.arange(len(update), dtype="<u4")
    return np.sort(np.argpartition(np.abs(update), len(update) - count)[len(update) - count :]).astype("<u4")


def to_bytes(values: Vector) -> tuple[NDArray[np.uint8], Vector]:
    """Values as bytes, with a scale for each `SCALE_ITEMS` of them: the nearest of 255 levels."""
    rows = np.zeros((-(-len(values) // SCALE_ITEMS), SCALE_ITEMS), np.float32)
    rows.reshape(-1)[: len(values)] = values
    scale = np.abs(rows).max(axis=1) / np.float32(_LEVELS)
    steps = np.rint(rows / np.where(scale > 0, scale, 1)[:, None])
    levels = np.clip(steps, -_LEVELS, _LEVELS) + _ZERO
    return levels.astype(np.uint8).reshape(-1)[: len(values)], scale


def from_bytes(levels: NDArray[np.uint8], scale: Vector) -> Vector:
    """What `to_bytes` wrote."""
    found = levels.astype(np.float32) - np.float32(_ZERO)
    return found * np.repeat(scale, SCALE_ITEMS)[: len(levels)]


def out_of_order(transforms: Sequence[Transform]) -> bool:
    """Whether transforms do not come in the order clip, top_k, fp16 or int8, each at most once."""
    places = [_ORDER.index(one.kind) for one in transforms]
    return places != sorted(set(places))
