"""A batch of texts as one vector of bytes.

P positions: the texts' bytes with one separator before, between and after them.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.word_table import BLOCK_BYTES

# A block and this is not 0 when the block holds a byte beyond ASCII.
HIGH_BITS = np.frombuffer(b"\x80" * BLOCK_BYTES, np.int64)[0]


class JoinedTexts(NamedTuple):
    """The texts, end to end."""

    blocks: tf.Tensor  # int64, the bytes in blocks of eight, with two blocks more.
    bytes_P: tf.Tensor  # uint8, the texts with a NUL before, between and after.
    separator_B: tf.Tensor  # int32 [B + 1], where those NULs stand.


def join_texts(strings_B: tf.Tensor) -> JoinedTexts:
    """Joins texts, strings [B]."""
    joined = tf.strings.reduce_join(
        tf.concat([[""], strings_B, [""]], axis=0), separator="\0"
    )
    separator_B = tf.cumsum(tf.concat([[0], tf.strings.length(strings_B) + 1], axis=0))
    num_bytes = separator_B[-1] + 1
    blocks = tf.io.decode_raw(
        joined, tf.int64, fixed_length=(num_bytes // BLOCK_BYTES + 3) * BLOCK_BYTES
    )
    bytes_P = tf.reshape(tf.bitcast(blocks, tf.uint8), [-1])[:num_bytes]
    return JoinedTexts(blocks, bytes_P, separator_B)


def to_blocks(bytes_P: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [P] in little-endian blocks of eight, with two blocks more."""
    missing = -tf.size(bytes_P) % BLOCK_BYTES + 2 * BLOCK_BYTES
    padded = tf.pad(bytes_P, [[0, missing]])
    return tf.bitcast(tf.reshape(padded, [-1, BLOCK_BYTES]), tf.int64)
