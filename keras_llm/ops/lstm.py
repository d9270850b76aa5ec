"""The LSTM recurrence: its cell, its loop over time, and a gradient by hand.

B batch, T time, D input width, U units, G = 4 U gates in the order input, forget,
candidate, output (i, f, g, o). Sequences are time-major here: each step then reads
and writes one contiguous block.
"""

from keras import ops

# Elements of the gates [B, G] that one turn of a loop covers at most: more steps a
# turn save bookkeeping, until the gates no longer stay in a core's cache.
_TURN_ELEMENTS = 2**17
_MAX_STEPS_A_TURN = 16


def cell(z_BG, c_BU, normalize=None):
    """Returns (h, c) after one step, both in the dtype of `c_BU`.

    c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c'), with i, f, g
    and o the four parts of `z_BG`.

    Args:
        z_BG: What the gates receive: inputs, recurrence and bias summed.
        c_BU: The cell's state before the step.
        normalize: Function applied to c' inside the last tanh, or None.
    """
    i, f, g, o = ops.split(ops.cast(z_BG, c_BU.dtype), 4, axis=-1)
    c_BU = ops.sigmoid(f) * c_BU + ops.sigmoid(i) * ops.tanh(g)
    shown = c_BU if normalize is None else normalize(c_BU)
    return ops.sigmoid(o) * ops.tanh(shown), c_BU


def run(advance, xz_TBG, h_BU, c_BU, mask_TB1=None, keep_TB1=None):
    """Runs a cell over time; differentiable by the backend itself.

    Args:
        advance: Function of (xz_BG, h_BU, c_BU) to the next (h, c).
        xz_TBG: The inputs' share of the gates, with the bias.
        h_BU: State before the first step.
        c_BU: Cell state before the first step.
        mask_TB1: 1 where a step counts, 0 where it leaves the state alone.
        keep_TB1: 0 where the state becomes 0 before the step, else 1.

    Returns:
        The states h [T, B, U] after each step, and the last h and c.
    """
    given = _only_given(mask=mask_TB1, keep=keep_TB1)

    def body(state, now):
        h, c = _kept(*state, now.get("keep"))
        new = advance(now["xz"], h, c)
        state = _chosen(now.get("mask"), new, (h, c))
        return state, state

    (h, c), (h_TBU, _) = ops.scan(body, (h_BU, c_BU), {"xz": xz_TBG, **given})
    return h_TBU, h, c


def run_trainable(x_TBD, weights, state, dropout_BU=None, mask_TB1=None, keep_TB1=None):
    """Projects the inputs and runs the cell, with a gradient written by hand.

    The loop back through time finds only what flows from step to step: the
    gradients dz of the gates and of the state. Those of the weights then take one
    product over all steps each, where a loop that is differentiated by the backend
    adds a [U, 4 U] matrix per step.

    Args:
        x_TBD: Inputs.
        weights: kernel [D, G], recurrent_kernel [U, G] and bias [G], in x's dtype.
        state: h [B, U] in x's dtype and c [B, U] in float32 or wider.
        dropout_BU: Factor on the h that enters the recurrent product.
        mask_TB1: As in `run`.
        keep_TB1: As in `run`.

    Returns:
        As `run`. No gradient flows into `dropout_BU`, `mask_TB1`, `keep_TB1`.
    """
    given = _only_given(dropout=dropout_BU, mask=mask_TB1, keep=keep_TB1)

    # The extras are arguments, not closures: JAX traces a closure's values.
    @ops.custom_gradient
    def trainable(x_TBD, kernel, recurrent, bias, h_BU, c_BU, *extras):
        extra = dict(zip(given, extras, strict=True))
        length, batch, width = ops.shape(x_TBD)
        rows = ops.reshape(x_TBD, (length * batch, width))
        xz = ops.matmul(rows, kernel) + bias
        turns = _Turns(length, batch, recurrent.shape[1])
        (h_last, c_last), (h_TBU, c_in, z) = _forward(
            turns, turns.split(xz), recurrent, h_BU, c_BU, extra
        )

        def grad(*upstream):
            # TensorFlow passes three gradients, JAX one tuple of three.
            dh_TBU, dh, dc = upstream if len(upstream) == 3 else upstream[0]
            dz, dh0, dc0 = _backward(
                turns, (z, c_in, turns.split(dh_TBU)), recurrent, dh, dc, extra
            )
            entered = _recurrent_inputs(h_TBU, h_BU, extra)
            ones = ops.ones((1, length * batch), dz.dtype)
            return (
                ops.reshape(ops.matmul(dz, ops.transpose(kernel)), ops.shape(x_TBD)),
                ops.matmul(ops.transpose(rows), dz),
                ops.matmul(ops.transpose(entered), dz),
                ops.matmul(ones, dz)[0],
                dh0,
                dc0,
                *(ops.zeros_like(value) for value in extras),
            )

        return (h_TBU, h_last, c_last), grad

    return trainable(x_TBD, *weights, *state, *given.values())


