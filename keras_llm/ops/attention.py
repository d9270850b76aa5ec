"""Scaled dot-product attention, spelt out in products and a softmax."""

import keras
from keras import ops


def attend(
    query_BNTH,
    key_BKCH,
    value_BKCH,
    bias=None,
    scale=1.0,
    drop=None,
    sums=False,
    soft_cap=None,
):
    """Returns [B, N, T, H]: for every query the weighted mean of the values.

    y = softmax(scale * q @ transpose(k) + bias) @ v, with the softmax in float32.
    Query head n reads key/value head n // (N / K).

    Args:
        query_BNTH: T = 1 while decoding.
        key_BKCH: K divides N; C is the capacity of a cache while decoding.
        value_BKCH: Like the keys.
        bias: Float [B or 1, N or 1, T or 1, C], added to the scores; None for none.
        scale: Factor on the scores.
        drop: Function from weights to weights, as dropout is; None for none.
        sums: Whether both products are spelt as sums. XLA fuses these on CPU; for a
            single query its batched product takes twice the time (batch 8, C = 96).
        soft_cap: Bound c on the scores' size, before the bias: c * tanh(score / c);
            None for none.
    """
    dtype = value_BKCH.dtype
    wide = keras.backend.result_type(dtype, "float32")
    heads, shared = query_BNTH.shape[1], key_BKCH.shape[1]
    query = query_BNTH if scale == 1 else query_BNTH * scale
    # The query heads of one group lie together, so [N, T] reads as
    # [K, (N / K) T] without moving anything: each group becomes more rows of
    # one product with the key head that it shares.
    rows = together = capacity = None
    if shared < heads:  # Looked up once: in a graph it takes nodes.
        rows, capacity = ops.shape(query)[2], ops.shape(key_BKCH)[2]
        together = heads // shared * rows
    size = query.shape[-1]
    query = _regroup(query, shared, together, size)
    if sums:
        query, key_BKCH, value_BKCH = (
            ops.cast(x, wide) for x in (query, key_BKCH, value_BKCH)
        )
        scores = ops.sum(query[:, :, :, None] * key_BKCH[:, :, None], axis=-1)
    else:
        scores = ops.einsum("bkqh,bkch->bkqc", query, key_BKCH)
    scores = ops.cast(_regroup(scores, heads, rows, capacity), wide)
    if soft_cap is not None:
        scores = soft_cap * ops.tanh(scores / soft_cap)
    if bias is not None:
        # The spare axis keeps TensorFlow from fusing product and sum into one
        # oneDNN op, which took 3 times as long as both (batch 8, C = 96).
        bias = ops.cast(bias, wide)[:, None]
        scores = ops.squeeze(scores[:, None] + bias, axis=1)
    weights = softmax(scores, dtype)
    weights = weights if drop is None else drop(weights)
    weights = _regroup(weights, shared, together, capacity)
    if sums:
        weights = ops.cast(weights, wide)
        y = ops.sum(weights[..., None] * value_BKCH[:, :, None], axis=3)
    else:
        y = ops.matmul(weights, value_BKCH)
    return _regroup(ops.cast(y, dtype), heads, rows, size)


def softmax(scores, dtype):
    """Returns weights of sum 1 over the last axis, computed in float32 at least."""
    wide = ops.cast(scores, keras.backend.result_type(dtype, "float32"))
    # (Keras warns of a softmax over one key, which is what a first token has.)
    one_key = scores.shape[-1] == 1
    weights = ops.ones_like(wide) if one_key else ops.softmax(wide, axis=-1)
    return ops.cast(weights, dtype)


def _regroup(x, heads, rows, last):
    """Reshapes [B, M, R, E] to [B, heads, rows, last], unless M is `heads`."""
    return x if x.shape[1] == heads else ops.reshape(x, (-1, heads, rows, last))
