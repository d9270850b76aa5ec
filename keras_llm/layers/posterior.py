"""The approximate posterior q(z | x) of a variational autoencoder."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import ReplicaSeed
from keras_llm.layers.linear import Linear
from keras_llm.ops import gaussian


class _Posterior(keras.layers.Layer):
    """Owner of both projections; a subclass says how the mean is finished."""

    mean_has_bias = True

    def __init__(self, latent_dim, log_variance_limit, seed, **kwargs):
        # Features come in whole: the projections run in float32 at least.
        super().__init__(autocast=False, **kwargs)
        checks.check_positive("latent_dim", latent_dim)
        if log_variance_limit is not None:
            checks.check_positive("log_variance_limit", log_variance_limit)
        self.latent_dim = latent_dim
        self.log_variance_limit = log_variance_limit
        self.seed = seed
        self.seed_generator = ReplicaSeed(seed)
        self.wide = keras.backend.result_type(self.compute_dtype, "float32")

    def build(self, x_shape):
        """Makes the projections `mean` and `log_variance`."""
        self.mean = Linear(
            self.latent_dim, self.mean_has_bias, name="mean", dtype=self.wide
        )
        self.log_variance = Linear(
            self.latent_dim, name="log_variance", dtype=self.wide
        )
        self.mean.build(x_shape)
        self.log_variance.build(x_shape)

    def _outputs(self, x, mean, sample):
        """Returns z, mean, log-variance and KL; `mean` is finished."""
        log_variance = self.log_variance(x)
        if self.log_variance_limit is not None:
            limit = self.log_variance_limit
            log_variance = limit * ops.tanh(log_variance / limit)
        z = mean
        if sample:
            noise = keras.random.normal(
                ops.shape(mean), dtype=self.wide, seed=self.seed_generator
            )
            z = gaussian.sample(mean, log_variance, noise)
        return z, mean, log_variance, gaussian.kl_from_standard(mean, log_variance)

    def compute_mask(self, x, previous_mask=None):
        """Returns None for every output: a latent has no padding."""
        return (None,) * 4

    def compute_output_spec(self, x, *args, **kwargs):
        """Returns what `call` returns, as shapes and dtypes."""
        shape = (*x.shape[:-1], self.latent_dim)
        return tuple(keras.KerasTensor(shape, self.wide) for _ in range(4))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "log_variance_limit": self.log_variance_limit,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_llm")
class GaussianPosterior(_Posterior):
    """Gives a Gaussian over latents for a feature vector, a sample of it, and its KL.

    mean = x @ W_m + b_m
    log_variance = L tanh((x @ W_v + b_v) / L)
    z = mean + exp(log_variance / 2) * noise, noise ~ N(0, I)
    kl = (mean^2 + exp(log_variance) - log_variance - 1) / 2, for each dimension

    The bound L keeps the variance's exponential finite, whatever a bad batch does to
    the weights, and never stops a gradient; near 0 it changes nothing. Everything
    runs in float32, whatever the compute dtype: KL sums small differences.

    Args:
        latent_dim: Z, the size of the latent.
        log_variance_limit: L; None leaves the log-variance unbounded.
        seed: Int, of the noise, which is another on every replica; None draws one
            from Keras' global seed.

    Call arguments:
        x: Float tensor [..., D]; D must be known when the layer is built.
        sample: Whether z is drawn; False gives the mean for z, None draws while
            training.
        training: Whether the layer is training.

    Returns:
        z, mean, log_variance and kl, each float32 [..., Z].

    Raises:
        ValueError: `latent_dim` or `log_variance_limit` is not positive.

    Source: Kingma and Welling 2014, sections 2.4 and 3 and appendix B,
    https://arxiv.org/abs/1312.6114.

    >>> posterior = GaussianPosterior(3)
    >>> z, mean, log_variance, kl = posterior(np.ones((2, 5), "float32"))
    >>> kl.shape, bool(np.all(z == mean))
    (TensorShape([2, 3]), True)
    """

    def __init__(self, latent_dim, log_variance_limit=10.0, seed=None, **kwargs):
        super().__init__(latent_dim, log_variance_limit, seed, **kwargs)

    def call(self, x, sample=None, training=False):
        """Returns z, mean, log_variance and kl."""
        x = ops.cast(x, self.wide)
        return self._outputs(x, self.mean(x), training if sample is None else sample)


@keras.saving.register_keras_serializable(package="keras_llm")
class BatchNormPosterior(_Posterior):
    """A Gaussian posterior whose mean cannot collapse: it is batch-normalised.

    mean = gamma * (m - E[m]) / sqrt(Var[m] + epsilon) + shift, m = x @ W_m, the rest
    as in `GaussianPosterior`. gamma is fixed and `shift` learned. While training, E
    and Var are those of the batch, so that over its rows the mean of kl, summed over
    the Z dimensions, is at least Z gamma^2 / 2 (less what epsilon takes): the
    posterior never becomes the prior. That asks for an epsilon far below Var[m],
    or training shrinks m until epsilon outweighs it, and the posterior collapses
    after all: small encoders begin with a Var[m] of 1e-6.

    While training a row's mean so depends on its batch; otherwise running statistics
    take the place of the batch's, and it does not. Under several replicas each one
    normalises by its own rows, of which it should have many: no statistics are
    exchanged. The running ones are the mean over replicas wherever they are read
    outside of them, as on saving. A batch with no real row, or with a value that is
    not finite, leaves them as they were.

    Args:
        latent_dim: Z, the size of the latent.
        gamma: The standard deviation that every dimension's mean has over a batch.
        momentum: Share that running statistics keep of themselves at each call.
        epsilon: Added to the variance.
        log_variance_limit: As in `GaussianPosterior`.
        seed: As in `GaussianPosterior`.

    Call arguments:
        x: Float tensor [..., D]; D must be known when the layer is built.
        mask: Bool [...] or None: False for rows of padding, which stay out of the
            statistics.
        sample: As in `GaussianPosterior`.
        training: Whether the batch's statistics are used, and the running ones
            moved.

    Returns:
        z, mean, log_variance and kl, each float32 [..., Z].

    Raises:
        ValueError: An argument outside its range.

    Source: Zhu et al. 2020, "A batch normalized inference network keeps the KL
    vanishing away", https://arxiv.org/abs/2004.12585.

    >>> x = np.random.default_rng(0).normal(size=(50, 5)).astype("float32")
    >>> _, mean, _, kl = BatchNormPosterior(3, gamma=0.6)(x, training=True)
    >>> np.std(mean, axis=0).round(2), bool(np.mean(np.sum(kl, -1)) > 3 * 0.6**2 / 2)
    (array([0.6, 0.6, 0.6], dtype=float32), True)
    """

    mean_has_bias = False  # Normalisation would take it away again.

    def __init__(
        self,
        latent_dim,
        gamma=0.6,
        momentum=0.9,
        epsilon=1e-10,
        log_variance_limit=10.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(latent_dim, log_variance_limit, seed, **kwargs)
        checks.check_positive("gamma", gamma)
        checks.check_in_range("momentum", momentum, 0, 1)
        checks.check_positive("epsilon", epsilon)
        self.gamma = gamma
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, x_shape):
        """Makes the projections, `shift` [Z] and the running statistics [Z]."""
        super().build(x_shape)
        shape = (self.latent_dim,)
        self.shift = self.add_weight(
            name="shift",
            shape=shape,
            initializer="zeros",
            dtype=self.wide,
            autocast=False,
        )
        self.moving_mean = self._statistic("moving_mean", "zeros")
        self.moving_variance = self._statistic("moving_variance", "ones")

    def _statistic(self, name, initializer):
        return keras.Variable(
            initializer,
            shape=(self.latent_dim,),
            dtype=self.wide,
            trainable=False,
            autocast=False,
            # Every replica moves its own without waiting for the others. (This is
            # what `add_weight` has no argument for.)
            synchronization="on_read",
            aggregation="mean",
            name=name,
        )

    def call(self, x, mask=None, sample=None, training=False):
        """Returns z, mean, log_variance and kl."""
        x = ops.cast(x, self.wide)
        raw = self.mean(x)
        if training:
            centre, variance = self._batch_statistics(raw, mask)
        else:
            centre, variance = self.moving_mean.value, self.moving_variance.value
        scale = self.gamma * ops.rsqrt(variance + self.epsilon)
        mean = (raw - centre) * scale + self.shift
        return self._outputs(x, mean, training if sample is None else sample)

    def _batch_statistics(self, raw, mask):
        """Returns mean and variance [Z] over real rows; moves the running ones."""
        if mask is None:
            mask = ops.ones_like(raw[..., 0], dtype="bool")
        weights = ops.cast(mask, self.wide)[..., None]
        rows = ops.sum(weights)
        axes = tuple(range(len(raw.shape) - 1))
        share = weights / ops.maximum(rows, 1.0)
        mean = ops.sum(share * raw, axis=axes)
        variance = ops.sum(share * ops.square(raw - mean), axis=axes)
        for running, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            usable = ops.logical_and(ops.isfinite(value), rows > 0)
            old = running.value
            moved = self.momentum * old + (1 - self.momentum) * value
            running.assign(ops.where(usable, moved, old))
        return mean, variance

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
