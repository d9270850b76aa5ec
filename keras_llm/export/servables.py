"""Which signatures a model is exported with, by its architecture and its head."""

from collections.abc import Sequence
from typing import Any

from keras_llm.core import checks
from keras_llm.export.answers import AnswerServable
from keras_llm.export.classifier import ClassifierServable
from keras_llm.export.embedding import EmbeddingServable
from keras_llm.export.fill_mask import FillMaskServable
from keras_llm.export.language_model import LanguageModelServable
from keras_llm.export.servable import Servable
from keras_llm.export.tagger import TaggerServable
from keras_llm.export.text_vae import TextVAEServable

SERVABLES: dict[str, type[Servable]] = {
    "gemma": LanguageModelServable,
    "gpt2": LanguageModelServable,
    "llama": LanguageModelServable,
    "lstm_classifier": ClassifierServable,
    "lstm_lm": LanguageModelServable,
    "lstm_seq2seq": LanguageModelServable,
    "t5": LanguageModelServable,
    "text_vae": TextVAEServable,
}

# Of a BERT, by its head.
HEADS: dict[str, type[Servable]] = {
    "answer": AnswerServable,
    "classify": ClassifierServable,
    "embed": EmbeddingServable,
    "masked_lm": FillMaskServable,
    "tag": TaggerServable,
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
    if name == "bert":
        return HEADS[model.config.head](model, tokenizer, jit, weights)
    checks.check_choice("architecture", name, ("bert", *SERVABLES))
    return SERVABLES[name](model, tokenizer, jit, weights)
