"""Fields of a config by their dotted names: --train.steps=100."""

import dataclasses
import pathlib
import re
import sys
from typing import Any

from absl import app, flags

from keras_llm.commands import _quiet

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
    try:
        return flags.FLAGS(rest)
    except flags.UnrecognizedFlagError as error:
        dotted = _fields_called(error.flagname)
        if dotted:
            print(
                f"{pathlib.Path(argv[0]).name}: no flag is called --{error.flagname}. "
                "A field of the config is set by its dotted name: did you mean "
                f"{' or '.join(f'--{name}' for name in dotted)}?",
                file=sys.stderr,
            )
            sys.exit(1)
    except flags.Error:
        pass  # The next line tells it as absl does.
    return app.parse_flags_with_usage(rest)


def _fields_called(name: str) -> list[str]:
    """Returns the dotted names that end so, of any model and task."""
    _quiet.import_tensorflow()
    from keras_llm import models, training
    from keras_llm.data import DataConfig

    sections: dict[str, list[Any]] = {
        "data": [DataConfig],
        "train": [training.TrainConfig],
        "tokenizer": [training.TokenizerConfig],
        "adapter": [models.AdapterConfig, models.PromptConfig],
        "task": list(training.TASKS.values()),
        "model": [kind.config for kind in models.ARCHITECTURES.values()],
    }
    return [
        f"{section}.{name}"
        for section, kinds in sections.items()
        if any(name in [f.name for f in dataclasses.fields(kind)] for kind in kinds)
    ]
