"""The LSTM recurrence: its cell and its loop over time.

B batch, T time, D input width, U units, G = 4 U gates in the order input, forget,
candidate, output (i, f, g, o). Sequences are time-major here: each step then reads
and writes one contiguous block.
"""

from typing import Any, NamedTuple

from keras import ops


def cell(z_BG, c_BU, norms=None):
    """Returns (h, c) after one step, both in the dtype of `c_BU`.

    c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c'), with i, f, g
    and o the four parts of `z_BG`.

    Args:
        z_BG: What the gates receive: inputs, recurrence and bias summed.
        c_BU: The cell's state before the step.
        norms: `Norms`, whose `cell` is applied to c' inside the last tanh, or None.
    """
    i, f, g, o = ops.split(ops.cast(z_BG, c_BU.dtype), 4, axis=-1)
    c_BU = ops.sigmoid(f) * c_BU + ops.sigmoid(i) * ops.tanh(g)
    shown = c_BU if norms is None else norms.cell(c_BU)
    return ops.sigmoid(o) * ops.tanh(shown), c_BU


def advance(xz_BG, h_BU, c_BU, recurrent_kernel, norms=None, dropout_BU=None):
    """Returns the (h, c) that one step makes of an input and a state.

    Args:
        xz_BG: The input's share of the gates, with the bias.
        h_BU: The state before the step; the new h has its dtype.
        c_BU: The cell's state before it.
        recurrent_kernel: [U, G].
        norms: `Norms`, or None.
        dropout_BU: Factor on the h that enters the product, or None.
    """
    entering = h_BU if dropout_BU is None else h_BU * dropout_BU
    product = ops.matmul(entering, recurrent_kernel)
    if norms is not None:
        product = ops.cast(norms.gates(product), product.dtype)
    new_h, new_c = cell(product + xz_BG, c_BU, norms)
    return ops.cast(new_h, h_BU.dtype), new_c


def run(
    xz_TBG,
    state,
    recurrent_kernel,
    norms=None,
    dropout_BU=None,
    mask_TB1=None,
    keep_TB1=None,
):
    """Runs `advance` over time; differentiable by the backend itself.

    Args:
        xz_TBG: The inputs' share of the gates, with the bias.
        state: (h, c) before the first step.
        recurrent_kernel: As in `advance`.
        norms: As in `advance`.
        dropout_BU: As in `advance`.
        mask_TB1: 0 where a step leaves the state alone, else 1; or None.
        keep_TB1: 0 where the state becomes 0 before the step, else 1; or None.

    Returns:
        h [T, B, U] after each step, and the last h and c.
    """
    extras = [e for e in (mask_TB1, keep_TB1) if e is not None]
    gates = xz_TBG.shape[-1]
    # One sequence and not three: on TensorFlow `scan` asks several for a length
    # that is known when the graph is traced.
    packed = [xz_TBG] + [ops.cast(extra, xz_TBG.dtype) for extra in extras]
    packed = ops.concatenate(packed, axis=-1) if extras else xz_TBG

    def body(state, now):
        rest = [now[:, gates + i : gates + i + 1] for i in range(len(extras))]
        mask = rest.pop(0) if mask_TB1 is not None else None
        h, c = step_input(*state, rest.pop(0) if rest else None)
        new = advance(now[:, :gates], h, c, recurrent_kernel, norms, dropout_BU)
        state = step_output(mask, new, (h, c))
        return state, state

    (h, c), (h_TBU, _) = ops.scan(body, tuple(state), packed)
    return h_TBU, h, c


def step_input(h, c, keep):
    """Returns the state that enters a step: 0 where `keep` is 0, None keeps all."""
    if keep is None:
        return h, c
    return h * ops.cast(keep, h.dtype), c * ops.cast(keep, c.dtype)


def step_output(mask, new, old):
    """Returns the new state where `mask` is not 0, else the old; None: the new."""
    if mask is None:
        return new
    real = ops.cast(mask, "bool")
    return tuple(ops.where(real, a, b) for a, b in zip(new, old, strict=True))


def standardize(values, epsilon):
    """Returns (v - mean) / deviation over the last axis, and 1 / deviation.

    The deviation is sqrt(variance + epsilon), with the biased variance.
    """
    centred = values - ops.mean(values, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    inverse = ops.rsqrt(variance + epsilon)
    return centred * inverse, inverse


class Norms(NamedTuple):
    """Layer norm inside the recurrence (Ba et al. 2016, eq. 20 to 22).

    Attributes:
        recurrent_scale: [G], of the recurrent product.
        cell_scale: [U], of the cell state inside the last tanh.
        cell_bias: [U].
        epsilon: Added to the variances.
    """

    recurrent_scale: Any
    cell_scale: Any
    cell_bias: Any
    epsilon: float

    def gates(self, product_BG):
        """Returns the normalised recurrent product, in the scales' dtype."""
        wide = ops.cast(product_BG, self.recurrent_scale.dtype)
        return standardize(wide, self.epsilon)[0] * self.recurrent_scale

    def cell(self, c_BU):
        """Returns the normalised cell state."""
        return standardize(c_BU, self.epsilon)[0] * self.cell_scale + self.cell_bias
