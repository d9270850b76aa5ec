"""A feed-forward network of many experts, of which each token sees a few.

Shape letters: see `docs/notation.md`; here `E` is the experts, `K` a token's choices
and `C` the tokens of a row that an expert takes.
"""

import math

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.linear import Linear
from keras_llm.ops import activations


@keras.saving.register_keras_serializable(package="keras_llm")
class MixtureOfExperts(keras.layers.Layer):
    """Sends each token to the feed-forward networks that a router picks for it.

    p = softmax(x @ router); T_k = the k experts of largest p
    y = sum over e in T_k of g_e * expert_e(x)
    g_e = p_e for k = 1, else p_e / (sum of p over T_k)
    expert_e(x) = activation(x @ inner_e + b_e) @ output_e + c_e

    Capacity. While training with a `capacity_factor`, an expert takes at most
    C = ceil(capacity_factor * k * T / E) tokens of a row, in the order of time: so
    a row depends on no other, and a token on none after it. A token that finds its
    expert full gets 0 from it and goes on by the residual around the layer alone.
    Shapes so stay static, and an expert's work bounded. Otherwise no token is
    dropped: every expert runs on every token, which costs E / k times the work, and
    decoding step by step gives what the whole row gives.

    Balance. With `return_loss` the load-balancing loss comes as well: E times the
    sum over e of f_e P_e, f_e the share of all choices that fell on expert e
    (dropped ones too) and P_e the mean of p_e, both over the real tokens of the
    call. It is 1 where all are equal and E where one expert has all. The caller
    adds it, times 0.01 or so, to its loss; it is not in `layer.losses`, which a
    training loop of one's own would have to remember to read.

    Args:
        num_experts: E.
        inner_dim: F, the width inside each expert.
        top_k: k, the experts of each token.
        capacity_factor: Share of an even load that an expert takes while training;
            None drops nothing there either.
        activation: As in `FeedForward`.
        use_bias: Whether the experts' projections add biases.
        kernel_initializer: Of router and first kernels, each expert's on its own.
        output_initializer: Of the second kernels; None for the same.

    Call arguments:
        x: Float tensor [B, T, D], or [B, D] for one token a row.
        mask: Bool like x without its last axis, True for real tokens, or None.
            Padding takes no room and counts in no balance; it gets 0.
        return_loss: Whether to return the load-balancing loss as well.
        training: Whether capacity is limited.

    Returns:
        Tensor like x in the compute dtype; with `return_loss` a tuple of that and a
        float32 scalar.

    Raises:
        ValueError: A size not positive, more choices than experts, an unknown
            activation, or an input of another rank.

    Source: Shazeer et al. 2017, section 2, https://arxiv.org/abs/1701.06538 (top k);
    Fedus et al. 2022, eq. 3 to 6, https://arxiv.org/abs/2101.03961 (capacity, loss).

    >>> layer = MixtureOfExperts(num_experts=4, inner_dim=16, top_k=2)
    >>> y, loss = layer(np.ones((2, 3, 8), "float32"), return_loss=True)
    >>> y.shape, loss.shape
    (TensorShape([2, 3, 8]), TensorShape([]))
    """

    def __init__(
        self,
        num_experts,
        inner_dim,
        top_k=2,
        capacity_factor=1.25,
        activation="gelu",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("num_experts", num_experts),
            ("inner_dim", inner_dim),
            ("top_k", top_k),
        ):
            checks.check_positive(name, value)
        checks.check_in_range("top_k", top_k, 1, num_experts)
        if capacity_factor is not None:
            checks.check_positive("capacity_factor", capacity_factor)
        checks.check_choice("activation", activation, activations.ACTIVATIONS)
        self.num_experts = num_experts
        self.inner_dim = inner_dim
        self.top_k = top_k
        self.capacity_factor = capacity_factor
        self.activation = activation
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.supports_masking = True
        # A rounded score would send tokens elsewhere: the router stays in float32.
        self.wide = keras.backend.result_type(self.compute_dtype, "float32")

    def build(self, x_shape):
        """Makes `router` and the experts' kernels and biases."""
        width = x_shape[-1]
        gated = 2 if self.activation in activations.GATED else 1
        self.router = Linear(
            self.num_experts,
            False,
            self.kernel_initializer.clone(),
            name="router",
            dtype=self.wide,
        )
        self.router.build((None, width))
        first, last = (width, gated * self.inner_dim), (self.inner_dim, width)
        self.inner_kernel = self._kernels("inner_kernel", first, None)
        self.output_kernel = self._kernels(
            "output_kernel", last, self.output_initializer
        )
        self.inner_bias = self.output_bias = None
        if self.use_bias:
            self.inner_bias = self._biases("inner_bias", first[1])
            self.output_bias = self._biases("output_bias", width)

    def _kernels(self, name, shape, initializer):
        """Returns one matrix for each expert [E, ...], drawn one by one."""
        initializer = initializer or self.kernel_initializer

        def draw(shape, dtype=None):
            matrices = [
                _numbered(initializer, expert)(shape[1:], dtype)
                for expert in range(shape[0])
            ]
            return ops.stack(matrices)

        return self.add_weight(
            name=name, shape=(self.num_experts, *shape), initializer=draw
        )

    def _biases(self, name, size):
        return self.add_weight(
            name=name, shape=(self.num_experts, 1, size), initializer="zeros"
        )

    def call(self, x, mask=None, return_loss=False, training=False):
        """Returns a tensor like x, and with `return_loss` the loss."""
        if len(x.shape) not in (2, 3):
            raise ValueError(
                f"Experts read [B, T, D] or [B, D]. Received: shape {tuple(x.shape)}."
            )
        one_token = len(x.shape) == 2
        if one_token:
            x = x[:, None]
            mask = None if mask is None else mask[:, None]
        odds, chosen, gates = self._route(x, mask)
        if training and self.capacity_factor is not None:
            y = self._dispatched(x, chosen, gates)
        else:
            y_BETD = self._experts(x, "btd")
            y = ops.einsum("bte,betd->btd", ops.cast(gates, x.dtype), y_BETD)
        y = y[:, 0] if one_token else y
        return (y, self._balance(odds, chosen, mask)) if return_loss else y

    def _route(self, x, mask):
        """Returns probabilities, choices (0 or 1) and gates, each [B, T, E]."""
        odds = ops.softmax(self.router(ops.cast(x, self.wide)), axis=-1)
        _, best_BTK = ops.top_k(odds, self.top_k)
        experts_E = ops.arange(self.num_experts, dtype="int32")
        is_best = ops.equal(ops.cast(best_BTK, "int32")[..., None], experts_E)
        chosen = ops.cast(ops.any(is_best, axis=-2), self.wide)
        if mask is not None:
            chosen = chosen * ops.cast(mask, self.wide)[..., None]
        gates = odds * chosen
        if self.top_k > 1:
            total = ops.sum(gates, axis=-1, keepdims=True)
            gates = gates / ops.where(total > 0, total, 1.0)
        return odds, chosen, gates

    def _dispatched(self, x, chosen, gates):
        """Returns [B, T, D] from experts that take C tokens of each row at most."""
        capacity = self._capacity(ops.shape(x)[1])
        place_BTE = ops.cumsum(chosen, axis=1) - chosen
        slot_C = ops.cast(ops.arange(capacity, dtype="int32"), self.wide)
        takes_BTEC = ops.equal(place_BTE[..., None], slot_C)
        takes_BTEC = ops.cast(takes_BTEC, self.wide) * chosen[..., None]
        taken = ops.cast(takes_BTEC, x.dtype)
        y_BECD = self._experts(ops.einsum("btec,btd->becd", taken, x), "becd")
        weights = ops.cast(takes_BTEC * gates[..., None], x.dtype)
        return ops.einsum("btec,becd->btd", weights, y_BECD)

    def _capacity(self, length):
        """Returns C, the tokens of a row that an expert takes at most."""
        even = self.capacity_factor * self.top_k / self.num_experts
        # Less than a token's share off, or 0.1 * 30 would round up to 4.
        if isinstance(length, int):
            return max(1, math.ceil(even * length - 1e-9))
        wanted = even * ops.cast(length, "float64") - 1e-9
        return ops.maximum(ops.cast(ops.ceil(wanted), "int32"), 1)

    def _experts(self, x, axes):
        """Returns [B, E, C, D]: each expert of its own tokens, or of all.

        Args:
            x: [B, E, C, D], or [B, T, D] for all experts alike.
            axes: The letters of x's axes, "becd" or "btd".
        """
        out = "be" + axes[-2]
        inner, output = (
            ops.cast(kernel, x.dtype)
            for kernel in (self.inner_kernel, self.output_kernel)
        )
        x = ops.einsum(f"{axes},edf->{out}f", x, inner)
        if self.use_bias:
            x = x + ops.cast(self.inner_bias, x.dtype)
        x = activations.activate(x, self.activation)
        x = ops.einsum(f"{out}f,efd->{out}d", x, output)
        return x + ops.cast(self.output_bias, x.dtype) if self.use_bias else x

    def _balance(self, odds, chosen, mask):
        """Returns the load-balancing loss, a scalar."""
        if mask is not None:
            odds = odds * ops.cast(mask, self.wide)[..., None]
        tokens = ops.maximum(ops.sum(odds), 1.0)  # Probabilities sum to 1 a token.
        share_E = ops.sum(chosen, axis=(0, 1)) / (self.top_k * tokens)
        mean_E = ops.sum(odds, axis=(0, 1)) / tokens
        return self.num_experts * ops.sum(share_E * mean_E)

    def compute_output_spec(self, x, mask=None, return_loss=False, training=False):
        """Returns what `call` returns, as shapes and dtypes."""
        y = keras.KerasTensor(x.shape, self.compute_dtype)
        return (y, keras.KerasTensor((), self.wide)) if return_loss else y

    def compute_mask(self, x, previous_mask=None):
        """Returns the input's mask."""
        return previous_mask

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "inner_dim": self.inner_dim,
            "top_k": self.top_k,
            "capacity_factor": self.capacity_factor,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
        }


def _numbered(initializer, number):
    """Returns an initializer of its own: one instance repeats its numbers."""
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += number
    return type(initializer).from_config(config)
