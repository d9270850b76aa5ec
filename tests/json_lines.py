"""Files of examples for tests."""

import json


def write(path, examples):
    """Writes examples as JSON lines; returns the path."""
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path
