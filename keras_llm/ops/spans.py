"""The best stretch of a row, from scores of where it begins and ends."""

from keras import ops

from keras_llm.ops import masks


def best_span(start_BT, end_BT, allowed_BT, max_length):
    """Returns where the stretch of the highest score begins and ends.

    (s, e) = argmax over s <= e < s + max_length, s and e allowed, of
    start[s] + end[e]; of equal ones the first.

    Args:
        start_BT: Float tensor [B, T], scores of the first token.
        end_BT: Float tensor [B, T], of the last token.
        allowed_BT: Bool tensor [B, T], tokens that may be first or last.
        max_length: Tokens of the longest stretch.

    Returns:
        Int32 [B] first tokens, int32 [B] last tokens, float32 [B] scores. Where no
        token is allowed both are 0, and the score is -1e9.

    Source: Devlin et al. 2019, section 4.2, https://arxiv.org/abs/1810.04805.

    >>> start, end = np.array([[0.0, 3.0, 1.0]]), np.array([[2.0, 0.0, 1.0]])
    >>> first, last, score = best_span(start, end, np.array([[True] * 3]), 2)
    >>> int(first[0]), int(last[0]), float(score[0])
    (1, 2, 4.0)
    """
    start, end = (ops.cast(x, "float32") for x in (start_BT, end_BT))
    place = ops.arange(ops.shape(start)[1], dtype="int32")
    distance = place[None, :] - place[:, None]
    fits = (distance >= 0) & (distance < max_length)
    fits = fits[None] & allowed_BT[:, :, None] & allowed_BT[:, None, :]
    scores = ops.where(fits, start[:, :, None] + end[:, None, :], masks.MASKED)
    best_end = ops.max(scores, axis=2)
    first = ops.argmax(best_end, axis=1)
    ends = ops.argmax(scores, axis=2)
    last = ops.take_along_axis(ends, first[:, None], axis=1)[:, 0]
    score = ops.max(best_end, axis=1)
    return ops.cast(first, "int32"), ops.cast(last, "int32"), score