class _Turns:
    """How the T steps are cut into turns of a loop, several steps a turn."""

    def __init__(self, length, batch, gates):
        self.length, self.batch, self.gates = length, batch, gates
        self.steps = _steps_a_turn(length, batch, gates)
        self.count = length // self.steps

    def split(self, values):
        """Returns [turns, steps, B, ...] of values [T, B, ...] or [T * B, ...]."""
        last = values.shape[-1]
        return ops.reshape(values, (self.count, self.steps, self.batch, last))

    def loop(self, body, carry, outputs, reverse=False):
        """Runs `body(carry, turn)` and stacks what it returns beside the carry.

        Args:
            body: Returns the new carry and, for each of `outputs`, a list with one
                tensor [B, width] per step of the turn.
            carry: Tuple of tensors.
            outputs: (width, dtype) of each output.
            reverse: Whether time runs backwards.

        Returns:
            The last carry, and the outputs as [turns, steps, B, width].
        """
        size = len(carry)
        # `scan` wants a carry for every output on TensorFlow: these stay as they are.
        fillers = tuple(
            ops.zeros((self.steps, self.batch, width), dtype)
            for width, dtype in outputs
        )

        def turn(state, index):
            new, lists = body(state[:size], index)
            return (*new, *state[size:]), (*new, *(ops.stack(x, 0) for x in lists))

        indices = ops.arange(self.count, dtype="int32")
        carry, stacked = ops.scan(turn, (*carry, *fillers), indices, reverse=reverse)
        return carry[:size], stacked[size:]


def _steps_a_turn(length, batch, gates):
    """Returns the greatest divisor of T that keeps a turn small; 1 if T is open."""
    if not isinstance(length, int) or length == 0:
        return 1
    rows = batch if isinstance(batch, int) else 1
    most = _TURN_ELEMENTS // max(rows * gates, 1)
    most = max(1, min(most, _MAX_STEPS_A_TURN, length))
    return next(steps for steps in range(most, 0, -1) if length % steps == 0)


def _forward(turns, xz, recurrent, h, c, extra):
    """Returns the last (h, c) and per step: h after it, c that entered, z."""
    mask, keep = (_split_given(turns, extra, name) for name in ("mask", "keep"))
    dropout = extra.get("dropout")

    def body(state, turn):
        h, c = state
        outputs = ([], [], [])
        for step, xz_BG in enumerate(ops.unstack(xz[turn], turns.steps)):
            h, c_in = _kept(h, c, None if keep is None else keep[turn, step])
            entering = h if dropout is None else h * dropout
            z = ops.matmul(entering, recurrent) + xz_BG
            new_h, new_c = cell(z, c_in)
            new = ops.cast(new_h, h.dtype), new_c
            h, c = _chosen(None if mask is None else mask[turn, step], new, (h, c_in))
            for values, value in zip(outputs, (h, c_in, z), strict=True):
                values.append(value)
        return (h, c), outputs

    units = recurrent.shape[0]
    wanted = ((units, h.dtype), (units, c.dtype), (turns.gates, xz.dtype))
    (h, c), (h_all, c_in, z) = turns.loop(body, (h, c), wanted)
    return (h, c), (ops.reshape(h_all, (turns.length, turns.batch, units)), c_in, z)


