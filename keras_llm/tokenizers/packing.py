"""Hash tables made of plain constant tensors, built once by hash-and-displace.

Every key has a bucket and a column. Each bucket gets a shift such that the slots
`shift[bucket] + column` of all keys differ. A look-up is then two gathers and one
comparison, with no probing: the table holds the bucket of each slot's owner, and a
slot, a bucket and hence a column belong to one key only.

Source: Tarjan and Yao 1979, "Storing a sparse table"; Belazzougui, Botelho and
Dietzfelbinger 2009, "Hash, displace, and compress".
"""

import numpy as np


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
    num_shifts = 2 * len(bucket) + 16
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
