"""Cross-entropy of next-token predictions, whole or a chunk of tokens at a time."""

from collections.abc import Callable

import keras
from keras import ops

from keras_llm.core import checks

# Logits above this number of values are made in chunks: 128 MB in float32.
_CHUNK_VALUES = 2**25


def token_losses(logits, targets, label_smoothing=0.0):
    """Returns the cross-entropy of every token, in nats.

    loss = log(sum(exp(z))) - (1 - s) * z[target] - s * mean(z), which is the
    cross-entropy against the target with probability 1 - s + s / V and s / V for
    every other token.

    Args:
        logits: Float tensor z [..., V]; computed with in float32 at least.
        targets: Int tensor [...], each from 0 to V - 1.
        label_smoothing: s, the share of probability spread over all V tokens.

    Returns:
        Tensor [...] in float32, or float64 for float64 logits.

    Raises:
        ValueError: `label_smoothing` is outside [0, 1).

    Source: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567.

    >>> losses = token_losses(np.zeros((1, 4), "float32"), np.array([2]))
    >>> np.asarray(losses).round(4)
    array([1.3863], dtype=float32)
    """
    check_label_smoothing(label_smoothing)
    logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
    targets = ops.cast(targets, "int32")
    picked = ops.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    losses = ops.logsumexp(logits, axis=-1) - (1 - label_smoothing) * picked
    if label_smoothing:
        losses = losses - label_smoothing * ops.mean(logits, axis=-1)
    return losses


