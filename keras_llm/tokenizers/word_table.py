"""Looks up whole words that are single tokens, as most words of running text are."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.packing import Packing

BLOCK_BYTES = 8
# A word's bytes, NULs behind them, and its length in the last byte: two blocks.
_LONGEST = 2 * BLOCK_BYTES - 1
_LENGTH_SHIFT = 56


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
        keys = np.frombuffer(b"".join(rows), "<i8").reshape(-1, 2)
        self._packing = Packing(keys)
        slot_keys = np.full((2, self._packing.num_slots), -1, np.int64)
        slot_ids = np.full(self._packing.num_slots, -1, np.int32)
        slot_keys[:, self._packing.slots] = keys.T
        slot_ids[self._packing.slots] = [ids[word] for word in words]
        with tf.init_scope(), tf.device("CPU:0"):
            self._keys = tf.constant(slot_keys.reshape(-1))  # Gathers fastest flat.
            self._ids = tf.constant(slot_ids)

    def find(
        self, blocks: tf.Tensor, start_W: tf.Tensor, length_W: tf.Tensor
    ) -> tf.Tensor:
        """Returns the id of each word, or -1: int32 [W].

        Args:
            blocks: The text in little-endian int64 blocks of eight bytes, with two
                blocks more behind it.
            start_W: int32, position of each word's first byte.
            length_W: int32, each word's bytes.
        """
        keys = _keys(tf.bitcast(blocks, tf.uint64), start_W, length_W)
        slots = self._packing.find(keys)
        both = slots + np.array([[0], [self._packing.num_slots]])
        equal = tf.gather(self._keys, both) == keys
        found = equal[0] & equal[1]
        return tf.where(found, tf.gather(self._ids, slots), -1)


class LongWordTable(tf.Module):
    """An immutable map from words of 16 bytes and more to token ids.

    A hash finds the one word that may be it, and the bytes are compared.

    Args:
        ids: Words to their ids; shorter words are left out.

    Raises:
        ValueError: Two of the words have one hash.
    """

    def __init__(self, ids: Mapping[bytes, int]):
        super().__init__(name="long_word_table")
        words = np.array([word for word in ids if len(word) > _LONGEST], object)
        self.longest = max(map(len, words), default=0)
        with tf.init_scope(), tf.device("CPU:0"):
            keys = _hashes(tf.constant(words, tf.string, [len(words)])).numpy()
            order = np.argsort(keys)
            if len(np.unique(keys)) < len(keys):
                raise ValueError("Two long words of the vocabulary have one hash.")
            self._keys = tf.constant(keys[order])
            self._words = tf.constant(words[order], tf.string)
            self._ids = tf.constant([ids[word] for word in words[order]], tf.int32)

    def find(
        self, bytes_P: tf.Tensor, start_W: tf.Tensor, length_W: tf.Tensor
    ) -> tf.Tensor:
        """Returns the id of each word, or -1: int32 [W].

        Args:
            bytes_P: uint8, the text.
            start_W: int32, position of each word's first byte.
            length_W: int32, each word's bytes.
        """
        asked = tf.where((length_W > _LONGEST) & (length_W <= self.longest))[:, 0]
        start, length = tf.gather(start_W, asked), tf.gather(length_W, asked)
        rows = tf.ragged.range(start, start + length)
        letters = tf.gather(_BYTES, tf.cast(tf.gather(bytes_P, rows.values), tf.int32))
        words = tf.strings.unsorted_segment_join(
            letters, rows.value_rowids(), tf.size(asked)
        )
        slots = tf.searchsorted(self._keys, _hashes(words))
        slots = tf.minimum(slots, tf.size(self._keys) - 1)
        equal = tf.gather(self._words, slots) == words
        found = tf.where(equal, tf.gather(self._ids, slots), -1)
        nothing = tf.fill(tf.shape(length_W), -1)
        return tf.tensor_scatter_nd_update(nothing, asked[:, tf.newaxis], found)


def _hashes(words: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(words, 2**62)


def _keys(blocks, start_W, length_W) -> tf.Tensor:
    """Returns the keys of words, int64 [2, W]; no token has that of a longer word."""
    block_W = tf.bitwise.right_shift(start_W, 3)
    three = tf.gather(blocks, block_W + np.arange(3, dtype=np.int32)[:, np.newaxis])
    bits_W = tf.cast(8 * tf.bitwise.bitwise_and(start_W, 7), tf.uint64)
    # Bits move across from the next block in two steps: a shift by 64 is undefined.
    carried = tf.bitwise.left_shift(
        tf.bitwise.left_shift(three[1:], tf.constant(1, tf.uint64)),
        tf.constant(63, tf.uint64) - bits_W,
    )
    aligned = tf.bitwise.bitwise_or(tf.bitwise.right_shift(three[:2], bits_W), carried)
    length = tf.minimum(length_W, _LONGEST + 1)
    mask = tf.gather(_MASKS, length + np.array([[0], [_LONGEST + 2]], np.int32))
    inside = tf.bitwise.bitwise_and(tf.bitcast(aligned, tf.int64), mask)
    ends = tf.bitwise.left_shift(
        tf.cast(length, tf.int64), tf.constant(_LENGTH_SHIFT, tf.int64)
    )
    return tf.stack([inside[0], tf.bitwise.bitwise_or(inside[1], ends)])


def _masks() -> np.ndarray:
    """Returns the bits that words of 0 to 16 bytes fill in block 0, then block 1."""
    rows = [b"\xff" * min(n, _LONGEST) for n in range(_LONGEST + 2)]
    padded = b"".join(row.ljust(2 * BLOCK_BYTES, b"\0") for row in rows)
    return np.frombuffer(padded, "<i8").reshape(-1, 2).T.reshape(-1)


_MASKS = _masks()
_BYTES = np.array([bytes([b]) for b in range(256)], object)
