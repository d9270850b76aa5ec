"""One experiment a file; each has `get_config()`."""

__all__: list[str] = []
