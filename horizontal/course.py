"""How far a training is: what the coordinator keeps of it, round by round, and writes into its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .optimizer import ServerState
from .plan import RoundsPlan
from .tally import Tally
from .vector import Vector


@dataclass(frozen=True)
class RoundReport:
    """The model after `round` of `rounds` rounds (0 is the one they began with), as the parties judged it together.

    `loss` is the mean training loss of the round that made it, `survivors` those whose updates are in it. Validation
    figures are means over all parties' validation rows, or None where there are none; the score is the AUC, R² or
    C-index. `resumed_from` is set once, on the last report of earlier attempts, which are told again.
    """

    round: int
    rounds: int
    loss: float | None
    validation_loss: float | None
    validation_score: float | None
    survivors: tuple[str, ...]
    best: bool
    resumed_from: int | None = None


OnRound = Callable[[RoundReport], None]


@dataclass
class Course:
    """The coordinator's state at the beginning of round `round`.

    `counted` says for each party the last round (from 1) whose sum its update was in. Vectors have the layout's size.
    """

    model: Vector
    control: Vector | None  # SCAFFOLD's, common to all
    optimizer: ServerState = field(default_factory=ServerState)
    round: int = 0
    rows: int = 0  # training rows in all, where weights are shares of them
    rows_of: tuple[str, ...] = ()  # whose they are
    counted: dict[str, int] = field(default_factory=dict)
    history: list[RoundReport] = field(default_factory=list)
    best: Vector | None = None
    best_round: int = -1
    loss: float | None = None  # of the round that made `model`
    survivors: tuple[str, ...] = ()
    finished: bool = False

    def judged(self, plan: RoundsPlan, tally: Tally) -> RoundReport:
        """Take in what the parties say of `model`; keep it if it is the best so far."""
        _, validation_loss, score = tally.means()
        best = self.best is None or self._is_better(validation_loss)
        if best:
            self.best, self.best_round = self.model, self.round
        report = RoundReport(self.round, plan.rounds, self.loss, validation_loss, score, self.survivors, best)
        self.history.append(report)
        return report

    def out_of_patience(self, plan: RoundsPlan) -> bool:
        """Whether the models since the best one have used it up."""
        return plan.patience is not None and self.round - self.best_round >= plan.patience

    def kept(self, plan: RoundsPlan) -> tuple[Vector, int]:
        """The model that the training ends with, and how many rounds made it."""
        if plan.keep == "best" and self.best is not None:
            return self.best, self.best_round
        return self.model, self.round

    def _is_better(self, validation_loss: float | None) -> bool:
        """By the validation loss; where nobody has validation rows, the last model is the best."""
        known = [report.validation_loss for report in self.history if report.validation_loss is not None]
        return validation_loss is not None and validation_loss < min(known) if known else True

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def content(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything, for a checkpoint."""
        arrays: dict[str, NDArray[Any]] = {"model": self.model, **self.optimizer.arrays()}
        if self.control is not None:
            arrays["control"] = self.control
        if self.best is not None and self.best_round != self.round:
            arrays["best"] = self.best
        names = ("round", "rows", "rows_of", "counted", "best_round", "loss", "survivors", "finished")
        meta = {name: getattr(self, name) for name in names}
        return arrays, {
            **meta,
            "steps": self.optimizer.count,
            "history": [asdict(replace(report, resumed_from=None)) for report in self.history],
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Course:
        """What `content` gave."""
        history = [RoundReport(**{**one, "survivors": tuple(one["survivors"])}) for one in meta["history"]]
        best = arrays.get("best", arrays["model"]) if meta["best_round"] >= 0 else None
        return cls(
            np.array(arrays["model"]),
            arrays.get("control"),
            ServerState.load(meta["steps"], arrays),
            meta["round"],
            meta["rows"],
            tuple(meta["rows_of"]),
            dict(meta["counted"]),
            history,
            best,
            meta["best_round"],
            meta["loss"],
            tuple(meta["survivors"]),
            meta["finished"],
        )
