"""Tokens and where in their text they stand."""

import tensorflow as tf


def check_locates(tokenizer, head: str) -> None:
    """Raises ValueError unless a tokenizer tells where its tokens are."""
    if not hasattr(tokenizer, "encode_with_offsets"):
        raise ValueError(
            f"A head {head!r} points into its text, so its tokenizer must tell where "
            f"each token is: one of kind 'wordpiece'. Received: {tokenizer.kind!r}."
        )


def in_column(ragged, column_B):
    """Returns the value in a column of each row, 0 in rows that have none.

    Args:
        ragged: int32 [B, (N)].
        column_B: int32 [B], each below its row's length, or 0.
    """
    dense = tf.pad(ragged.to_tensor(), [[0, 0], [0, 1]])
    return tf.gather(dense, column_B, batch_dims=1)
