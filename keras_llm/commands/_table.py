"""Figures as a table that a person reads and Markdown takes."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table, one row a case; floats to four digits.

    >>> print(table([{"run": "a", "loss": 1.23456}, {"run": "bb", "steps": None}]))
    | run | loss  | steps |
    | --- | ----- | ----- |
    | a   | 1.235 |       |
    | bb  |       |       |
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[_shown(row.get(name)) for name in names] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = [
        [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
