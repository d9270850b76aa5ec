"""Multi-head attention: over a whole sequence, or one token against a cache."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.initializers import ScaledColumns
from keras_llm.layers.linear import Linear
from keras_llm.layers.norms import RMSNorm
from keras_llm.ops import attention, few_nodes, masks
from keras_llm.ops import cache as caches
from keras_llm.ops.rotary import rotary_table, rotate


@keras.saving.register_keras_serializable(package="keras_llm")
class MultiHeadAttention(keras.layers.Layer):
    """Lets every token take a weighted mean of the tokens that it may see.

    [q, k, v] = x @ query_key_value; per head
    y = softmax(q @ transpose(k) * scale + bias) @ v; result = y @ output.
    Query head n reads key/value head n // (N / K). The softmax runs in float32.

    On JAX, where neither mask nor bias, window nor dropout is asked for, the backend's
    fused attention is used.

    Three entries share every weight and every inner function: calling the layer
    (a whole sequence), `prefill` (the same, and the cache that it leaves) and
    `step` (one token against the cache).

    Args:
        num_heads: N, the number of query heads.
        key_value_heads: K, which must divide N; None for N, 1 for multi-query.
        head_size: H; None for D / N.
        causal: Whether a token sees only itself and what came before.
        window: Tokens in reach, itself included; None for all. Needs `causal`.
        rotary_base: Base of the rotary positions; None for no rotation.
        use_bias: Whether the projections add a bias.
        dropout: Share of attention weights dropped while training.
        seed: Of the dropout.
        kernel_initializer: Of the fused projection [D, (N + 2 K) H].
        output_initializer: Of the output projection [N H, D]; None for the same.
        scale: Factor on the scores; None for 1 / sqrt(H). Another factor changes
            the queries' initial weights, so that scores begin equally large.
        output_bias: Whether the output projection adds a bias; None for `use_bias`.
        query_key_norm: Epsilon of an RMSNorm over each head of queries and keys,
            before the rotation; None for none.
        rotary_scaling: As in `ops.rotary.frequencies`; needs `rotary_base`.
        soft_cap: Bound c on the scores: c * tanh(score / c); None for none.

    Call arguments:
        x: Float tensor [B, T, D].
        mask: Bool [B, T], True for real tokens, or [B or 1, 1, T, T], True where
            the query (row) may attend to the key (column). It narrows what
            `causal` and `window` allow.
        positions: Int [B or 1, T] for the rotation; None for 0..T-1.
        bias: Float32 [B or 1, N or 1, T, T], added to the scores instead of
            anything made from `mask`, `causal` and `window`: shared by many layers,
            it is computed once.
        rotary: The pair of tables [B or 1, 1, T, H] from `rotary`, likewise shared.
        training: Whether attention weights are dropped.

    Returns:
        Tensor [B, T, D] in the layer's compute dtype. A query that may see nothing,
        as in a row of padding alone, gets the mean of all values: finite, and with
        finite gradients, but without meaning.

    Raises:
        ValueError: Heads that do not divide, an odd head size with rotation, a size
            below 1, a window without `causal`, or a scaling without rotation.

    Source: Vaswani et al. 2017, eq. 1, https://arxiv.org/abs/1706.03762; Ainslie
    et al. 2023 (grouped queries), https://arxiv.org/abs/2305.13245.

    >>> attention = MultiHeadAttention(num_heads=4, key_value_heads=2)
    >>> attention(np.ones((2, 3, 8))).shape
    TensorShape([2, 3, 8])
    """

    def __init__(
        self,
        num_heads,
        key_value_heads=None,
        head_size=None,
        causal=True,
        window=None,
        rotary_base=None,
        use_bias=True,
        dropout=0.0,
        seed=None,
        kernel_initializer="glorot_uniform",
        output_initializer=None,
        scale=None,
        output_bias=None,
        query_key_norm=None,
        rotary_scaling=None,
        soft_cap=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        checks.check_positive("num_heads", num_heads)
        key_value_heads = num_heads if key_value_heads is None else key_value_heads
        checks.check_divides("key_value_heads", key_value_heads, "num_heads", num_heads)
        self.num_heads = num_heads
        self.key_value_heads = key_value_heads
        self.head_size = head_size
        self.causal = causal
        self.window = window
        self.rotary_base = rotary_base
        self.use_bias = use_bias
        self.dropout_rate = dropout
        self.seed = seed
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = keras.initializers.get(output_initializer)
        self.scale = scale
        self.output_bias = output_bias
        self.query_key_norm = query_key_norm
        self.rotary_scaling = rotary_scaling and tuple(rotary_scaling)
        self.soft_cap = soft_cap
        self.supports_masking = True
        self._check_arguments()

    def _check_arguments(self):
        """Raises ValueError unless sizes are positive and options fit together."""
        for name in ("head_size", "window", "rotary_base", "scale", "soft_cap"):
            value = getattr(self, name)
            if value is not None:
                checks.check_positive(name, value)
        if self.window is not None and not self.causal:
            raise ValueError(
                "`window` reaches back from the query, so it needs causal=True. "
                f"Received: window={self.window}, causal={self.causal}."
            )
        if self.rotary_scaling is not None and self.rotary_base is None:
            raise ValueError(
                "`rotary_scaling` changes the rotation, so it needs `rotary_base`. "
                f"Received: rotary_scaling={self.rotary_scaling}, rotary_base=None."
            )

    def build(self, x_shape):
        """Makes the projections `query_key_value` and `output`, and the norms."""
        width = x_shape[-1]
        if self.head_size is None:
            checks.check_divides("num_heads", self.num_heads, "width", width)
        self._size = self.head_size or width // self.num_heads
        self._scale = self._size**-0.5 if self.scale is None else self.scale
        if self.rotary_base is not None:
            checks.check_divides("pairs", 2, "head_size", self._size)
        self.query_key_value = Linear(
            (self.num_heads + 2 * self.key_value_heads) * self._size,
            self.use_bias,
            self._first_kernel(),
            name="query_key_value",
            dtype=self.dtype_policy,
        )
        self.output_projection = Linear(
            width,
            self.use_bias if self.output_bias is None else self.output_bias,
            self.output_initializer or self.kernel_initializer.clone(),
            name="output",
            dtype=self.dtype_policy,
        )
        self.query_key_value.build(x_shape)
        self.output_projection.build((*x_shape[:-1], self.num_heads * self._size))
        self.dropout = Dropout(
            self.dropout_rate, self.seed, name="dropout", dtype=self.dtype_policy
        )
        if self.query_key_norm is not None:
            self.query_norm = self._head_norm("query_norm")
            self.key_norm = self._head_norm("key_norm")

    def _head_norm(self, name):
        norm = RMSNorm(self.query_key_norm, name=name, dtype=self.dtype_policy)
        norm.build((None, None, None, self._size))
        return norm

    def _first_kernel(self):
        if self.scale is None:
            return self.kernel_initializer
        columns = self.num_heads * self._size
        factor = self._size**-0.5 / self.scale
        return ScaledColumns(self.kernel_initializer, columns, factor)

    def call(
        self,
        x,
        mask=None,
        positions=None,
        bias=None,
        rotary=None,
        training=False,
    ):
        """Returns [B, T, D]."""
        y, _, _ = self._sequence(x, mask, positions, bias, rotary, training)
        return y

    def prefill(self, x_BTD, real_BT, capacity, bias=None, rotary=None):
        """Runs right-padded prompts and returns what later steps need of them.

        Args:
            x_BTD: Float tensor [B, T, D].
            real_BT: Bool [B, T], True for real tokens.
            capacity: C >= T, the number of slots in the caches; int or tensor.
            bias: As in `call`.
            rotary: As in `call`.

        Returns:
            Result [B, T, D], keys and values [B, K, C, H]: the real tokens' in
            their slots, zeros elsewhere.
        """
        y, keys, values = self._sequence(x_BTD, None, None, bias, rotary, False)
        keys = caches.fill(keys, capacity, real_BT)
        return y, keys, caches.fill(values, capacity, real_BT)

    def step(self, x_BD, keys, values, slots, bias, rotary=None, compiled=False):
        """Runs one token per row against the caches.

        Args:
            x_BD: Float tensor [B, D].
            keys: [B, K, C, H].
            values: [B, K, C, H].
            slots: From `ops.cache.slots`: where the token's key and value go; the
                caches must hold zeros there.
            bias: Float32 [B, N or 1, 1, C]: which slots the token sees, its own
                included.
            rotary: Tables [B, 1, 1, H] at the token's position.
            compiled: Whether XLA compiles the caller.

        Returns:
            Result [B, D] and both caches with one slot per row replaced.
        """
        heads = self.num_heads + 2 * self.key_value_heads
        fused = ops.reshape(self.query_key_value(x_BD), (-1, heads, 1, self._size))
        query, key, value = self._split(fused, rotary)
        keys = caches.write(keys, slots, key, compiled)
        values = caches.write(values, slots, value, compiled)
        y_BN1H = self._attend(query, keys, values, bias, False, compiled)
        y_BD = ops.reshape(y_BN1H, (-1, self.num_heads * self._size))
        return self.output_projection(y_BD), keys, values

    def rotary(self, positions):
        """Returns the tables [..., 1, T, H] for positions [..., T], or None."""
        if self.rotary_base is None:
            return None
        cosine, sine = rotary_table(
            positions, self._size, self.rotary_base, self.rotary_scaling
        )
        return cosine[..., None, :, :], sine[..., None, :, :]

    def _sequence(self, x_BTD, mask, positions, bias, rotary, training):
        """Returns the result [B, T, D], keys and values [B, K, T, H]."""
        length = ops.shape(x_BTD)[1]
        fused_kernel = mask is None and bias is None and self._has_kernel(training)
        if bias is None and not fused_kernel:
            bias = self._bias(mask, length)
        if rotary is None and self.rotary_base is not None:
            if positions is None:
                positions = ops.arange(length, dtype="int32")[None]
            rotary = self.rotary(positions)
        heads = self.num_heads + 2 * self.key_value_heads
        fused = ops.reshape(
            self.query_key_value(x_BTD), (-1, length, heads, self._size)
        )
        fused = ops.transpose(fused, (0, 2, 1, 3))
        query, key, value = self._split(fused, rotary)
        if fused_kernel:
            heads_last = [ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value)]
            y_BTNH = ops.dot_product_attention(
                *heads_last, scale=self._scale, is_causal=self.causal
            )
        else:
            y_BNTH = self._attend(query, key, value, bias, training)
            y_BTNH = ops.transpose(y_BNTH, (0, 2, 1, 3))
        y_BTD = ops.reshape(y_BTNH, (-1, length, self.num_heads * self._size))
        return self.output_projection(y_BTD), key, value

    def _has_kernel(self, training):
        """Returns whether the backend's own attention does the same, unmasked.

        JAX picks cuDNN or splash attention where the device has it. Decision 0009
        says why masks and biases stay with the products spelt out here.
        """
        drops = training and self.dropout_rate > 0
        plain = self.window is None and self.soft_cap is None and not drops
        return keras.config.backend() == "jax" and plain

    def _split(self, fused_BMTH, rotary):
        """Splits heads into query, key and value; norms and rotates the first two."""
        sizes = [self.num_heads, self.key_value_heads, self.key_value_heads]
        if self.query_key_norm is not None:
            query, key, value = few_nodes.split(fused_BMTH, sizes, axis=1)
            both = [self.query_norm(query), self.key_norm(key)]
            fused_BMTH = ops.concatenate([*both, value], axis=1)
        if rotary is None:
            return few_nodes.split(fused_BMTH, sizes, axis=1)
        rotated = [self.num_heads + self.key_value_heads, self.key_value_heads]
        both, value = few_nodes.split(fused_BMTH, rotated, axis=1)
        query, key = few_nodes.split(rotate(both, rotary), sizes[:2], axis=1)
        return query, key, value

    def _attend(self, query, key, value, bias, training, sums=False):
        """Returns [B, N, T, H]; T = 1 and C = capacity while decoding."""

        def drop(weights):
            return self.dropout(weights, training=training)

        return attention.attend(
            query, key, value, bias, self._scale, drop, sums, self.soft_cap
        )

    def _bias(self, mask, length):
        """Returns float32 [B or 1, 1, T, T], or None where all may see all."""
        if mask is not None and len(mask.shape) == 2:
            mask = masks.padding(mask)
        causal = masks.causal(length) if self.causal else None
        window = None
        if self.window is not None:
            window = masks.sliding_window(length, self.window)
        allowed = masks.combine(mask, causal, window)
        return None if allowed is None else masks.as_bias(allowed)

    def get_config(self):
        """Returns the constructor's arguments."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_value_heads": self.key_value_heads,
            "head_size": self.head_size,
            "causal": self.causal,
            "window": self.window,
            "rotary_base": self.rotary_base,
            "use_bias": self.use_bias,
            "dropout": self.dropout_rate,
            "seed": self.seed,
            "kernel_initializer": serialize(self.kernel_initializer),
            "output_initializer": self.output_initializer
            and serialize(self.output_initializer),
            "scale": self.scale,
            "output_bias": self.output_bias,
            "query_key_norm": self.query_key_norm,
            "rotary_scaling": self.rotary_scaling,
            "soft_cap": self.soft_cap,
        }
