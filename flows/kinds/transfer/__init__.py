"""The transfer job."""

__all__: list[str] = []
