"""Two LSTMs over the same rows: one from their start, one from their end."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.lstm import LSTM


@keras.saving.register_keras_serializable(package="keras_llm")
class BidirectionalLSTM(keras.layers.Layer):
    """Reads a sequence from both ends, each direction with weights of its own.

    y_t = dropout([forward_t, backward_t]): the state of an LSTM that has read the
    steps 0..t, and of another that has read T-1..t. The backward one passes over the
    padding of a right-padded row without a change, so that it starts at the row's
    own end: a row gives the same in any batch.

    Args:
        units: U, the size of h and c in each direction.
        return_sequences: Whether to return every y_t instead of the final states:
            the forward one after the last real step beside the backward one after
            the first.
        return_state: Whether to return the final h and c as well.
        layer_norm: As in `LSTM`.
        epsilon: As in `LSTM`.
        dropout: Share of the outputs dropped while training; states are kept whole.
        recurrent_dropout: As in `LSTM`.
        use_cudnn: As in `LSTM`, for the forward direction. The backward one runs
            without.
        seed: Of the dropouts.

    Call arguments:
        x: Float tensor [B, T, D]; D must be known when the layer is built.
        mask: Bool [B, T], True for real steps, or None. At padding the forward half
            repeats its last output and the backward half is 0.
        training: Whether dropout is on and gradients will be taken.

    Returns:
        [B, T, 2 U] or [B, 2 U] in the compute dtype, forward half first; with
        `return_state` a tuple of that, h [B, 2 U] and c [B, 2 U] (float32).

    Raises:
        ValueError: What `LSTM` and `Dropout` refuse.

    Source: Schuster and Paliwal 1997, https://doi.org/10.1109/78.650093; Graves and
    Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042.

    >>> both = BidirectionalLSTM(3, return_sequences=True)
    >>> both(np.ones((2, 5, 4), "float32")).shape
    TensorShape([2, 5, 6])
    """

    def __init__(
        self,
        units,
        return_sequences=False,
        return_state=False,
        layer_norm=False,
        epsilon=1e-5,
        dropout=0.0,
        recurrent_dropout=0.0,
        use_cudnn="auto",
        seed=None,
        **kwargs,
    ):
        # The LSTMs cast what they need; a float32 cell state must not be rounded.
        super().__init__(autocast=False, **kwargs)
        checks.check_positive("units", units)
        self.arguments = {
            "units": units,
            "return_sequences": return_sequences,
            "return_state": return_state,
            "layer_norm": layer_norm,
            "epsilon": epsilon,
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "use_cudnn": use_cudnn,
            "seed": seed,
        }
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.forward = self._direction("forward", backwards=False, number=0)
        self.backward = self._direction("backward", backwards=True, number=1)
        self.dropout = Dropout(
            dropout,
            None if seed is None else seed + 2,
            name="dropout",
            dtype=self.dtype_policy,
        )
        self.supports_masking = True

    def _direction(self, name, backwards, number):
        """Returns one direction's LSTM; `number` tells their seeds apart."""
        own = self.arguments
        return LSTM(
            self.units,
            return_sequences=True,
            return_state=True,
            go_backwards=backwards,
            layer_norm=own["layer_norm"],
            epsilon=own["epsilon"],
            recurrent_dropout=own["recurrent_dropout"],
            use_cudnn=own["use_cudnn"],
            seed=None if own["seed"] is None else own["seed"] + number,
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, x_shape):
        """Builds `forward` and `backward`."""
        self.forward.build(x_shape)
        self.backward.build(x_shape)

    def call(self, x, mask=None, training=False):
        """Returns the outputs, and with `return_state` the final h and c."""
        y, *state = self.forward(x, mask=mask, training=training)
        reverse_y, *reverse_state = self.backward(x, mask=mask, training=training)
        h, c = (
            ops.concatenate(pair, axis=-1)
            for pair in zip(state, reverse_state, strict=True)
        )
        if self.return_sequences:
            in_time_order = ops.flip(reverse_y, axis=1)
            y = ops.concatenate([y, in_time_order], axis=-1)
        else:
            y = h
        y = self.dropout(y, training=training)
        return (y, h, c) if self.return_state else y

    def compute_mask(self, x, previous_mask=None):
        """Returns the mask of the outputs: the inputs' own, if a sequence."""
        mask = previous_mask if self.return_sequences else None
        return (mask, None, None) if self.return_state else mask

    def compute_output_spec(self, x, *args, **kwargs):
        """Returns what `call` returns, as shapes and dtypes."""
        state = (x.shape[0], 2 * self.units)
        shape = (*x.shape[:-1], 2 * self.units) if self.return_sequences else state
        y = keras.KerasTensor(shape, self.compute_dtype)
        if not self.return_state:
            return y
        h = keras.KerasTensor(state, self.compute_dtype)
        return y, h, keras.KerasTensor(state, self.forward.state_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), **self.arguments}
