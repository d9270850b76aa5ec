"""Which key may each query attend to: boolean masks, True where it may.

Every function is pure and returns a mask that broadcasts against attention
scores [B, N, T, C]; `combine` joins them and `as_bias` turns the result into the
numbers that are added to the scores.
"""

import functools

from keras import ops

# Added to a score, it makes the weight exactly zero after a float32 softmax, yet a
# row in which everything is masked stays finite.
MASKED = -1e9


def causal(length):
    """Returns [1, 1, T, T]: a query attends to itself and what came before.

    Args:
        length: T, int or scalar int tensor.

    >>> np.asarray(causal(3))[0, 0].astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    """
    time_T = ops.arange(length, dtype="int32")
    return (time_T[:, None] >= time_T[None, :])[None, None]


def sliding_window(length, window):
    """Returns [1, 1, T, T]: a query reaches back over `window` tokens.

    The window counts the query itself; what comes after it is left to `causal`.

    Args:
        length: T, int or scalar int tensor.
        window: Number of tokens in reach, at least 1.

    Source: Beltagy et al. 2020, section 3.1, https://arxiv.org/abs/2004.05150.

    >>> np.asarray(combine(causal(3), sliding_window(3, 2)))[0, 0].astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 1, 1]])
    """
    time_T = ops.arange(length, dtype="int32")
    return (time_T[:, None] - time_T[None, :] < window)[None, None]


def real_tokens(lengths, length):
    """Returns bool [B, T]: True before each row's own length.

    Args:
        lengths: Int tensor [B], the number of real tokens of each row.
        length: T, int or scalar int tensor.

    >>> np.asarray(real_tokens(np.array([2, 0]), 3)).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])
    """
    time_T = ops.arange(length, dtype="int32")
    return time_T[None, :] < ops.cast(lengths, "int32")[:, None]


def padding(real_BT):
    """Returns [B, 1, 1, T]: no query attends to padding.

    Args:
        real_BT: Bool tensor [B, T], True for a real token.
    """
    return ops.cast(real_BT, "bool")[:, None, None, :]


def segments(token_ids_BT, separator_id):
    """Returns int32 [B, T]: the number of separators up to and including t.

    A separator belongs to the document that it opens.

    >>> np.asarray(segments(np.array([[5, 0, 7, 0, 0]]), separator_id=0))
    array([[0, 1, 1, 2, 3]], dtype=int32)
    """
    is_separator = ops.equal(token_ids_BT, separator_id)
    return ops.cumsum(ops.cast(is_separator, "int32"), axis=-1)


def same_segment(segments_BT):
    """Returns [B, 1, T, T]: query and key belong to the same document."""
    return ops.equal(segments_BT[:, None, :, None], segments_BT[:, None, None, :])


def segment_starts(segments_BT):
    """Returns int32 [B, T]: the position at which t's document begins.

    Segments never decrease with t, so the start is the number of tokens in
    earlier segments.

    >>> np.asarray(segment_starts(np.array([[0, 1, 1, 2, 3]])))
    array([[0, 1, 1, 3, 4]], dtype=int32)
    """
    earlier_BTT = segments_BT[:, None, :] < segments_BT[:, :, None]
    return ops.sum(ops.cast(earlier_BTT, "int32"), axis=-1)


def cached(position_B, capacity, window=None, start_B=None):
    """Returns [B, 1, 1, C]: the cache slots that the token at `position` sees.

    Args:
        position_B: Int32 [B], the slot that holds the current token.
        capacity: C, int or scalar int tensor.
        window: Tokens in reach, the current one included; None for all.
        start_B: Int32 [B], the first slot of the current document; None for 0.
    """
    slot_1C = ops.arange(capacity, dtype="int32")[None, :]
    position_B1 = position_B[:, None]
    mask_BC = slot_1C <= position_B1
    if window is not None:
        mask_BC = ops.logical_and(mask_BC, slot_1C > position_B1 - window)
    if start_B is not None:
        mask_BC = ops.logical_and(mask_BC, slot_1C >= start_B[:, None])
    return mask_BC[:, None, None, :]


def combine(*masks):
    """Returns the conjunction of the masks that are not None, or None."""
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(ops.logical_and, given) if given else None


def as_bias(mask):
    """Returns float32: 0 where the mask is True, `MASKED` elsewhere."""
    return ops.where(mask, 0.0, MASKED)
