"""Fields of a config by their dotted names: --train.steps=100."""

import re
import sys

from absl import app

_OVERRIDE = re.compile(r"--([a-z]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)

given: dict[str, str] = {}  # Field to value, as the command line has them.


def parse_flags(argv: list[str]) -> list[str]:
    """Takes the dotted overrides out of `argv` and parses the rest as flags."""
    given.clear()
    rest = []
    for word in argv:
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
        elif match[2] is None:
            print(
                f"{word}: give the value with an equals sign, {word}=VALUE.",
                file=sys.stderr,
            )
            sys.exit(1)
        else:
            given[match[1]] = match[2]
    return app.parse_flags_with_usage(rest)
