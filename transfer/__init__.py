"""Few shared patients and other columns, or few patients at all: what one learns from others that have many.

`trunk` is a network that a source trains on its own rows, `pretrain` a network a fold, and `embedding` the protocol
that gives a target their frozen representation of the shared patients. `patients` is what the target knows of its own,
`linear` what it fits, `gate` decides which model is kept, `distill` makes one that it runs alone. `finetune` starts
from a model that was trained elsewhere, such as by the rounds of `horizontal`.
"""

from __future__ import annotations

__all__: list[str] = []
