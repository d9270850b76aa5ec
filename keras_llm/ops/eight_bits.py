"""Matrices of weights in eight bits, multiplied a stretch at a time."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_llm.ops import few_nodes

# Of a matrix in wide floats at a time: what one core's cache holds, so that the wide
# copy never goes to memory and back. 128 KiB and 1 MiB were slower.
_STRETCH_BYTES = 512 * 2**10
_MOST_STRETCHES = 32  # Beyond, what each costs by itself outweighs.


def rounded(matrix_ED):
    """Returns a matrix in int8 and the scale of each row.

    matrix ~ values * scale, with values from -127 to 127 and scale the greatest
    magnitude of the row over 127: weight-only, symmetric, without calibration. Each
    weight is off by half a scale at most. A row of zeros has the scale 0.

    Args:
        matrix_ED: Float array.

    Returns:
        Values int8 [E, D] and scales float32 [E], both NumPy arrays.

    Source: Dettmers et al. 2022, section 2 (vector-wise absmax quantisation),
    https://arxiv.org/abs/2208.07339.

    >>> values, scale = rounded(np.array([[1.0, 0.5], [-4.0, 2.0]]))
    >>> values.tolist(), (127 * scale).tolist()
    ([[127, 64], [-127, 64]], [1.0, 4.0])
    """
    matrix = np.asarray(matrix_ED, np.float32)
    scale = np.abs(matrix).max(axis=1) / np.float32(127)
    values = np.rint(matrix / np.where(scale > 0, scale, 1)[:, None])
    return values.astype(np.int8), scale


def product(x, values_ED, scale_E):
    """Returns x @ transpose(values * scale) in the dtype of x.

    Args:
        x: Float tensor [..., D].
        values_ED: Int8.
        scale_E: Float32.

    Returns:
        Tensor [..., E].

    >>> values, scale = np.ones((5, 3), "int8"), np.full(5, 0.5, "float32")
    >>> np.asarray(product(np.ones((2, 3), "float32"), values, scale))[0]
    array([1.5, 1.5, 1.5, 1.5, 1.5], dtype=float32)
    """
    outputs, width = values_ED.shape
    x_BD = ops.reshape(x, (-1, width))
    values_ED = ops.convert_to_tensor(values_ED)
    stretch = max(_STRETCH_BYTES // (4 * width), -(-outputs // _MOST_STRETCHES), 1)
    with _after(x_BD):
        wide = [
            ops.cast(values_ED[start : start + stretch], x.dtype)
            for start in range(0, outputs, stretch)
        ]
    parts = [ops.matmul(x_BD, ops.transpose(part)) for part in wide]
    y_BE = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
    y_BE = y_BE * ops.cast(scale_E, x.dtype)
    return ops.reshape(y_BE, (*few_nodes.outer_sizes(x), outputs))


def _after(x):
    """Lets nothing in the block run before x is there.

    A graph has no other order: it would widen all matrices of a model at once, while
    it waits for the first product, and read them from memory after all.
    """
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([x])
