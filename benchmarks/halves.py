"""A comparison in two environments: one half finds the peer's figures, one compares."""

import argparse
from collections.abc import Callable


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
