"""Which signatures a model is exported with, by its architecture."""

from collections.abc import Sequence
from typing import Any

from keras_llm.core import checks
from keras_llm.export.language_model import LanguageModelServable
from keras_llm.export.servable import Servable

SERVABLES: dict[str, type[Servable]] = {
    "gemma": LanguageModelServable,
    "gpt2": LanguageModelServable,
    "llama": LanguageModelServable,
    "lstm_lm": LanguageModelServable,
    "lstm_seq2seq": LanguageModelServable,
    "t5": LanguageModelServable,
}


def servable(model, tokenizer, jit: bool, weights: Sequence[Any]) -> Servable:
    """Returns what is exported of a model.

    Args:
        model: A built model.
        tokenizer: Its tokenizer.
        jit: Whether XLA compiles it.
        weights: The variables that it computes with.

    Raises:
        ValueError: Nothing is known of how to serve its architecture.
    """
    name = model.config.architecture
    checks.check_choice("architecture", name, tuple(SERVABLES))
    return SERVABLES[name](model, tokenizer, jit, weights)
