"""Tables of vectors: for token ids, tied to the output, and for positions."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.learned_prompt import LearnedPrompt
from keras_llm.ops import products


@keras.saving.register_keras_serializable(package="keras_llm")
class TokenEmbedding(keras.layers.Layer):
    """Looks up a vector per token id, or scores a vector against every id.

    y[t] = vector_scale * embeddings[id[t]]; in reverse,
    logits = logit_scale * x @ transpose(embeddings), plus `output_bias`. Ids from V up
    are those of a learnt prompt, where the table has one (`models.add_adapter`); no
    logit is theirs.

    Args:
        vocab_size: V, the number of ids.
        width: D, the size of each vector.
        embeddings_initializer: Of the table [V, D].
        use_output_bias: Whether logits get a bias, `output_bias` [V].
        logit_scale: Factor on x in reverse.
        vector_scale: Factor on the vectors that are looked up.

    Call arguments:
        x: Int ids [...], or with `reverse` a float tensor [..., D].
        reverse: Whether to return logits instead of vectors.

    Returns:
        [..., D] in the compute dtype; in reverse float32 [..., V].

    Raises:
        ValueError: `vocab_size` or `width` is not positive.

    Source: Press and Wolf 2017 (tied output), https://arxiv.org/abs/1608.05859.

    >>> embedding = TokenEmbedding(11, 3)
    >>> embedding(np.array([[1, 4]])).shape
    TensorShape([1, 2, 3])
    >>> embedding(np.ones((1, 2, 3)), reverse=True).shape
    TensorShape([1, 2, 11])
    """

    def __init__(
        self,
        vocab_size,
        width,
        embeddings_initializer="normal",
        use_output_bias=False,
        logit_scale=1.0,
        vector_scale=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        checks.check_positive("vocab_size", vocab_size)
        checks.check_positive("width", width)
        checks.check_positive("logit_scale", logit_scale)
        checks.check_positive("vector_scale", vector_scale)
        self.vocab_size = vocab_size
        self.width = width
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.use_output_bias = use_output_bias
        self.logit_scale = logit_scale
        self.vector_scale = vector_scale
        self.quantized = None  # The table in fewer bits, set by hand.
        # Without weights, and not called, unless `models.add_adapter` starts it.
        self.prompt = LearnedPrompt(name="prompt", dtype=self.dtype_policy)

    def build(self, _):
        """Makes `embeddings` [V, D] and `output_bias` [V]."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.vocab_size, self.width),
            initializer=self.embeddings_initializer,
        )
        self.output_bias = None
        if self.use_output_bias:
            # Added to the float32 logits: not to be rounded.
            self.output_bias = self.add_weight(
                name="output_bias",
                shape=(self.vocab_size,),
                initializer="zeros",
                autocast=False,
            )

    def call(self, x, reverse=False):
        """Returns vectors [..., D], or logits [..., V]."""
        if not reverse:
            vectors = self._rows(x)
            return vectors if self.vector_scale == 1 else vectors * self.vector_scale
        if self.quantized is not None:
            return self._finish(self.quantized.product(self._scaled(x)))
        if len(x.shape) == 2:
            return self.next_token_logits(x)
        x = self._scaled(x)
        # This spelling multiplies by the transpose without making a copy of it.
        letters = "abc"[: len(x.shape) - 1]
        subscripts = f"{letters}y,zy->{letters}z"
        return self._finish(ops.einsum(subscripts, x, self.embeddings))

    def next_token_logits(self, x_BD, compiled=False):
        """Returns float32 [B, V] for one vector per row, as while decoding.

        Args:
            x_BD: Float tensor [B, D].
            compiled: Whether XLA compiles the caller. It reads the table fastest as
                the left factor, and would copy what panels cut off at the end.
        """
        x_BD = self._scaled(x_BD)
        table = ops.cast(self.embeddings, self.compute_dtype)

        def plain():
            return ops.einsum("by,zy->bz", x_BD, table)

        def panels():
            return products.transposed_product(x_BD, table)

        rows = ops.shape(x_BD)[0]
        if compiled:
            logits = ops.transpose(ops.matmul(table, ops.transpose(x_BD)))
        elif isinstance(rows, int):
            logits = panels() if 1 < rows <= products.FEW_ROWS else plain()
        else:
            is_few = ops.logical_and(rows > 1, rows <= products.FEW_ROWS)
            logits = ops.cond(is_few, panels, plain)
        return self._finish(logits)

    def _rows(self, ids):
        """Returns the vectors [..., D] of ids as they are kept."""
        if not self.prompt.started:
            return self._own_rows(ids)
        own = self._own_rows(ops.minimum(ids, self.vocab_size - 1))
        return self.prompt(ids - self.vocab_size, own)

    def _own_rows(self, ids):
        """Returns the vectors of ids below V."""
        if self.quantized is not None:
            return self.quantized.rows(ids)
        return ops.cast(ops.take(self.embeddings, ids, axis=0), self.compute_dtype)

    def _finish(self, logits):
        """Returns the logits in float32, with their bias."""
        logits = ops.cast(logits, "float32")
        if self.output_bias is None:
            return logits
        return logits + ops.cast(self.output_bias, "float32")

    def _scaled(self, x):
        x = ops.cast(x, self.compute_dtype)
        return x if self.logit_scale == 1 else x * self.logit_scale

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "width": self.width,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "use_output_bias": self.use_output_bias,
            "logit_scale": self.logit_scale,
            "vector_scale": self.vector_scale,
        }


@keras.saving.register_keras_serializable(package="keras_llm")
class LearnedPositions(keras.layers.Layer):
    """Looks up a learned vector per position.

    y[t] = embeddings[position[t]].

    Args:
        max_positions: Number of positions, from 0.
        width: D, the size of each vector.
        embeddings_initializer: Of the table [max_positions, D].

    Call arguments:
        positions: Int tensor [...] of values below `max_positions`.

    Returns:
        Tensor [..., D] in the layer's compute dtype.

    Raises:
        ValueError: `max_positions` or `width` is not positive.

    >>> LearnedPositions(7, 3)(np.array([[0, 1, 2]])).shape
    TensorShape([1, 3, 3])
    """

    def __init__(self, max_positions, width, embeddings_initializer="normal", **kwargs):
        super().__init__(**kwargs)
        checks.check_positive("max_positions", max_positions)
        checks.check_positive("width", width)
        self.max_positions = max_positions
        self.width = width
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, _):
        """Makes `embeddings` [max_positions, D]."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_positions, self.width),
            initializer=self.embeddings_initializer,
        )

    def call(self, positions):
        """Returns [..., D]."""
        vectors = ops.take(self.embeddings, positions, axis=0)
        return ops.cast(vectors, self.compute_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "max_positions": self.max_positions,
            "width": self.width,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }
