"""Gaussians of independent dimensions: samples, densities, divergence.

A variance is given by its logarithm. All is computed in float32 at least. Shape
letters: see `docs/notation.md`.
"""

import math

import keras
from keras import ops


def sample(mean, log_variance, noise):
    """Returns mean + exp(log_variance / 2) * noise, shaped as they broadcast.

    Gradients reach mean and variance past the noise (the reparameterisation trick).

    Args:
        mean: Float tensor [..., Z].
        log_variance: Float tensor [..., Z].
        noise: Standard normal numbers [..., Z].

    Source: Kingma and Welling 2014, section 2.4, https://arxiv.org/abs/1312.6114.

    >>> np.asarray(sample(np.array([1.0]), np.log([4.0]), np.array([-1.0])))
    array([-1.])
    """
    mean, log_variance, noise = _wide(mean, log_variance, noise)
    return mean + ops.exp(0.5 * log_variance) * noise


def kl_from_standard(mean, log_variance):
    """Returns KL(N(mean, exp(log_variance)) || N(0, 1)) of every dimension, in nats.

    kl = (mean^2 + exp(log_variance) - log_variance - 1) / 2.

    Args:
        mean: Float tensor [..., Z].
        log_variance: Float tensor [..., Z].

    Returns:
        Tensor [..., Z], never below 0.

    Source: Kingma and Welling 2014, appendix B, https://arxiv.org/abs/1312.6114.

    >>> np.asarray(kl_from_standard(np.array([3.0, 0.0]), np.array([0.0, 0.0])))
    array([4.5, 0. ])
    """
    mean, log_variance = _wide(mean, log_variance)
    # expm1 keeps the digits of a variance near 1, where exp(v) - v - 1 cancels.
    excess = ops.expm1(log_variance) - log_variance
    return 0.5 * (ops.square(mean) + ops.maximum(excess, 0.0))


def log_density(z, mean=0.0, log_variance=0.0):
    """Returns log N(z; mean, exp(log_variance)), summed over the last axis, in nats.

    Args:
        z: Float tensor [..., Z].
        mean: Float tensor that broadcasts with it; 0 for the standard normal.
        log_variance: Likewise.

    Returns:
        Tensor of the broadcast shape without its last axis.

    >>> round(float(log_density(np.zeros([2]))), 4), round(-float(np.log(2 * np.pi)), 4)
    (-1.8379, -1.8379)
    """
    z, mean, log_variance = _wide(z, mean, log_variance)
    squares = ops.square(z - mean) * ops.exp(-log_variance)
    return -0.5 * ops.sum(squares + log_variance + math.log(2 * math.pi), axis=-1)


def _wide(*tensors):
    tensors = [ops.convert_to_tensor(tensor) for tensor in tensors]
    dtype = keras.backend.result_type("float32", *(t.dtype for t in tensors))
    return [ops.cast(tensor, dtype) for tensor in tensors]
