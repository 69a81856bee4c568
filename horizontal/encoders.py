"""Encoders whose parameters all parties hold alike: the job's levels, and pooled or own means and scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..parties.table import Column
from .codes import CategoryCode, NumberCode
from .schema import ColumnSpec
from .tabular import TabularEncoder


def shared_encoder(specs: Sequence[ColumnSpec], numbers: Sequence[NumberCode], *, embed: bool) -> TabularEncoder:
    """The encoder that all parties hold alike: pooled means and scales, the job's levels.

    Large categories are embedded only with `embed`: see `ModelSpec.embeds`.
    """
    pooled = {code.name: code for code in numbers}
    return TabularEncoder(
        [pooled[spec.name] for spec in specs if spec.kind == "number"],
        [CategoryCode(spec.name, spec.levels, embed) for spec in specs if spec.kind == "category"],
    )


def own_encoder(
    specs: Sequence[ColumnSpec],
    columns: Sequence[Column],
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    *,
    embed: bool,
    indicators: Sequence[str] = (),
) -> TabularEncoder:
    """An encoder with the party's own means and scales, from its training `rows`; a constant column becomes 0.

    Levels are the job's and `indicators` names the numbers that get one, so that all parties' models have the same
    parameters.
    """
    numbers = [column for column in columns if column.kind == "number"]
    fitted = {code.name: code for code in TabularEncoder.fit(numbers, rows).numbers}
    own = [NumberCode(code.name, code.mean, code.scale, code.name in indicators) for code in fitted.values()]
    return shared_encoder(specs, own, embed=embed)
