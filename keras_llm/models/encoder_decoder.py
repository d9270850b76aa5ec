"""What the encoder-decoders share: their inputs, and which source tokens are real."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers import RowLayout
from keras_llm.ops import masks


def check_start_id(config) -> None:
    """Raises ValueError unless the decoder's first token is one of the vocabulary."""
    checks.check_not_negative("start_id", config.start_id)
    if config.vocab_size and not config.start_id < config.vocab_size:
        raise ValueError(
            "`start_id` must be an id of the vocabulary. Received: "
            f"start_id={config.start_id}, vocab_size={config.vocab_size}."
        )


def source_inputs() -> dict[str, keras.KerasTensor]:
    """Returns the inputs of a functional encoder-decoder, by name.

    `source_ids` int32 [B, S], right-padded; `source_lengths` int32 [B];
    `token_ids` int32 [B, T], what the decoder reads: its start token, then the
    target without its last token.
    """
    return {
        "source_ids": keras.Input((None,), dtype="int32", name="source_ids"),
        "source_lengths": keras.Input((), dtype="int32", name="source_lengths"),
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
    }


def source_layout(inputs, dtype):
    """Returns the source's positions [1, S] and which of its tokens are real [B, S]."""
    lengths = ops.maximum(inputs["source_lengths"], 1)
    layout = RowLayout(name="encoder_layout", dtype=dtype)
    return layout(inputs["source_ids"], lengths)


def memory_mask(lengths, length):
    """Returns bool [B, S], as `source_layout` does for a cached memory.

    A row without a token would attend to all of its batch's padding: its first
    place stands for it.
    """
    return masks.real_tokens(ops.maximum(lengths, 1), length)
