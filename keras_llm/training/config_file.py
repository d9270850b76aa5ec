"""Experiments in Python files: one `get_config()` each."""

import difflib
import importlib.util
import os
import pathlib

import keras_llm
from keras_llm.training.experiment import Experiment

_SHIPPED = pathlib.Path(keras_llm.__file__).parent / "configs"


def load_config(path: str | os.PathLike[str]) -> Experiment:
    """Runs a config file and returns what its `get_config()` returns.

    A config file is code of yours: run none that you would not run otherwise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no `get_config`, or that returns no `Experiment`.
    """
    file = pathlib.Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise FileNotFoundError(
            "A config is a Python file with `get_config()`, and no such file is there. "
            f"Received: {path}. {_hint(file)}"
        )
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # A .py file has both.
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    experiment = get_config() if callable(get_config) else None
    if not isinstance(experiment, Experiment):
        raise ValueError(
            "A config file defines `get_config()`, which returns a "
            f"`training.Experiment`. Received: {path}, with {experiment!r}."
        )
    return experiment


def _hint(file: pathlib.Path) -> str:
    """Returns what may have been meant: a neighbour, or else a config shipped here."""
    shipped = sorted(p for p in _SHIPPED.glob("*.py") if p.name != "__init__.py")
    known = {p.name: p for p in [*shipped, *file.parent.glob("*.py")]}
    near = difflib.get_close_matches(file.name, known, n=1)
    if near:
        return f"Did you mean {known[near[0]]}?"
    return f"In {_SHIPPED} there are: {', '.join(path.stem for path in shipped)}."
