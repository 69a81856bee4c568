"""The horizontal job: same columns, other patients, one model by rounds."""

__all__: list[str] = []
