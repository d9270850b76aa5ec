"""The lines of a run's metrics.jsonl."""

import json
import os
import pathlib
from typing import Any


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the lines of a metrics file; none if it is absent.

    A line that a kill cut short is left out.
    """
    if not os.path.exists(path):
        return []
    lines = []
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]
