"""Flags that another flag makes idle are refused, never silently ignored."""

from collections.abc import Iterable

from absl import app, flags


def refuse(holders: Iterable[flags.FlagHolder], when: str) -> None:
    """Raises UsageError if one of the flags is given: it would change nothing."""
    given = [f"--{flag.name}" for flag in holders if flags.FLAGS[flag.name].present]
    if given:
        raise app.UsageError(f"{', '.join(given)} changes nothing {when}.")
