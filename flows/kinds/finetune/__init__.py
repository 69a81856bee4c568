"""The finetune job."""

__all__: list[str] = []
