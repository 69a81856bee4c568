"""A model as one flat vector: what rounds send, sum and keep."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Which tensors make up a vector, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: tuple[bool, ...]  # rather than buffers, such as running means

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of named tensors, in their order."""
        shapes = tuple(tuple(tensor.shape) for tensor in tensors.values())
        return cls(tuple(tensors), shapes, tuple(isinstance(tensor, nn.Parameter) for tensor in tensors.values()))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def buffers(self) -> list[slice]:
        """Where in a vector those tensors are that no gradient moves."""
        ends = np.cumsum([0, *(math.prod(shape) for shape in self.shapes)]).tolist()
        return [slice(*ends[place : place + 2]) for place, one in enumerate(self.parameters) if not one]

    def flatten(self, tensors: Mapping[str, Tensor]) -> Vector:
        """The named tensors as one new vector ``(size,)``; raises `KeyError` if one is missing."""
        if not self.names:
            return np.zeros(0, np.float32)
        parts = [tensors[name].detach().reshape(-1).to(torch.float32) for name in self.names]
        return torch.cat(parts).numpy()

    def unflatten(self, vector: Vector) -> dict[str, Tensor]:
        """The tensors of a vector ``(size,)``: float32 views of it."""
        if vector.shape != (self.size,):
            raise ValueError(f"a vector of {self.size} numbers was due, not {vector.shape}")
        flat = torch.from_numpy(vector)
        found, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            end = start + math.prod(shape)
            found[name] = flat[start:end].view(shape)
            start = end
        return found

    def load(self, vector: Vector, tensors: Mapping[str, Tensor]) -> None:
        """Write a vector into the named tensors."""
        with torch.no_grad():
            for name, value in self.unflatten(vector).items():
                tensors[name].copy_(value)

    def digest(self) -> str:
        """SHA-256 of names, shapes and kinds, as 64 hex digits: parties with the same parameters have the same."""
        content = json.dumps([self.names, self.shapes, self.parameters])
        return hashlib.sha256(f"isthmus layout {content}".encode()).hexdigest()


def vector_digest(vector: NDArray[np.float32]) -> str:
    """SHA-256 of a vector's little-endian bytes, as 64 hex digits: the digest of a model."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").data).hexdigest()
