"""A comparison in two environments: one half finds the peer's figures, one compares."""

import argparse
import pathlib
from collections.abc import Callable

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"


def stretches(
    name: str, count: int, shortest: int, more: int, room: int = 700
) -> list[str]:
    """Returns stretches of a text of testdata/, from all over it, of unlike lengths.

    Args:
        name: The file.
        count: How many.
        shortest: Characters of the shortest.
        more: The longest has that many more, but one.
        room: Characters at the end where none begins.
    """
    text = (TESTDATA / name).read_text("utf-8")
    starts = [i * (len(text) - room) // count for i in range(count)]
    return [
        text[start : start + shortest + (i * 37) % more]
        for i, start in enumerate(starts)
    ]


def run_half(
    description: str,
    peer: Callable[[argparse.Namespace], None],
    compare: Callable[[argparse.Namespace], None],
) -> None:
    """Reads the flags and runs the half that is asked for."""
    flags = argparse.ArgumentParser(description=description.partition("\n")[0])
    flags.add_argument("half", choices=("peer", "compare"))
    flags.add_argument("--source", help="GGUF file, or folder, that the peer reads.")
    flags.add_argument("--model", help="What was made of it here.")
    flags.add_argument("--file", required=True, help="What the peer found.")
    given = flags.parse_args()
    wanted = "source" if given.half == "peer" else "model"
    if getattr(given, wanted) is None:
        flags.error(f"{given.half} needs --{wanted}.")
    peer(given) if given.half == "peer" else compare(given)
