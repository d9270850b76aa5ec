"""Loss, perplexity and bits per byte of a model over a text."""

from typing import Any

import keras
import tensorflow as tf

from keras_llm import data
from keras_llm.evaluation.context import measured_context
from keras_llm.training import Validation, text_validator

_BATCH_TOKENS = 8_192


def evaluate(
    model: keras.Model,
    tokenizer: Any,
    text: Any,
    context: int | None = None,
    add_separators: bool | None = None,
    json_field: str = "text",
    invalid_utf8: str = "error",
    document_separator: str | None = None,
    unicode_form: str = "none",
) -> Validation:
    """Predicts every token of a text once and returns the mean loss, exactly.

    The text is cut into rows of `context` tokens; a row sees nothing before it, so
    a longer context gives a lower loss.

    Args:
        model: A built language model.
        tokenizer: Its tokenizer.
        text: Files, folders, globs, or a folder from `data.prepare`.
        context: Tokens a row; None for the model's positions, at most 1,024.
        add_separators: Whether each document opens with the end token; None does
            as a prepared folder does, else so for a model that keeps documents
            apart.
        json_field: Member of each JSON line that holds its text.
        invalid_utf8: "error", or "replace" to read U+FFFD for what is not UTF-8.
        document_separator: Text between the documents of a plain file; None for
            one document a file.
        unicode_form: "none", or "nfc" to compose letters and accents.

    Raises:
        data.DataError: There is no text to be found, or a prepared folder was
            written otherwise than asked.
        ValueError: `context` exceeds the model's positions, or `invalid_utf8` or
            `unicode_form` is none of its choices.

    >>> import tempfile
    >>> from keras_llm import models, tokenizers
    >>> config = models.GPT2Config(
    ...     vocab_size=257, max_positions=8, width=8, num_layers=1, num_heads=2)
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("床前明月光")
    ...     file.flush()
    ...     result = evaluate(
    ...         models.build(config), tokenizers.ByteTokenizer(), file.name)
    >>> result.num_tokens, result.num_bytes  # Nothing stands before the first byte.
    (14, 14)
    """
    context = measured_context(model, context)
    separate = model.config.separator_id is not None
    prepared = data.prepared_folder(text)
    if add_separators is None:
        add_separators = separate
        if prepared is not None:
            add_separators = data.PreparedCorpus(prepared).config.add_separators
    config = data.DataConfig(
        json_field=json_field,
        document_separator=document_separator,
        unicode_form=unicode_form,
        invalid_utf8=invalid_utf8,
        add_separators=add_separators,
        context=context,
        batch_size=max(1, _BATCH_TOKENS // context),
        separate_documents=separate and add_separators,
    )
    batches = data.validation_batches(text, tokenizer, config)
    return text_validator(tf.distribute.get_strategy(), model, batches)()
