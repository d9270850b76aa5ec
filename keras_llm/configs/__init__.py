"""One experiment a file; each has `get_config()`."""
