"""Looks up the ranks of pairs of ids in constant tensors."""

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.packing import Packing

NO_RANK = int(np.iinfo(np.int32).max)
_ID_BITS = 21  # Of each id and of the rank: 63 bits in all.


class PairTable(tf.Module):
    """An immutable map from pairs of ids to ranks.

    A key and its rank share one int64, so that a look-up takes two gathers.

    Args:
        pairs: Keys, int [n, 2], all different.
        ranks: Their ranks, int [n]; NO_RANK for a key that is listed without one.
        vocab_size: Ids look-ups may name run from 0 to `vocab_size`.

    Attributes:
        slots: Where each key stands, int [n].
        num_slots: One more than the table has: the last stands for all other pairs.
    """

    def __init__(self, pairs: np.ndarray, ranks: np.ndarray, vocab_size: int):
        super().__init__(name="pair_table")
        if not vocab_size < 2**_ID_BITS - 1:
            raise ValueError(
                f"A vocabulary may hold {2**_ID_BITS - 2:,} tokens at most. Received: "
                f"{vocab_size:,}."
            )
        keys = pairs[:, 0].astype(np.int64) << _ID_BITS | pairs[:, 1]
        self._packing = Packing(keys[:, np.newaxis])
        self.slots = self._packing.slots
        self.num_slots = self._packing.num_slots + 1
        entries = np.full(self._packing.num_slots, -1, np.int64)
        ranks = np.minimum(ranks, 2**_ID_BITS - 1).astype(np.int64)
        entries[self.slots] = keys << _ID_BITS | ranks
        with tf.init_scope(), tf.device("CPU:0"):
            self._entries = tf.constant(entries)

    def find(self, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the slots and the ranks of pairs, int32 of the ids' shape."""
        keys = tf.bitwise.bitwise_or(
            tf.bitwise.left_shift(tf.cast(first, tf.int64), _ID_BITS),
            tf.cast(second, tf.int64),
        )
        slots = self._packing.find(keys[tf.newaxis])
        entries = tf.gather(self._entries, slots)
        known = tf.bitwise.right_shift(entries, _ID_BITS) == keys
        ranks = tf.bitwise.bitwise_and(tf.cast(entries, tf.int32), 2**_ID_BITS - 1)
        ranked = known & (ranks != 2**_ID_BITS - 1)
        return (
            tf.where(known, tf.cast(slots, tf.int32), self.num_slots - 1),
            tf.where(ranked, ranks, NO_RANK),
        )