def _backward(turns, saved, recurrent, dh, dc, extra):
    """Returns dz [T * B, G] and the gradients of the first h and c."""
    z, c_in, dh_out = saved
    wide = c_in.dtype
    mask, keep = (_split_given(turns, extra, name) for name in ("mask", "keep"))
    dropout = extra.get("dropout")
    transposed = ops.transpose(recurrent)
    dh_dtype = dh.dtype

    def body(state, turn):
        dh, dc = state
        factors = _local_gradients(
            ops.cast(z[turn], wide), c_in[turn], None if mask is None else mask[turn]
        )
        through, gates, forget = (ops.unstack(x, turns.steps) for x in factors)
        arriving = ops.unstack(dh_out[turn], turns.steps)
        dz_all = []
        for step in range(turns.steps - 1, -1, -1):
            dh = dh + ops.cast(arriving[step], wide)
            dc = dc + dh * through[step]
            dz = ops.concatenate([dc, dc, dc, dh], -1) * gates[step]
            dz_all.append(ops.cast(dz, z.dtype))
            back = ops.cast(ops.matmul(dz_all[-1], transposed), wide)
            back = back if dropout is None else back * ops.cast(dropout, wide)
            if mask is not None:
                back = back + (1 - ops.cast(mask[turn, step], wide)) * dh
            dh, dc = back, dc * forget[step]
            if keep is not None:
                kept = ops.cast(keep[turn, step], wide)
                dh, dc = dh * kept, dc * kept
        return (dh, dc), (dz_all[::-1],)

    carry = ops.cast(dh, wide), ops.cast(dc, wide)
    carry, (dz,) = turns.loop(body, carry, ((turns.gates, z.dtype),), reverse=True)
    dz = ops.reshape(dz, (turns.length * turns.batch, turns.gates))
    return dz, ops.cast(carry[0], dh_dtype), carry[1]


def _local_gradients(z, c_in, mask):
    """Returns what a step's gradients are multiplied by, for many steps at once.

    With t = tanh(c'): dc'/dh' = o (1 - t^2); dz = [dc', dc', dc', dh'] times
    [g i (1-i), c f (1-f), i (1-g^2), t o (1-o)]; dc/dc' = f. A masked step passes
    c on untouched: its factors are 0, 0 and 1.
    """
    i, f, g, o = ops.split(z, 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    gi = g * i
    t = ops.tanh(f * c_in + gi)
    ot = o * t
    through = o - ot * t
    gates = ops.concatenate(
        [gi - gi * i, c_in * (f - f * f), i - gi * g, ot - ot * o], -1
    )
    if mask is not None:
        mask = ops.cast(mask, z.dtype)
        through, gates, f = through * mask, gates * mask, f * mask + (1 - mask)
    return through, gates, f


def _recurrent_inputs(h_TBU, h_BU, extra):
    """Returns the h that entered each step's recurrent product, [T * B, U]."""
    h_TBU = ops.concatenate([h_BU[None], h_TBU[:-1]], axis=0)
    for name in ("keep", "dropout"):
        if name in extra:
            h_TBU = h_TBU * ops.cast(extra[name], h_TBU.dtype)
    return ops.reshape(h_TBU, (-1, h_TBU.shape[-1]))


def _only_given(**values):
    return {name: value for name, value in values.items() if value is not None}


def _split_given(turns, extra, name):
    return turns.split(extra[name]) if name in extra else None


def _kept(h, c, keep):
    """Returns the state that enters a step: 0 where `keep` is 0."""
    if keep is None:
        return h, c
    return h * ops.cast(keep, h.dtype), c * ops.cast(keep, c.dtype)


def _chosen(mask, new, old):
    """Returns the new state where `mask` is 1, else the old one."""
    if mask is None:
        return new
    real = ops.cast(mask, "bool")
    return tuple(ops.where(real, a, b) for a, b in zip(new, old, strict=True))
