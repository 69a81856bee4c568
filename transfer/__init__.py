"""Few shared patients and other columns, or few patients at all: what one learns from others that have many.

`pretrain` is what a source learns from all its own rows and `embedding` the protocol that gives a target its frozen
representation of the shared patients, out of fold; `linear` is what the target fits on that, `gate` decides whether it
is kept, `distill` makes of it a model that the target runs alone. `finetune` starts from a model that was trained
elsewhere, such as by the rounds of `horizontal`.
"""

from __future__ import annotations

__all__: list[str] = []
