"""The statistics job: same columns, other patients; counts, summaries and survival curves over all of them."""

__all__: list[str] = []
