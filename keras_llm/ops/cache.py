"""Key/value caches [B, K, C, H]: how they are filled and how one slot is written."""

from keras import ops

from keras_llm.ops.in_place import scatter_add


def fill(x_BKTH, capacity, real_BT):
    """Returns [B, K, C, H]: `x_BKTH` in the real tokens' slots, zeros elsewhere.

    Args:
        x_BKTH: Keys or values of right-padded prompts.
        capacity: C >= T, int or scalar int tensor.
        real_BT: Bool [B, T], True for real tokens. The slots of padding must hold
            zeros too, for `write` adds to them.
    """
    batch, heads, length, size = ops.shape(x_BKTH)
    kept = ops.where(real_BT[:, None, :, None], x_BKTH, ops.zeros_like(x_BKTH))
    rest = ops.zeros((batch, heads, capacity - length, size), dtype=x_BKTH.dtype)
    return ops.concatenate([kept, rest], axis=2)


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


def write(cache_BKCH, slots, x_BKH, compiled=False):
    """Returns the cache with one vector per row and head in slots that were zero.

    Within a TensorFlow loop the update happens in place.

    Args:
        cache_BKCH: Keys or values.
        slots: Int32 [B * K, 3] from `slots`.
        x_BKH: The new vectors, [B, K, H] or [B, K, 1, H].
        compiled: Whether XLA compiles the caller.
    """
    updates = ops.reshape(x_BKH, (-1, x_BKH.shape[-1]))
    return scatter_add(cache_BKCH, slots, updates, compiled)
