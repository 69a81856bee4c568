"""The vertical job: same patients, other columns. `baselines` and `contenders` are for simulations only."""

__all__: list[str] = []
