"""Long short-term memory: one layer for training, evaluation and decoding."""

import keras
from keras import ops

from keras_llm.core import checks
from keras_llm.layers.dropout import ReplicaSeed
from keras_llm.ops import lstm as recurrence
from keras_llm.ops import lstm_gradient


@keras.saving.register_keras_serializable(package="keras_llm")
class LSTM(keras.layers.Layer):
    """Runs a long short-term memory over a sequence.

    [i, f, g, o] = x_t W + h_{t-1} R + b
    c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
    h_t = sigmoid(o) * tanh(c_t)

    The gates stand in Keras' order (input, forget, candidate, output), so
    `set_weights` takes those of `keras.layers.LSTM`. With `layer_norm`, LN(v) =
    (v - mean) / sqrt(var + epsilon), over all 4 U gates or all U cells:
    [i, f, g, o] = s_x LN(x_t W) + s_h LN(h_{t-1} R) + b and
    h_t = sigmoid(o) * tanh(s_c LN(c_t) + b_c).

    x W is one product over all steps. With `training=True` what the gradient needs is
    kept and the gradient is hand-written, which takes less work and memory than
    differentiating the loop. Without `training` the backend differentiates the loop
    if asked to: the same values, slower, and not under XLA on TensorFlow. The cell
    state is float32 at least, whatever the compute dtype.

    Args:
        units: U, the size of h and c.
        return_sequences: Whether to return every h_t instead of the last.
        return_state: Whether to return the last h and c as well.
        go_backwards: Whether to read the sequence from its end; every output is
            then in that reversed order, as in Keras.
        layer_norm: Whether to normalise gates and cell.
        epsilon: Added to the variance by `layer_norm`.
        recurrent_dropout: Share of h that is dropped, while training, on its way
            into the recurrent product: one mask per row and call, the same at every
            step, different on every replica.
        unit_forget_bias: Whether the forget gate's bias starts at 1; the rest of
            the bias starts at 0.
        kernel_initializer: Of W [D, 4 U].
        recurrent_initializer: Of R [U, 4 U].
        use_cudnn: "auto" runs cuDNN where it can: TensorFlow, a GPU, float32 or
            float16, no mask, reset, recurrent dropout, layer norm, and no XLA
            (`supports_jit` is then False, as for Keras' own). False never does.
        seed: Int, of the dropout; None draws one from Keras' global seed.

    Call arguments:
        x: Float tensor [B, T, D]; D must be known when the layer is built.
        mask: Bool [B, T] or None. A step that is False leaves h and c as they were,
            and its output is that unchanged h; nothing else counts there.
        initial_state: (h, c), each [B, U]; None starts from zeros.
        reset_mask: Bool [B, T] or None. Where True, h and c become 0 before that
            step: so documents in one row stay apart.
        training: Whether dropout applies and the fast gradient is prepared.

    Returns:
        [B, T, U] or [B, U] in the compute dtype; with `return_state` a tuple of
        that, h [B, U] and c [B, U] (float32).

    Raises:
        ValueError: `units` or `epsilon` not positive, `recurrent_dropout` outside
            [0, 1), an unknown `use_cudnn`, or an input without 3 axes.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate); Ba et
    al. 2016, eq. 20 to 22, https://arxiv.org/abs/1607.06450 (layer norm); Gal and
    Ghahramani 2016, https://arxiv.org/abs/1512.05287 (dropout).

    >>> lstm = LSTM(3, return_sequences=True, return_state=True)
    >>> y, h, c = lstm(np.ones((2, 5, 4), "float32"))
    >>> tuple(y.shape), tuple(h.shape)
    ((2, 5, 3), (2, 3))
    >>> bool(np.allclose(y[:, -1], h))
    True
    """

    def __init__(
        self,
        units,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        layer_norm=False,
        epsilon=1e-5,
        recurrent_dropout=0.0,
        unit_forget_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        use_cudnn="auto",
        seed=None,
        **kwargs,
    ):
        # Casts by hand: autocasting would round a float32 cell state passed in.
        super().__init__(autocast=False, **kwargs)
        checks.check_positive("units", units)
        checks.check_positive("epsilon", epsilon)
        checks.check_choice("use_cudnn", use_cudnn, ("auto", False))
        if not 0 <= recurrent_dropout < 1:
            raise ValueError(
                "`recurrent_dropout` must be at least 0 and below 1: it is the share "
                f"of values dropped. Received: recurrent_dropout={recurrent_dropout}."
            )
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.layer_norm = layer_norm
        self.epsilon = epsilon
        self.recurrent_dropout = recurrent_dropout
        self.unit_forget_bias = unit_forget_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.use_cudnn = use_cudnn
        self.seed = seed
        self.supports_masking = True
        self.state_dtype = keras.backend.result_type(self.compute_dtype, "float32")
        if recurrent_dropout > 0:
            self.seed_generator = ReplicaSeed(seed)

    def build(self, x_shape):
        """Makes kernel, recurrent_kernel and bias, and the norms' scales."""
        if len(x_shape) != 3 or x_shape[-1] is None:
            raise ValueError(
                "LSTM reads sequences [B, T, D] whose width D is known. "
                f"Received: shape {tuple(x_shape)}."
            )
        gates = 4 * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(x_shape[-1], gates),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, gates),
            initializer=self._first_recurrent_kernel,
        )
        self.bias = self.add_weight(
            name="bias", shape=(gates,), initializer=self._first_bias
        )
        if self.layer_norm:
            for name, size in (
                ("kernel_scale", gates),
                ("recurrent_scale", gates),
                ("cell_scale", self.units),
            ):
                scale = self.add_weight(name=name, shape=(size,), initializer="ones")
                setattr(self, name, scale)
            self.cell_bias = self.add_weight(
                name="cell_bias", shape=(self.units,), initializer="zeros"
            )
        self._on_cudnn = self._cudnn_layer() if self._cudnn_can_run() else None

    def call(self, x, mask=None, initial_state=None, reset_mask=None, training=False):
        """Returns the outputs, and with `return_state` the last h and c."""
        x = ops.cast(x, self.compute_dtype)
        state = self._state(x, initial_state)
        if self._on_cudnn is not None and mask is None and reset_mask is None:
            outputs, h, c = self._on_cudnn(x, state)
        else:
            outputs, h, c = self._run(x, state, mask, reset_mask, training)
        result = outputs if self.return_sequences else h
        if not self.return_state:
            return result
        return result, h, ops.cast(c, self.state_dtype)

    def step(self, x_BD, state, reset=None):
        """Runs one step, as decoding does.

        Args:
            x_BD: Float tensor [B, D].
            state: (h, c), each [B, U].
            reset: Bool [B] or None: where True, h and c become 0 before the step.

        Returns:
            The output h [B, U], and the new (h, c).
        """
        x_BD = ops.cast(x_BD, self.compute_dtype)
        h, c = self._state(x_BD, state)
        if reset is not None:
            h, c = recurrence.step_input(h, c, ops.logical_not(reset)[:, None])
        recurrent = self._cast(self.recurrent_kernel)
        h, c = recurrence.advance(self._project(x_BD), h, c, recurrent, self._norms())
        return h, (h, c)

    def initial_state(self, batch):
        """Returns (h, c) of zeros for `batch` rows."""
        shape = (batch, self.units)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.state_dtype)

    def _run(self, x, state, mask, reset_mask, training):
        """Returns the outputs [B, T, U] and the last h and c."""
        x_TBD = ops.transpose(x, (1, 0, 2))
        real = None if mask is None else ops.transpose(mask)[:, :, None]
        keep = None
        if reset_mask is not None:
            if mask is not None:  # A step that leaves the state alone resets nothing.
                reset_mask = ops.logical_and(reset_mask, mask)
            keep = 1 - ops.cast(ops.transpose(reset_mask), self.compute_dtype)
            keep = keep[:, :, None]
        if real is not None:
            real = ops.cast(real, self.compute_dtype)
        if self.go_backwards:
            x_TBD, real, keep = (
                None if value is None else ops.flip(value, axis=0)
                for value in (x_TBD, real, keep)
            )
        dropout = self._dropout_mask(x) if training else None
        # The two compute the same; see the class' docstring for the difference.
        run = lstm_gradient.run_trainable if training else recurrence.run
        h_TBU, h, c = run(
            self._project(x_TBD, training),
            state,
            self._cast(self.recurrent_kernel),
            self._norms(),
            dropout,
            real,
            keep,
        )
        return ops.transpose(h_TBU, (1, 0, 2)), h, c

    def _project(self, x, training=False):
        """Returns the inputs' share of the gates, with the bias."""
        kernel, bias = self._cast(self.kernel), self._cast(self.bias)
        if training and not self.layer_norm:
            return lstm_gradient.project(x, kernel, bias)
        z = ops.matmul(x, kernel)
        if self.layer_norm:
            wide = ops.cast(z, self.state_dtype)
            scale = ops.cast(self.kernel_scale, self.state_dtype)
            z = self._cast(recurrence.standardize(wide, self.epsilon)[0] * scale)
        return z + bias

    def _norms(self):
        if not self.layer_norm:
            return None
        values = (self.recurrent_scale, self.cell_scale, self.cell_bias)
        wide = (ops.cast(value, self.state_dtype) for value in values)
        return recurrence.Norms(*wide, self.epsilon)

    def _cast(self, values):
        return ops.cast(values, self.compute_dtype)

    def _state(self, x, state):
        h, c = self.initial_state(ops.shape(x)[0]) if state is None else state
        return ops.cast(h, self.compute_dtype), ops.cast(c, self.state_dtype)

    def _dropout_mask(self, x):
        """Returns the factor on h [B, U], or None without recurrent dropout."""
        if self.recurrent_dropout == 0:
            return None
        ones = ops.ones((ops.shape(x)[0], self.units), self.compute_dtype)
        return keras.random.dropout(
            ones, self.recurrent_dropout, seed=self.seed_generator
        )

    def _first_recurrent_kernel(self, shape, dtype=None):
        # An orthogonal matrix comes from a QR decomposition, which no backend has
        # in half precision.
        return ops.cast(self.recurrent_initializer(shape, "float32"), dtype)

    def _first_bias(self, shape, dtype=None):
        bias = ops.zeros(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        forget = ops.arange(shape[0]) // self.units == 1
        return bias + ops.cast(forget, dtype)

    def _cudnn_can_run(self):
        can = (
            self.use_cudnn == "auto"
            and keras.config.backend() == "tensorflow"
            and self.compute_dtype in ("float32", "float16")
            and not (self.layer_norm or self.recurrent_dropout or self.go_backwards)
            and bool(keras.distribution.list_devices("gpu"))
        )
        if can:
            self.supports_jit = False
        return can

    def _cudnn_layer(self):
        """Returns Keras' layer over this layer's variables, as a function.

        It alone reaches cuDNN by a public road. Behind a function it is no
        sublayer, so that every variable stays saved once, under its own name.
        """
        layer = keras.layers.LSTM(
            self.units,
            return_sequences=True,
            return_state=True,
            dtype=self.dtype_policy,
        )
        layer.cell.kernel = self.kernel
        layer.cell.recurrent_kernel = self.recurrent_kernel
        layer.cell.bias = self.bias
        layer.cell.built = layer.built = True

        def run(x, state):
            return layer(x, initial_state=[self._cast(value) for value in state])

        return run

    def compute_mask(self, x, previous_mask=None):
        """Returns the mask of the outputs: the inputs' own, if a sequence."""
        mask = previous_mask if self.return_sequences else None
        return (mask, None, None) if self.return_state else mask

    def compute_output_spec(self, x, *args, **kwargs):
        """Returns what `call` returns, as shapes and dtypes."""
        batch, length, _ = x.shape
        state = (batch, self.units)
        shape = (batch, length, self.units) if self.return_sequences else state
        output = keras.KerasTensor(shape, self.compute_dtype)
        if not self.return_state:
            return output
        h = keras.KerasTensor(state, self.compute_dtype)
        return output, h, keras.KerasTensor(state, self.state_dtype)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "layer_norm": self.layer_norm,
            "epsilon": self.epsilon,
            "recurrent_dropout": self.recurrent_dropout,
            "unit_forget_bias": self.unit_forget_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(
                self.recurrent_initializer
            ),
            "use_cudnn": self.use_cudnn,
            "seed": self.seed,
        }
