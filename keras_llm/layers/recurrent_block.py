"""One block of a recurrent network: LSTM, dropout, and a way around them."""

import keras

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.linear import Linear
from keras_llm.layers.lstm import LSTM
from keras_llm.layers.norms import LayerNorm


@keras.saving.register_keras_serializable(package="keras_llm")
class RecurrentBlock(keras.layers.Layer):
    """An LSTM with dropout, and if asked a norm before it and a residual.

    y = dropout(lstm(norm(x))), plus x with `residual`: x itself where its width is
    `units`, else x times a matrix, "projection".

    Args:
        units: U, the width of the output.
        pre_norm: Whether a LayerNorm comes first.
        residual: Whether the input is added to the result.
        dropout: Share of the LSTM's outputs dropped while training.
        recurrent_dropout: As in `LSTM`.
        layer_norm: As in `LSTM`: inside the recurrence.
        epsilon: Of the norms.
        seed: Of the dropouts.
        use_cudnn: As in `LSTM`.

    Call arguments:
        x: Float tensor [B, T, D].
        mask, initial_state, reset_mask: As in `LSTM`.
        return_state: Whether to return the LSTM's last (h, c) as well.
        training: Whether dropout is on.

    Returns:
        Tensor [B, T, U]; with `return_state` a tuple of that and (h, c).

    Raises:
        ValueError: What the parts refuse.

    Source: Zaremba et al. 2014, https://arxiv.org/abs/1409.2329 (dropout between
    layers, not between steps).

    >>> block = RecurrentBlock(5, pre_norm=True, residual=True)
    >>> block(np.ones((2, 3, 4), "float32")).shape
    TensorShape([2, 3, 5])
    """

    def __init__(
        self,
        units,
        pre_norm=False,
        residual=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        layer_norm=False,
        epsilon=1e-5,
        seed=None,
        use_cudnn="auto",
        **kwargs,
    ):
        # The LSTM casts what it needs; a float32 cell state must not be rounded.
        super().__init__(autocast=False, **kwargs)
        checks.check_positive("units", units)
        self.arguments = {
            "units": units,
            "pre_norm": pre_norm,
            "residual": residual,
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "layer_norm": layer_norm,
            "epsilon": epsilon,
            "seed": seed,
            "use_cudnn": use_cudnn,
        }
        policy = {"dtype": self.dtype_policy}
        self.units = units
        self.residual = residual
        self.norm = LayerNorm(epsilon, name="norm", **policy) if pre_norm else None
        self.lstm = LSTM(
            units,
            return_sequences=True,
            return_state=True,
            layer_norm=layer_norm,
            epsilon=epsilon,
            recurrent_dropout=recurrent_dropout,
            use_cudnn=use_cudnn,
            seed=seed,
            name="lstm",
            **policy,
        )
        self.dropout = Dropout(
            dropout, None if seed is None else seed + 1, name="dropout", **policy
        )
        self.projection = None
        self.supports_masking = True

    def build(self, x_shape):
        """Builds the parts."""
        if self.norm is not None:
            self.norm.build(x_shape)
        self.lstm.build(x_shape)
        if self.residual and x_shape[-1] != self.units:
            self.projection = Linear(
                self.units, False, name="projection", dtype=self.dtype_policy
            )
            self.projection.build(x_shape)

    def call(
        self,
        x,
        mask=None,
        initial_state=None,
        reset_mask=None,
        return_state=False,
        training=False,
    ):
        """Returns [B, T, U], and with `return_state` the last (h, c)."""
        y, h, c = self.lstm(
            x if self.norm is None else self.norm(x),
            mask=mask,
            initial_state=initial_state,
            reset_mask=reset_mask,
            training=training,
        )
        y = self._finish(x, y, training)
        return (y, (h, c)) if return_state else y

    def step(self, x_BD, state, reset=None):
        """Returns [B, U] and the new (h, c), as `LSTM.step`."""
        normed = x_BD if self.norm is None else self.norm(x_BD)
        y, state = self.lstm.step(normed, state, reset)
        return self._finish(x_BD, y, training=False), state

    def _finish(self, x, y, training):
        """Returns the LSTM's output after dropout, plus the way around it."""
        y = self.dropout(y, training=training)
        if not self.residual:
            return y
        return y + (x if self.projection is None else self.projection(x))

    def compute_mask(self, x, previous_mask=None):
        """Returns the input's mask."""
        return previous_mask

    def compute_output_spec(self, x, *args, return_state=False, **kwargs):
        """Returns what `call` returns, as shapes and dtypes."""
        y = keras.KerasTensor((*x.shape[:-1], self.units), self.compute_dtype)
        if not return_state:
            return y
        state = (x.shape[0], self.units)
        h = keras.KerasTensor(state, self.compute_dtype)
        return y, (h, keras.KerasTensor(state, self.lstm.state_dtype))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), **self.arguments}
