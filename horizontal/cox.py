"""Cox's partial likelihood (Cox 1972), with Efron's correction for tied times (Efron 1977).

A patient who has an event is compared with all who were still at risk then, so rows do not stand alone: in a batch,
they are compared within the batch, and in a federation within their own party. What is minimised is therefore the
likelihood **stratified** by party and batch: the hazards of two strata may differ by any factor, and patients of two
hospitals are never compared. With full batches and rows as weights, the parties' losses add up to exactly that.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cox_loss(scores: Tensor, duration: Tensor, event: Tensor) -> Tensor:
    """Negative log partial likelihood a row: the sum over events, divided by all rows.

    `scores` are logs of hazard ratios, all three are float ``(rows,)``, `event` is 0 or 1. Without any event it is 0,
    with a gradient of 0.
    """
    order = torch.argsort(duration, descending=True, stable=True)
    scores, event = scores[order], event[order] > 0.5
    _, group, sizes = torch.unique_consecutive(duration[order], return_inverse=True, return_counts=True)
    if not bool(event.any()):
        return scores.sum() * 0.0
    last = sizes.cumsum(0) - 1
    at_risk = torch.logcumsumexp(scores, 0)[last]  # by time: log of the sum over all who were at risk then
    event_scores, event_group = scores[event], group[event]
    events = torch.bincount(event_group, minlength=len(sizes))
    tied = _log_sums(event_scores, event_group, len(sizes))  # log of the sum over those with an event at that time
    # Efron: of d tied events, number l = 0 … d-1 is compared with the risk set less l/d of the tied ones. The ratio of
    # the two sums is at most 1, so the logarithm below is of 1/d or more.
    rank = torch.arange(len(event_group)) - (events.cumsum(0) - events)[event_group]
    share = rank.to(scores.dtype) / events[event_group]
    ratio = torch.exp(tied - at_risk[event_group]).clamp(max=1.0)
    likelihood = event_scores - at_risk[event_group] - torch.log1p(-share * ratio)
    return -likelihood.sum() / len(scores)


def _log_sums(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """For each score, the log of the sum of exp over its group."""
    highest = torch.full((groups,), -torch.inf).to(scores.dtype)
    highest = highest.scatter_reduce(0, group, scores.detach(), "amax")
    sums = torch.zeros(groups, dtype=scores.dtype).index_add(0, group, torch.exp(scores - highest[group]))
    return torch.log(sums[group]) + highest[group]
