"""How well an encoder finds what stands behind masks, over a text."""

from typing import Any

import keras
import tensorflow as tf

from keras_llm import data
from keras_llm.evaluation.context import measured_context
from keras_llm.training import Experiment, MaskedLanguageModel, ReplacedTokens
from keras_llm.training.replicas import Workers

_BATCH_SIZE = 32


def evaluate_masked(
    model: keras.Model,
    tokenizer: Any,
    text: Any,
    context: int | None = None,
    **text_fields: Any,
) -> dict[str, Any]:
    """Masks 15 % of a text's tokens, the same ones every time, and has them found.

    Args:
        model: A `bert` with the head "masked_lm", or an `electra`.
        tokenizer: Its tokenizer.
        text: Files, folders, globs, or a folder from `data.prepare`.
        context: Tokens a row, the frame's two included; None for the model's
            positions, at most 1,024.
        **text_fields: Fields of `data.TextConfig`.

    Returns:
        The figures of the task that trains such a model, and `num_rows`: `loss`,
        `accuracy` and `perplexity` of `MaskedLanguageModel`, or those of
        `ReplacedTokens`.

    Raises:
        data.DataError: There is no text to be found.
        ValueError: A context beyond the model's positions, or no mask id.

    >>> import tempfile
    >>> from keras_llm import models, tokenizers
    >>> tokenizer = tokenizers.WordPieceTokenizer(
    ...     ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "whale"])
    >>> config = models.BertConfig(
    ...     vocab_size=6, max_positions=16, width=4, num_layers=1, num_heads=2)
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("whale " * 40)
    ...     file.flush()
    ...     found = evaluate_masked(models.build(config), tokenizer, file.name)
    >>> sorted(found)
    ['accuracy', 'loss', 'num_rows', 'perplexity']
    """
    task: MaskedLanguageModel | ReplacedTokens = MaskedLanguageModel()
    if model.config.architecture == "electra":
        task = ReplacedTokens()
    experiment = Experiment(
        model=model.config,
        task=task,
        data=data.DataConfig(
            context=measured_context(model, context),
            batch_size=_BATCH_SIZE,
            separate_documents=False,
            **text_fields,
        ),
    )
    experiment = task.fill_in(experiment, tokenizer, text)
    batches = task.validation_batches(experiment, text, tokenizer, Workers(1, 0))
    return task.validator(tf.distribute.get_strategy(), model, batches)().to_dict()
