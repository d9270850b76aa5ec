"""What a trained latent variable model knows and uses: estimates from samples.

Shape letters: see `docs/notation.md`; `P` is the samples drawn for each row.
"""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.ops import gaussian


def log_importance_weights(log_likelihood_PB, z_PBZ, mean_BZ, log_variance_BZ):
    """Returns log p(x | z) + log p(z) - log q(z | x), [P, B].

    Args:
        log_likelihood_PB: log p(x | z) of each row given each sample, in nats.
        z_PBZ: Samples of q(z | x).
        mean_BZ: Mean of q(z | x).
        log_variance_BZ: Log-variance of q(z | x).
    """
    prior = gaussian.log_density(z_PBZ)
    posterior = gaussian.log_density(z_PBZ, mean_BZ, log_variance_BZ)
    return ops.cast(log_likelihood_PB, prior.dtype) + prior - posterior


def importance_weighted_nll(log_weights_PB):
    """Returns an estimate of -log p(x) of every row, in nats.

    -log(mean over P of exp(log_weights)), by a log-sum-exp: nothing overflows. Its
    expectation is an upper bound of -log p(x) that falls with P; P = 1 gives the
    negative evidence lower bound. It converges to -log p(x) itself.

    Args:
        log_weights_PB: From `log_importance_weights`.

    Returns:
        Tensor [B], in float32 at least.

    Source: Burda et al. 2016, eq. 8, https://arxiv.org/abs/1509.00519.

    >>> weights = np.log(np.array([[0.25], [0.75]]))
    >>> round(float(importance_weighted_nll(weights)[0]), 4), round(float(np.log(2)), 4)
    (0.6931, 0.6931)
    """
    weights = ops.convert_to_tensor(log_weights_PB)
    weights = ops.cast(weights, keras.backend.result_type(weights.dtype, "float32"))
    samples = ops.cast(ops.shape(weights)[0], weights.dtype)
    return ops.log(samples) - ops.logsumexp(weights, axis=0)


def mutual_information(z_BZ, mean_BZ, log_variance_BZ):
    """Returns an estimate of I(x; z) under q, in nats: what the latent says of x.

    I = E[log q(z | x) - log q(z)], q(z) = mean over the batch of q(z | x), by a
    log-sum-exp. Each sample is judged by its own row's density among the others, so
    the estimate never exceeds log B: take a batch much larger than exp(I).

    E[KL(q(z | x) || p(z))] - I is KL(q(z) || p(z)), the gap between the aggregated
    posterior and the prior.

    Args:
        z_BZ: One sample of q(z | x) for each row.
        mean_BZ: Means of q(z | x).
        log_variance_BZ: Log-variances of q(z | x).

    Returns:
        Scalar. The computation holds B^2 Z values.

    Source: Hoffman and Johnson 2016, "ELBO surgery: yet another way to carve up the
    variational evidence lower bound".

    >>> mean = 100.0 * np.arange(8.0)[:, None]  # Eight rows, easily told apart.
    >>> information = mutual_information(mean + 1, mean, np.zeros_like(mean))
    >>> round(float(information), 4), round(float(np.log(8)), 4)
    (2.0794, 2.0794)
    """
    z, mean, log_variance = (
        ops.convert_to_tensor(value) for value in (z_BZ, mean_BZ, log_variance_BZ)
    )
    log_q_BB = gaussian.log_density(z[:, None], mean[None], log_variance[None])
    rows = ops.cast(ops.shape(log_q_BB)[0], log_q_BB.dtype)
    aggregated_B = ops.logsumexp(log_q_BB, axis=1) - ops.log(rows)
    return ops.mean(gaussian.log_density(z, mean, log_variance) - aggregated_B)


def active_units(mean_BZ, threshold=0.01):
    """Returns the number of latent dimensions whose mean depends on the row.

    A dimension is active where Var_x(E_q(z|x)[z]) > threshold.

    Args:
        mean_BZ: Means of q(z | x) of many rows.
        threshold: Of the variance.

    Returns:
        Scalar int32.

    Raises:
        ValueError: `threshold` is negative or NaN.

    Source: Burda et al. 2016, section 5.2, https://arxiv.org/abs/1509.00519.

    >>> int(active_units(np.array([[1.0, 5.0, 0.01], [-1.0, 5.0, 0.02]])))
    1
    """
    checks.check_not_negative("threshold", threshold)
    active = ops.var(ops.cast(mean_BZ, "float32"), axis=0) > threshold
    return ops.sum(ops.cast(active, "int32"))
