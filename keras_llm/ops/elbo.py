"""The objective of a variational autoencoder, to be minimised.

Shape letters: see `docs/notation.md`.
"""

from keras import ops

from keras_llm.core import checks

SCOPES = ("dimension", "total")


def negative_elbo(reconstruction_B, kl_BZ, beta=1.0):
    """Returns -log p(x | z) + beta * KL(q(z | x) || p(z)) of every row, in nats.

    With beta = 1, and averaged over samples z, it is the negative of the evidence
    lower bound: never below -log p(x).

    Args:
        reconstruction_B: -log p(x | z), the summed token losses of each row.
        kl_BZ: KL of every dimension, from `gaussian.kl_from_standard`.
        beta: Weight of the KL, a number or a scalar tensor, as `kl_weight` gives it.

    Returns:
        Float32 [B].

    Source: Kingma and Welling 2014, eq. 3, https://arxiv.org/abs/1312.6114; Higgins
    et al. 2017, eq. 4 (beta), https://openreview.net/forum?id=Sy2fzU9gl.

    >>> np.asarray(negative_elbo(np.array([5.0]), np.array([[1.0, 2.0]]), beta=0.5))
    array([6.5], dtype=float32)
    """
    reconstruction = ops.cast(reconstruction_B, "float32")
    return reconstruction + beta * ops.sum(ops.cast(kl_BZ, "float32"), axis=-1)


def free_bits(kl_BZ, threshold, scope="dimension", weights_B=None):
    """Returns the KL of a batch with a floor under which it costs nothing.

    dimension: sum over z of max(threshold, mean over rows of kl[b, z])
    total:     max(threshold, sum over z of the mean over rows of kl[b, z])

    The mean over rows comes first, so that a row may use less where another uses
    more. Below the threshold there is no gradient: nothing pulls q(z | x) to the
    prior any further. Under several replicas or micro-batches the mean is over what
    is passed in: one replica's rows of one micro-batch.

    Args:
        kl_BZ: KL of every row and dimension, in nats.
        threshold: The floor in nats, for every dimension or for their sum.
        scope: "dimension" or "total".
        weights_B: 1 for real rows, 0 for rows of padding; None: all are real.

    Returns:
        Scalar float32, in nats a row.

    Raises:
        ValueError: `threshold` is negative or NaN, or `scope` unknown.

    Source: Kingma et al. 2016, appendix C.8, https://arxiv.org/abs/1606.04934; Li
    et al. 2019, https://arxiv.org/abs/1909.00868 (on text).

    >>> kl = np.array([[0.0, 4.0], [1.0, 2.0]])
    >>> float(free_bits(kl, 1.0)), float(free_bits(kl, 1.0, scope="total"))
    (4.0, 3.5)
    """
    checks.check_not_negative("threshold", threshold)
    checks.check_choice("scope", scope, SCOPES)
    kl = ops.cast(kl_BZ, "float32")
    weights = ops.ones_like(kl[:, 0]) if weights_B is None else weights_B
    weights = ops.cast(weights, "float32")
    rows = ops.maximum(ops.sum(weights), 1.0)
    kl_Z = ops.sum(weights[:, None] * kl, axis=0) / rows
    if scope == "total":
        return _at_least(ops.sum(kl_Z), threshold)
    return ops.sum(_at_least(kl_Z, threshold))


def batch_loss(
    reconstruction_B,
    kl_BZ,
    beta=1.0,
    threshold=0.0,
    scope="dimension",
    weights_B=None,
):
    """Returns the loss of a batch summed over its rows, in nats.

    sum over b of weights[b] * reconstruction[b] + beta * rows * free_bits(kl), rows
    = sum of weights. Without a threshold it is the weighted sum of `negative_elbo`.

    Args:
        reconstruction_B: As in `negative_elbo`.
        kl_BZ: As in `negative_elbo`.
        beta: As in `negative_elbo`.
        threshold: As in `free_bits`; 0 for none.
        scope: As in `free_bits`.
        weights_B: As in `free_bits`.

    Returns:
        Scalar float32.

    Raises:
        ValueError: What `free_bits` refuses.

    >>> rec, kl = np.array([5.0, 7.0]), np.array([[1.0], [2.0]])
    >>> float(batch_loss(rec, kl)), float(batch_loss(rec, kl, threshold=4.0))
    (15.0, 20.0)
    """
    reconstruction = ops.cast(reconstruction_B, "float32")
    weights = ops.ones_like(reconstruction) if weights_B is None else weights_B
    weights = ops.cast(weights, "float32")
    kl = free_bits(kl_BZ, threshold, scope, weights)
    return ops.sum(weights * reconstruction) + beta * ops.sum(weights) * kl


def _at_least(kl, threshold):
    # At a tie `maximum` halves the gradient, and a KL of exactly 0 is one.
    return kl if threshold == 0 else ops.maximum(kl, threshold)