def check_label_smoothing(label_smoothing: float) -> None:
    """Raises ValueError unless 0 <= `label_smoothing` < 1."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            "`label_smoothing` must be at least 0 and below 1: it is the share of "
            "probability taken from the target. "
            f"Received: label_smoothing={label_smoothing}."
        )


def chunk_tokens(num_tokens: int, vocab_size: int) -> int:
    """Returns how many tokens' logits to hold at a time: in equal chunks, or nearly.

    >>> chunk_tokens(1_024, 50_257), chunk_tokens(1_021, 50_257), chunk_tokens(9, 65)
    (512, 511, 9)
    """
    checks.check_positive("num_tokens", num_tokens)
    most = max(1, _CHUNK_VALUES // vocab_size)
    chunks = -(-num_tokens // most)
    return -(-num_tokens // chunks)


def head_loss(
    hidden_ND,
    kernel,
    targets_N,
    weights_N,
    tied: bool = True,
    label_smoothing: float = 0.0,
    chunk: int | None = None,
    fuse: Callable[[Callable], Callable] | None = None,
    soft_cap: float | None = None,
):
    """Returns the weighted sum of token losses straight from the hidden states.

    sum over n of weights[n] * token_losses(hidden @ head, targets)[n], with the
    head's product taken `chunk` tokens at a time. Each chunk gives its share of both
    gradients while its logits are at hand, so the logits of the whole batch never
    exist, and none is computed twice.

    Args:
        hidden_ND: Float tensor [N, D]; products run in its dtype.
        kernel: The head's matrix: [V, D] if `tied`, else [D, V].
        targets_N: Int tensor [N].
        weights_N: Float tensor [N]; 0 leaves a token out. Not differentiated.
        tied: Whether `kernel` is the embedding table.
        label_smoothing: As in `token_losses`.
        chunk: Tokens at a time, the last ones what is left; None chooses by size. N
            must be known when the function is traced.
        fuse: Compiles the function between the products, such as
            `tf.function(jit_compile=True)`; None leaves it as it is.
        soft_cap: Bound c of logits z that become c tanh(z / c); None for none.

    Returns:
        Scalar float32 sum, in nats.

    Raises:
        ValueError: `chunk` below 1, or a bad `label_smoothing`.

    >>> x, w = np.ones((4, 3), "float32"), np.zeros((7, 3), "float32")
    >>> loss = head_loss(x, w, np.array([0, 1, 2, 3]), np.ones(4), chunk=2)
    >>> round(float(loss) / 4, 4), round(float(np.log(7)), 4)
    (1.9459, 1.9459)
    """
    check_label_smoothing(label_smoothing)
    num_tokens = hidden_ND.shape[0]
    vocab_size = kernel.shape[0 if tied else 1]
    if chunk is None:
        chunk = chunk_tokens(num_tokens, vocab_size)
    checks.check_positive("chunk", chunk)
    targets_N = ops.cast(targets_N, "int32")
    weights_N = ops.cast(weights_N, "float32")

    between = _between_products(label_smoothing, soft_cap)
    between = between if fuse is None else fuse(between)

    @keras.ops.custom_gradient
    def summed_loss(hidden, kernel):
        losses, hidden_slope, kernel_slope = [0.0, 0.0], [], 0.0
        matrix = ops.cast(kernel, hidden.dtype)
        for start in range(0, num_tokens, chunk):
            part = slice(start, start + chunk)
            # Two chunks at a time: a runtime that finds all of them ready makes all
            # their logits first.
            begin = ops.cast(_zero_after(losses[-2]), hidden.dtype)
            logits = _product(hidden[part] + begin, matrix, not tied)
            part_loss, slope = between(logits, targets_N[part], weights_N[part])
            losses.append(losses[-1] + part_loss)
            hidden_slope.append(_product(slope, matrix, tied))
            kernel_part = _kernel_slope(hidden[part], slope, tied)
            kernel_slope = kernel_slope + ops.cast(kernel_part, "float32")

        def gradient(*args, upstream=None):
            scale = args[0] if upstream is None else upstream
            slopes = ops.concatenate(hidden_slope, axis=0)
            return (
                slopes * ops.cast(scale, slopes.dtype),
                ops.cast(kernel_slope * scale, kernel.dtype),
            )

        return losses[-1], gradient

    return summed_loss(hidden_ND, ops.convert_to_tensor(kernel))


def _zero_after(value):
    """Returns 0 that is known only once `value` is; NaN where that is NaN."""
    return ops.where(ops.equal(value, value), 0.0, value)


def _product(x_NA, matrix, straight):
    """Returns x @ matrix, or x @ transpose(matrix) without making the transpose."""
    subscripts = "na,ab->nb" if straight else "na,ba->nb"
    return ops.einsum(subscripts, x_NA, matrix)


def _kernel_slope(hidden_ND, slope_NV, tied):
    if tied:
        return ops.einsum("nv,nd->vd", slope_NV, hidden_ND)
    return ops.einsum("nd,nv->dv", hidden_ND, slope_NV)


def _between_products(label_smoothing, soft_cap):
    """Returns the function from logits to their loss and its derivative by them."""
    if soft_cap is None:
        return lambda *values: _loss_and_slope(*values, label_smoothing)

    def bounded_loss(logits, targets, weights):
        bounded = ops.tanh(ops.cast(logits, "float32") / soft_cap)
        loss, slope = _loss_and_slope(
            soft_cap * bounded, targets, weights, label_smoothing
        )
        return loss, ops.cast(slope * (1.0 - bounded * bounded), logits.dtype)

    return bounded_loss


def _loss_and_slope(logits_NV, targets_N, weights_N, label_smoothing):
    """Returns the weighted loss sum and its derivative by the logits [N, V]."""
    dtype, vocab_size = logits_NV.dtype, logits_NV.shape[-1]
    logits = ops.cast(logits_NV, "float32")
    shifted = logits - ops.max(logits, axis=-1, keepdims=True)
    powers = ops.exp(shifted)
    total_N1 = ops.sum(powers, axis=-1, keepdims=True)
    is_target = ops.equal(
        ops.arange(vocab_size, dtype="int32")[None], targets_N[:, None]
    )
    wanted = ops.where(is_target, 1.0 - label_smoothing, 0.0)
    wanted = wanted + label_smoothing / vocab_size
    # Shifting by the maximum cancels between the two terms, since `wanted` sums to 1.
    losses = ops.log(total_N1[:, 0]) - ops.sum(wanted * shifted, axis=-1)
    slope = (powers / total_N1 - wanted) * weights_N[:, None]
    return ops.sum(losses * weights_N), ops.cast(slope, dtype)
