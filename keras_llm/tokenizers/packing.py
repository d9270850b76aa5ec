"""Hash tables made of plain constant tensors, built once by hash-and-displace.

Every key is hashed to a bucket and a column. Each bucket gets a shift such that the
slots `shift[bucket] + column` of all keys differ. A look-up then computes one slot and
compares what stands there with the key: no probing, no collisions to follow.

Source: Tarjan and Yao 1979, "Storing a sparse table"; Belazzougui, Botelho and
Dietzfelbinger 2009, "Hash, displace, and compress".
"""

import numpy as np
import tensorflow as tf

_FOLD, _HASH_BITS = 32, 64
_ATTEMPTS = 100


class Packing(tf.Module):
    """Gives every key of a fixed set a slot of its own.

    Args:
        keys: int64 [n, k], n different keys of k parts.

    Attributes:
        slots: Where each key stands, int64 [n].
        num_slots: How many slots there are, about 3 to 4 times n.

    Raises:
        ValueError: The keys repeat, or are so chosen that no hash tells them apart.

    >>> packing = Packing(np.array([[3], [14], [15]]))
    >>> packing.find(tf.constant([[3, 14, 15]], tf.int64)).numpy() == packing.slots
    array([ True,  True,  True])
    """

    def __init__(self, keys: np.ndarray):
        super().__init__(name="packing")
        buckets, columns = (
            max(4, number.bit_length()) for number in (len(keys) // 3, len(keys))
        )
        self._bucket_mask, self._column_mask = (1 << buckets) - 1, (1 << columns) - 1
        # The highest bits of a product: a difference anywhere in the key reaches them.
        self._bucket_shift = _HASH_BITS - buckets
        self._column_shift = self._bucket_shift - columns
        bucket, column = self._choose_multipliers(keys)
        shift, self.num_slots = displace(bucket, column, self._bucket_mask + 1)
        # Any key at all, in the set or not, has a slot.
        self.num_slots = max(self.num_slots, int(shift.max()) + self._column_mask + 1)
        self.slots = shift[bucket] + column
        with tf.init_scope(), tf.device("CPU:0"):
            self._shift = tf.constant(shift, tf.int32)

    def _choose_multipliers(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws hash multipliers until no two keys agree in bucket and column."""
        rng = np.random.default_rng(0)
        # A product carries upwards only: fold what is high into what is low first.
        folded = keys ^ (keys >> _FOLD)
        for _ in range(_ATTEMPTS):
            multipliers = rng.integers(-(2**63), 2**63 - 1, (keys.shape[1], 1)) | 1
            hashed = (folded * multipliers.T).sum(axis=1, dtype=np.int64)
            bucket = (hashed >> self._bucket_shift) & self._bucket_mask
            column = (hashed >> self._column_shift) & self._column_mask
            if len(np.unique(bucket << 32 | column)) == len(keys):
                self._multipliers = multipliers
                return bucket, column
        raise ValueError(
            f"No hash tells the {len(keys)} entries apart. Does one of them repeat?"
        )

    def find(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns the only slot where each key can stand: int64 [k, n] to [n]."""
        folded = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, _FOLD))
        hashed = tf.reduce_sum(folded * self._multipliers, axis=0)
        bucket = _bits(hashed, self._bucket_shift, self._bucket_mask)
        column = _bits(hashed, self._column_shift, self._column_mask)
        return tf.cast(tf.gather(self._shift, bucket), tf.int64) + column


def _bits(values: tf.Tensor, lowest: int, mask: int) -> tf.Tensor:
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(values, lowest), mask)


def displace(
    bucket: np.ndarray, column: np.ndarray, num_buckets: int
) -> tuple[np.ndarray, int]:
    """Finds a shift for every bucket such that no two keys share a slot.

    Args:
        bucket: int [n], from 0 to num_buckets - 1.
        column: int [n], not negative; keys of one bucket have different columns.
        num_buckets: How many buckets there are.

    Returns:
        The shifts, int32 [num_buckets], and the number of slots.

    >>> bucket, column = np.array([0, 0, 1]), np.array([2, 5, 2])
    >>> shift, num_slots = displace(bucket, column, num_buckets=2)
    >>> len(set((shift[bucket] + column).tolist()))
    3
    """
    num_shifts = len(bucket) + len(bucket) // 4 + 16
    while True:
        shift = _try_displace(bucket, column, num_buckets, num_shifts)
        if shift is not None:
            return shift, num_shifts + int(column.max(initial=0)) + 1
        num_shifts *= 2


def _try_displace(bucket, column, num_buckets, num_shifts):
    """Places the largest buckets first, each at a random free shift; None if stuck."""
    rng = np.random.default_rng(0)
    order = np.argsort(bucket, kind="stable")
    sizes = np.bincount(bucket, minlength=num_buckets)
    first = np.cumsum(sizes) - sizes
    num_slots = num_shifts + int(column.max(initial=0)) + 1
    taken = np.zeros(num_slots, bool)
    claim = np.zeros(num_slots, np.int64)
    shift = np.zeros(num_buckets, np.int32)
    for size in range(sizes.max(initial=0), 0, -1):
        pending = np.flatnonzero(sizes == size)
        columns = column[order[first[pending][:, None] + np.arange(size)]]
        for _ in range(1000):
            if not len(pending):
                break
            trial = rng.integers(0, num_shifts, len(pending))
            slots = columns + trial[:, None]
            free = ~taken[slots].any(axis=1)
            # Of buckets that want the same free slot, the last to claim it wins.
            claim[slots[free]] = pending[free, None]
            placed = free & (claim[slots] == pending[:, None]).all(axis=1)
            shift[pending[placed]] = trial[placed]
            taken[slots[placed]] = True
            pending, columns = pending[~placed], columns[~placed]
        if len(pending):
            return None
    return shift
