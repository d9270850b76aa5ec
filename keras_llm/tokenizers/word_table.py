"""Looks up whole words that are single tokens, as most words of running text are."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.packing import displace

# A word's bytes, NULs behind them, and its length in the last byte: two int64.
_KEY_BYTES = 16
_LONGEST = _KEY_BYTES - 1
# Which bits of the 64-bit hash are used; the low ones mix least.
_FOLD, _COLUMN_BITS, _BUCKET_BITS = 32, 28, 46


class WordTable(tf.Module):
    """An immutable map from words of at most 15 bytes to token ids.

    Words are compared byte by byte, not by hash: no text can provoke a collision.

    Args:
        ids: Words to their ids; longer words are left out.
    """

    def __init__(self, ids: Mapping[bytes, int]):
        super().__init__(name="word_table")
        words = [word for word in ids if len(word) <= _LONGEST]
        rows = [word.ljust(_LONGEST, b"\0") + bytes([len(word)]) for word in words]
        keys = np.frombuffer(b"".join(rows), np.int64).reshape(-1, 2)
        self._bucket_mask = (1 << max(4, (len(words) // 3).bit_length())) - 1
        self._column_mask = (1 << max(4, len(words).bit_length() + 1)) - 1
        bucket, column = self._choose_multipliers(keys)
        shift, num_slots = displace(bucket, column, self._bucket_mask + 1)
        slot = shift[bucket] + column
        slot_keys = np.full((num_slots, 2), -1, np.int64)  # Its length byte is 255.
        slot_ids = np.full(num_slots, -1, np.int32)
        slot_keys[slot] = keys
        slot_ids[slot] = [ids[word] for word in words]
        with tf.init_scope(), tf.device("CPU:0"):
            self._shift = tf.constant(shift)
            self._keys = tf.constant(slot_keys)
            self._ids = tf.constant(slot_ids)

    def _choose_multipliers(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws hash multipliers until no two words agree in bucket and column."""
        rng = np.random.default_rng(0)
        # A product carries upwards only: fold what is high into what is low first.
        folded = keys ^ (keys >> _FOLD)
        while True:
            self._multipliers = rng.integers(-(2**63), 2**63 - 1, 2) | 1
            hashed = (folded * self._multipliers).sum(axis=1, dtype=np.int64)
            bucket = (hashed >> _BUCKET_BITS) & self._bucket_mask
            column = (hashed >> _COLUMN_BITS) & self._column_mask
            if len(np.unique(bucket << 32 | column)) == len(keys):
                return bucket, column

    def find(
        self, bytes_P: tf.Tensor, start_W: tf.Tensor, length_W: tf.Tensor
    ) -> tf.Tensor:
        """Returns the id of each word, or -1: int32 [W].

        Args:
            bytes_P: uint8 text.
            start_W: int32, where each word starts in `bytes_P`.
            length_W: int32, each word's bytes.
        """
        offset = tf.range(_LONGEST)
        padded = tf.pad(bytes_P, [[0, _LONGEST]])
        window = tf.gather(padded, start_W[:, tf.newaxis] + offset)
        inside = offset < length_W[:, tf.newaxis]
        length = tf.cast(tf.minimum(length_W, 254), tf.uint8)[:, tf.newaxis]
        rows = tf.concat([tf.where(inside, window, tf.zeros_like(window)), length], 1)
        keys = tf.bitcast(tf.reshape(rows, [-1, 2, 8]), tf.int64)
        folded = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, _FOLD))
        hashed = tf.reduce_sum(folded * self._multipliers, axis=1)
        bucket = _bits(hashed, _BUCKET_BITS, self._bucket_mask)
        column = _bits(hashed, _COLUMN_BITS, self._column_mask)
        slot = tf.cast(tf.gather(self._shift, bucket), tf.int64) + column
        found = tf.reduce_all(tf.gather(self._keys, slot) == keys, axis=1)
        return tf.where(found, tf.gather(self._ids, slot), -1)


def _bits(values: tf.Tensor, lowest: int, mask: int) -> tf.Tensor:
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(values, lowest), mask)
