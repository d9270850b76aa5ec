"""Prompt tuning: vectors that are learnt before every conversation."""

import copy
import dataclasses
from typing import Any

import keras
import numpy as np

from keras_llm.core import Config, checks

# They read one row of ids from left to right, so that a prompt is more ids in front.
PROMPTED = ("gemma", "gpt2", "llama", "lstm_lm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig(Config):
    """Vectors that are learnt before every conversation, instead of weights.

    They take the places of its first tokens, by ids beyond the vocabulary, which no
    text turns into. They start as rows of the model's own table.

    Source: Lester, Al-Rfou and Constant 2021, https://arxiv.org/abs/2104.08691.

    >>> PromptConfig(tokens=0)
    Traceback (most recent call last):
    ...
    ValueError: `tokens` must be positive. Received: tokens=0.
    """

    kind: str = "prompt"
    tokens: int = 20  # How many; `data.context` has them in it.
    # The rows that they start as are drawn from the table's first so many; in most
    # vocabularies the commoner tokens come first.
    first_rows: int = 5_000

    def __post_init__(self):
        checks.check_choice("kind", self.kind, ("prompt",))
        checks.check_positive("tokens", self.tokens)
        checks.check_positive("first_rows", self.first_rows)


def start_prompt(model: keras.Model, config: PromptConfig, vectors: Any) -> None:
    """Gives a built model a prompt; nothing is frozen.

    Args:
        model: From `models.build` or `models.load`.
        config: Its size.
        vectors: Its values [P, D].

    Raises:
        ValueError: The model is no language model without an encoder.
    """
    table = prompted_table(model)
    table.prompt.start(vectors, table.path)
    model.adapter = config


def first_vectors(model: keras.Model, config: PromptConfig, seed: int | None) -> Any:
    """Returns the vectors [P, D] that a prompt starts as: rows of the model's table."""
    table = prompted_table(model)
    rows = min(config.first_rows, table.vocab_size)
    ids = np.random.default_rng(seed).choice(
        rows, config.tokens, replace=config.tokens > rows
    )
    return keras.ops.take(table.embeddings, ids, axis=0)


def prompted_table(model: keras.Model) -> Any:
    """Returns the table of tokens that a model's prompt is part of.

    Raises:
        ValueError: A prompt is nothing for its architecture.
    """
    name = model.config.architecture
    if name not in PROMPTED:
        raise ValueError(
            "A prompt is learnt before what a language model without an encoder "
            f"reads: {', '.join(PROMPTED)}. Received: architecture={name!r}. Take "
            "models.AdapterConfig."
        )
    return model.get_layer("token_embedding")


def prompt_ids(model: keras.Model) -> tuple[int, ...]:
    """Returns the ids of a model's learnt prompt; none without one."""
    config = getattr(model, "adapter", None)
    if not isinstance(config, PromptConfig):
        return ()
    return virtual_ids(model.config, config)


def virtual_ids(model_config: Any, config: PromptConfig) -> tuple[int, ...]:
    """Returns the ids of a prompt's vectors: those that follow the vocabulary."""
    first = model_config.vocab_size
    return tuple(range(first, first + config.tokens))


def prompted_tokenizer(tokenizer: Any, model_config: Any, adapter: Any) -> Any:
    """Returns the tokenizer whose conversations begin with a prompt's ids.

    Args:
        tokenizer: The base's; it is not changed.
        model_config: The base's, with its vocabulary's size.
        adapter: Of the model; where it is no prompt, the tokenizer is as it was.
    """
    if not isinstance(adapter, PromptConfig) or tokenizer.chat is None:
        return tokenizer
    begin_ids = virtual_ids(model_config, adapter) + tokenizer.chat.begin_ids
    found = copy.copy(tokenizer)
    found.use_chat(tokenizer.chat.replace(begin_ids=begin_ids))
    return found


def check_prompted(model: keras.Model, tokenizer: Any) -> None:
    """Raises ValueError unless conversations begin with the model's prompt, if any."""
    vocab_size = model.config.vocab_size
    called = tuple(n for n in tokenizer.chat.begin_ids if n >= vocab_size)
    if called != prompt_ids(model):
        raise ValueError(
            "A learnt prompt is part of a model, and called for by its tokenizer. "
            f"Received: a model with a prompt of {len(prompt_ids(model))} vectors, a "
            f"tokenizer whose conversations begin with {len(called)}. Take both from "
            "one folder, by models.load and models.load_tokenizer."
        )


def refuse_prompt(model: keras.Model, rule: str, remedy: str) -> None:
    """Raises ValueError, of a rule and a remedy, where a model has a learnt prompt."""
    if ids := prompt_ids(model):
        raise ValueError(
            f"{rule} Received: a model with a learnt prompt of {len(ids)} vectors. "
            f"{remedy}"
        )
