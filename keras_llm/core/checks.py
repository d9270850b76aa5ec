"""Argument checks: each says the rule, the value received and the remedy.

Every condition is written positively, so that NaN fails it.
"""

from collections.abc import Collection
from typing import Any


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Raises ValueError unless `value` > 0.

    >>> check_positive("width", 0)
    Traceback (most recent call last):
    ...
    ValueError: `width` must be positive. Received: width=0.
    """
    if not value > 0:
        raise ValueError(_message(name, "must be positive", value, remedy))


def check_not_negative(name: str, value: float, remedy: str = "") -> None:
    """Raises ValueError unless `value` >= 0."""
    if not value >= 0:
        raise ValueError(_message(name, "must be at least 0", value, remedy))


def check_in_range(
    name: str, value: float, low: float, high: float, remedy: str = ""
) -> None:
    """Raises ValueError unless low <= value <= high.

    >>> check_in_range("dropout", float("nan"), 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: `dropout` must lie from 0 to 1. Received: dropout=nan.
    """
    if not low <= value <= high:
        raise ValueError(
            _message(name, f"must lie from {low} to {high}", value, remedy)
        )


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`.

    >>> check_choice("kind", "bite", ("byte", "character"))
    Traceback (most recent call last):
    ...
    ValueError: `kind` must be one of 'byte', 'character'. Received: kind='bite'.
    """
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(_message(name, f"must be one of {listed}", value, ""))


def check_divides(divisor_name: str, divisor: int, name: str, value: int) -> None:
    """Raises ValueError unless `value` is a multiple of `divisor`.

    >>> check_divides("num_heads", 5, "width", 64)
    Traceback (most recent call last):
    ...
    ValueError: `width` must be a multiple of `num_heads`. Received: width=64, \
num_heads=5. Change `width` to 60 or 65, or change `num_heads`.
    """
    check_positive(divisor_name, divisor)
    if value % divisor:
        below = value // divisor * divisor
        raise ValueError(
            f"`{name}` must be a multiple of `{divisor_name}`. Received: "
            f"{name}={value}, {divisor_name}={divisor}. Change `{name}` to "
            f"{below or divisor} or {below + divisor}, or change `{divisor_name}`."
        )


def _message(name: str, rule: str, value: Any, remedy: str) -> str:
    ending = f" {remedy}" if remedy else ""
    return f"`{name}` {rule}. Received: {name}={value!r}.{ending}"
