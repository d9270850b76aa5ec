"""From logits to a token: penalties, filters and inverse-CDF sampling, row by row.

Every parameter is a tensor [B], so each row of a batch has its own.
"""

from keras import ops

from keras_llm.ops import random

# Below it a division by the temperature could overflow float32; the draw has long
# been the likeliest token.
_LEAST_TEMPERATURE = 1e-6


def penalize_repetition(logits_BV, seen_BV, penalty_B):
    """Makes tokens that occurred less likely.

    A seen token's logit is divided by the penalty where positive and multiplied by
    it where negative; a penalty of 1 changes nothing.

    Args:
        logits_BV: Float tensor.
        seen_BV: Bool tensor: which tokens the row holds already.
        penalty_B: Float tensor, positive.

    Source: Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858.

    >>> np.asarray(penalize_repetition(np.array([[2.0, -1.0, 3.0]], "float32"),
    ...     np.array([[True, True, False]]), np.array([2.0], "float32")))
    array([[ 1., -2.,  3.]], dtype=float32)
    """
    penalty_B1 = penalty_B[:, None]
    changed = ops.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return ops.where(seen_BV, changed, logits_BV)


def cutoff(logits_BV, top_k_B, top_p_B, min_p_B):
    """Returns the smallest logit [B] that a row may still draw.

    With a row's tokens from the most to the least likely, a token stays while all
    three hold: its rank is below `top_k` (0: off); the probability before it,
    among the `top_k`, is below `top_p` (1: off); its probability is at least
    `min_p` times the greatest (0: off). The most likely token always stays, and
    tokens whose logit equals the cut-off stay with it.

    Args:
        logits_BV: Float32 tensor, already divided by the temperature.
        top_k_B: Int32 tensor.
        top_p_B: Float32 tensor in (0, 1].
        min_p_B: Float32 tensor in [0, 1].

    Source: Fan et al. 2018 (top-k), Holtzman et al. 2019 (top-p),
    https://arxiv.org/abs/1904.09751; Nguyen et al. 2024 (min-p),
    https://arxiv.org/abs/2407.01082.

    >>> logits = np.log(np.array([[0.1, 0.5, 0.4]], "float32"))
    >>> lowest = cutoff(logits, np.array([0], "int32"),
    ...     np.array([0.6], "float32"), np.array([0.0], "float32"))
    >>> np.exp(lowest).round(3)
    array([0.4], dtype=float32)
    """
    vocab = ops.shape(logits_BV)[-1]
    sorted_BV = ops.flip(ops.sort(logits_BV, axis=-1), axis=-1)
    rank_1V = ops.arange(vocab, dtype="int32")[None]
    limit_B1 = ops.where(top_k_B > 0, top_k_B, vocab)[:, None]
    within_k = rank_1V < limit_B1
    odds_BV = ops.exp(sorted_BV - sorted_BV[:, :1]) * ops.cast(within_k, "float32")
    total_B1 = ops.sum(odds_BV, axis=-1, keepdims=True)
    before_BV = ops.cumsum(odds_BV, axis=-1) - odds_BV
    within_p = (before_BV < top_p_B[:, None] * total_B1) | (top_p_B[:, None] >= 1)
    # The greatest has odds 1, so min_p compares with the odds themselves.
    within_min = odds_BV >= min_p_B[:, None]
    kept = within_k & within_p & within_min | (rank_1V == 0)
    last_B1 = ops.sum(ops.cast(kept, "int32"), axis=-1, keepdims=True) - 1
    return ops.take_along_axis(sorted_BV, last_B1, axis=-1)[:, 0]


def draw(logits_BV, lowest_B, uniform_B):
    """Draws one token per row by inverting the distribution function.

    Of the tokens with a logit of at least `lowest`, in the order of their ids, the
    first whose cumulative probability exceeds `uniform` is taken.

    Args:
        logits_BV: Float32 tensor.
        lowest_B: Float32 tensor, at most the row's greatest logit.
        uniform_B: Float32 tensor in [0, 1 - 2**-23].

    Returns:
        Int32 [B].
    """
    greatest_B1 = ops.max(logits_BV, axis=-1, keepdims=True)
    odds_BV = ops.where(
        logits_BV >= lowest_B[:, None], ops.exp(logits_BV - greatest_B1), 0.0
    )
    cumulative_BV = ops.cumsum(odds_BV, axis=-1)
    aim_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    return ops.sum(ops.cast(cumulative_BV <= aim_B1, "int32"), axis=-1)


def greedy(logits_BV):
    """Returns the likeliest token [B] of each row, int32; the lowest id wins a tie."""
    return ops.cast(ops.argmax(logits_BV, axis=-1), "int32")


def sample(logits_BV, temperature_B, top_k_B, top_p_B, min_p_B, seed_B, step):
    """Draws one token per row; a temperature of 0 takes the likeliest.

    Args:
        logits_BV: Float32 tensor.
        temperature_B: Float32 tensor, at least 0; above 0, at least 1e-6 is used.
        top_k_B: Int32 tensor; 0 is off.
        top_p_B: Float32 tensor in (0, 1]; 1 is off.
        min_p_B: Float32 tensor in [0, 1]; 0 is off.
        seed_B: Int32 tensor.
        step: Int32 scalar, the number of tokens that the row has drawn.

    Returns:
        Int32 [B]. A row's token depends on that row's values alone.
    """
    is_greedy_B = temperature_B <= 0
    warmth_B = ops.where(
        is_greedy_B, 1.0, ops.maximum(temperature_B, _LEAST_TEMPERATURE)
    )
    # From the greatest down: nothing can overflow upwards.
    greatest_B1 = ops.max(logits_BV, axis=-1, keepdims=True)
    warm_BV = (logits_BV - greatest_B1) / warmth_B[:, None]
    lowest_B = cutoff(warm_BV, top_k_B, top_p_B, min_p_B)
    drawn_B = draw(warm_BV, lowest_B, random.uniform(seed_B, step))
    return ops.where(is_greedy_B, greedy(logits_BV), drawn_B)
