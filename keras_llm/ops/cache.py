"""Key/value caches [B, K, C, H]: how they are filled and how one slot is written."""

from keras import ops


def fill(x_BKTH, capacity):
    """Returns [B, K, C, H]: `x_BKTH` in slots 0..T-1, zeros after it.

    Args:
        x_BKTH: Keys or values of a prompt.
        capacity: C >= T, int or scalar int tensor.
    """
    batch, heads, length, size = ops.shape(x_BKTH)
    rest = ops.zeros((batch, heads, capacity - length, size), dtype=x_BKTH.dtype)
    return ops.concatenate([x_BKTH, rest], axis=2)


def slots(position_B, heads):
    """Returns int32 [B * K, 3]: where each row and head writes its next vector.

    They depend on the position alone: computed once a step, used by every layer.

    >>> np.asarray(slots(np.array([4, 9]), heads=2))
    array([[0, 0, 4],
           [0, 1, 4],
           [1, 0, 9],
           [1, 1, 9]], dtype=int32)
    """
    position_B = ops.cast(position_B, "int32")
    row_B1 = ops.arange(ops.shape(position_B)[0], dtype="int32")[:, None]
    head_1K = ops.arange(heads, dtype="int32")[None, :]
    parts = [row_B1 + 0 * head_1K, 0 * row_B1 + head_1K]
    parts.append(position_B[:, None] + 0 * head_1K)
    return ops.reshape(ops.stack(parts, axis=-1), (-1, 3))


def write(cache_BKCH, slots, x_BKH):
    """Returns the cache with one vector per row and head replaced.

    Within a TensorFlow loop the update happens in place.

    Args:
        cache_BKCH: Keys or values.
        slots: Int32 [B * K, 3] from `slots`.
        x_BKH: The new vectors.
    """
    updates = ops.reshape(x_BKH, (-1, x_BKH.shape[-1]))
    return ops.scatter_update(cache_BKCH, slots, updates)
