"""The LSTM recurrence with a gradient written by hand.

A loop that the backend differentiates adds two matrices of weights' size per step.
Here the loop back through time finds only what flows from step to step; each
weight's gradient is then one product over all steps. Shapes as in `ops/lstm.py`.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_llm.ops.lstm import Norms, cell, standardize, step_input, step_output

# Elements of the gates [B, G] that one turn of a loop covers at most: more steps a
# turn save bookkeeping, until the gates no longer stay in a core's cache.
_TURN_ELEMENTS = 2**18
_MAX_STEPS_A_TURN = 8
# Steps that `scan` may have in hand at one time: TensorFlow then prepares the next
# turns' factors on another core, JAX unrolls that far.
_STEPS_IN_HAND = 16


def project(x_TBD, kernel, bias):
    """Returns x @ kernel + bias [T, B, G].

    The bias' gradient is a product with ones: several times faster than the sum
    over rows, which walks down the columns of a large matrix.
    """

    @ops.custom_gradient
    def run(x_TBD, kernel, bias):
        *outer, width = ops.shape(x_TBD)
        rows = ops.reshape(x_TBD, (-1, width))
        z = ops.matmul(rows, kernel) + bias

        def grad(*upstream):
            dz = ops.reshape(upstream[0], ops.shape(z))
            dx = ops.matmul(dz, ops.transpose(kernel))
            ones = ops.ones((1, ops.shape(dz)[0]), dz.dtype)
            return (
                ops.reshape(dx, ops.shape(x_TBD)),
                ops.matmul(ops.transpose(rows), dz),
                ops.matmul(ones, dz)[0],
            )

        return ops.reshape(z, (*outer, kernel.shape[1])), grad

    return run(x_TBD, kernel, bias)


def run_trainable(
    xz_TBG,
    state,
    recurrent_kernel,
    norms=None,
    dropout_BU=None,
    mask_TB1=None,
    keep_TB1=None,
):
    """Computes what `ops.lstm.run` does; the arguments and results are the same.

    No gradient flows into `dropout_BU`, `mask_TB1` and `keep_TB1`.
    """
    extras = {"dropout": dropout_BU, "mask": mask_TB1, "keep": keep_TB1}
    extras = {name: value for name, value in extras.items() if value is not None}
    scales = () if norms is None else norms[:3]

    # Everything is an argument, not a closure: JAX traces what a closure holds.
    @ops.custom_gradient
    def trainable(xz, recurrent, h, c, *others):
        length, batch, gates = ops.shape(xz)
        turns = _Turns(length, batch, gates)
        given = dict(zip(extras, others[len(scales) :], strict=True))
        problem = _Problem(
            turns,
            recurrent,
            Norms(*others[:3], norms.epsilon) if scales else None,
            given.get("dropout"),
            *(turns.split(given.get(name)) for name in ("mask", "keep")),
        )
        (h_last, c_last), saved = _forward(problem, turns.split(xz), h, c)
        h_TBU = turns.join(saved.h)

        def grad(*upstream):
            # TensorFlow passes three gradients, JAX one tuple of three.
            arriving, dh, dc = upstream if len(upstream) == 3 else upstream[0]
            dz, da, dh0, dc0, sums = _backward(problem, saved, arriving, dh, dc)
            entered = _recurrent_inputs(h_TBU, h, given)
            rows = ops.reshape(da, (-1, da.shape[-1]))
            return (
                dz,
                ops.matmul(ops.transpose(entered), rows),
                ops.cast(dh0, h.dtype),
                dc0,
                *sums,
                *(ops.zeros_like(value) for value in given.values()),
            )

        return (h_TBU, h_last, c_last), grad

    return trainable(xz_TBG, recurrent_kernel, *state, *scales, *extras.values())


class _Turns:
    """How the T steps are cut into turns of a loop, several steps a turn."""

    def __init__(self, length, batch, gates):
        self.length, self.batch, self.gates = length, batch, gates
        self.steps = _steps_a_turn(length, batch, gates)
        self.count = length // self.steps

    def split(self, values):
        """Returns values [T, B, width] as [turns, steps, B, width]."""
        if values is None:
            return None
        shape = (self.count, self.steps, self.batch, values.shape[-1])
        return ops.reshape(values, shape)

    def join(self, values):
        """Undoes `split`."""
        return ops.reshape(values, (self.length, self.batch, values.shape[-1]))

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
            return (*new, *state[size:]), (*new, *map(_stacked, lists))

        carry, stacked = ops.scan(
            turn,
            (*carry, *fillers),
            ops.arange(self.count, dtype="int32"),
            reverse=reverse,
            unroll=max(1, _STEPS_IN_HAND // self.steps),
        )
        return carry[:size], stacked[size:]


def _stacked(steps):
    """Returns [steps, B, width]; a single step needs no copy."""
    return steps[0][None] if len(steps) == 1 else ops.stack(steps, 0)


def _steps_a_turn(length, batch, gates):
    """Returns the greatest divisor of T that keeps a turn small; 1 if T is open."""
    if not isinstance(length, int) or length == 0:
        return 1
    rows = batch if isinstance(batch, int) else 1
    most = _TURN_ELEMENTS // max(rows * gates, 1)
    most = max(1, min(most, _MAX_STEPS_A_TURN, length))
    return next(steps for steps in range(most, 0, -1) if length % steps == 0)


class _Problem(NamedTuple):
    """What both directions read; mask and keep [turns, steps, B, 1] or None."""

    turns: _Turns
    recurrent: Any
    norms: Norms | None
    dropout: Any
    mask: Any
    keep: Any

    def at(self, name, *index):
        """Returns the mask or keep of a turn, or of one of its steps, or None."""
        values = getattr(self, name)
        for i in () if values is None else index:
            values = values[i]
        return values


class _Saved(NamedTuple):
    """What the way back needs of each step: [turns, steps, B, width]."""

    h: Any  # After the step, masked.
    c_in: Any  # That entered the step.
    z: Any  # What the gates received.
    product: Any = None  # Of h and the recurrent kernel, with norms.


def _forward(problem, xz, h, c):
    """Returns the last (h, c), and what is saved of each step."""
    turns, recurrent, norms, dropout = problem[:4]

    def body(state, turn):
        h, c = state
        steps = []
        for step, xz_BG in enumerate(ops.unstack(xz[turn], turns.steps)):
            h, c_in = step_input(h, c, problem.at("keep", turn, step))
            product = ops.matmul(h if dropout is None else h * dropout, recurrent)
            normed = product
            if norms is not None:
                normed = ops.cast(norms.gates(product), product.dtype)
            z = normed + xz_BG
            new_h, new_c = cell(z, c_in, norms)
            new = ops.cast(new_h, h.dtype), new_c
            h, c = step_output(problem.at("mask", turn, step), new, (h, c_in))
            steps.append((h, c_in, z) + (() if norms is None else (product,)))
        return (h, c), tuple(zip(*steps, strict=True))

    units = recurrent.shape[0]
    outputs = [(units, h.dtype), (units, c.dtype), (turns.gates, xz.dtype)]
    if norms is not None:
        outputs.append((turns.gates, xz.dtype))
    state, saved = turns.loop(body, (h, c), outputs)
    return state, _Saved(*saved)


def _backward(problem, saved, arriving, dh, dc):
    """Runs back through time.

    Args:
        problem: The weights and masks.
        saved: From `_forward`.
        arriving: Gradient of every h, [T, B, U].
        dh: Gradient of the last h.
        dc: Gradient of the last c.

    Returns:
        dz: Gradient of what the gates received, [T, B, G].
        da: Gradient of the recurrent product, [T, B, G]; dz itself without norms.
        dh, dc: Gradients of the first state.
        sums: Gradients of the norms' scales and bias, or ().
    """
    turns, norms = problem.turns, problem.norms
    wide, narrow = saved.c_in.dtype, saved.z.dtype
    transposed = ops.transpose(problem.recurrent)
    arriving = turns.split(arriving)
    carry = [ops.cast(dh, wide), ops.cast(dc, wide)]
    if norms is not None:
        widths = (turns.gates, problem.recurrent.shape[0], problem.recurrent.shape[0])
        carry += [ops.zeros((turns.batch, width), wide) for width in widths]

    def body(carry, turn):
        dh, dc, *sums = carry
        local = _local_gradients(problem, saved, turn)
        local["arriving"] = ops.cast(arriving[turn], wide)
        local = {name: ops.unstack(x, turns.steps) for name, x in local.items()}
        gradients = []
        for step in range(turns.steps - 1, -1, -1):
            now = {name: values[step] for name, values in local.items()}
            dh = dh + now["arriving"]
            shown = dh * now["through"]
            dc = dc + (shown if norms is None else _cell_norm_back(norms, shown, now))
            dz = ops.concatenate([dc, dc, dc, dh], -1) * now["gates"]
            da = dz
            if norms is not None:
                da = _gate_norm_back(norms, dz, now)
                parts = (dz * now["product"], shown * now["c"], shown)
                sums = [a + b for a, b in zip(sums, parts, strict=True)]
            da = ops.cast(da, narrow)
            gradients.append((da,) if norms is None else (da, ops.cast(dz, narrow)))
            back = ops.cast(ops.matmul(da, transposed), wide)
            dh, dc = _state_back(problem, turn, step, back, dh, dc * now["forget"])
        return (dh, dc, *sums), tuple(zip(*gradients[::-1], strict=True))

    outputs = ((turns.gates, narrow),) * (1 if norms is None else 2)
    (dh, dc, *sums), found = turns.loop(body, tuple(carry), outputs, reverse=True)
    da, dz = turns.join(found[0]), turns.join(found[-1])
    return dz, da, dh, dc, [ops.sum(total, axis=0) for total in sums]


def _local_gradients(problem, saved, turn):
    """Returns what a turn's gradients are multiplied by, all its steps at once.

    With t = tanh(shown c'): d shown / dh' = o (1 - t^2); dz = [dc', dc', dc', dh']
    times [g i (1-i), c f (1-f), i (1-g^2), t o (1-o)]; dc / dc' = f. A masked step
    passes c on untouched: its factors are 0, 0 and 1.
    """
    c_in, norms = saved.c_in[turn], problem.norms
    i, f, g, o = ops.split(ops.cast(saved.z[turn], c_in.dtype), 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    gi = g * i
    c = f * c_in + gi
    t = ops.tanh(c if norms is None else norms.cell(c))
    ot = o * t
    through = o - ot * t
    parts = [gi - gi * i, c_in * (f - f * f), i - gi * g, ot - ot * o]
    gates = ops.concatenate(parts, -1)
    mask = problem.at("mask", turn)
    if mask is not None:
        mask = ops.cast(mask, c_in.dtype)
        through, gates, f = through * mask, gates * mask, f * mask + (1 - mask)
    local = {"through": through, "gates": gates, "forget": f}
    if norms is not None:
        product = ops.cast(saved.product[turn], c_in.dtype)
        local["product"], local["product_inverse"] = standardize(product, norms.epsilon)
        local["c"], local["c_inverse"] = standardize(c, norms.epsilon)
    return local


def _cell_norm_back(norms, shown, now):
    return _norm_back(shown * norms.cell_scale, now["c"], now["c_inverse"])


def _gate_norm_back(norms, dz, now):
    scaled = dz * norms.recurrent_scale
    return _norm_back(scaled, now["product"], now["product_inverse"])


def _norm_back(upstream, values, inverse):
    """Returns the gradient before `standardize`, given the one after it."""
    mean = ops.mean(upstream, axis=-1, keepdims=True)
    along = ops.mean(upstream * values, axis=-1, keepdims=True)
    return inverse * (upstream - mean - values * along)


def _state_back(problem, turn, step, back, dh, dc):
    """Returns the gradients of the state before a step.

    Args:
        problem: Its dropout, mask and keep apply.
        turn: Of the loop.
        step: Within the turn.
        back: Gradient of the h that entered the recurrent product.
        dh: Gradient of the step's output, which a masked step passes on.
        dc: Gradient of the c that entered the step.
    """
    if problem.dropout is not None:
        back = back * ops.cast(problem.dropout, back.dtype)
    mask = problem.at("mask", turn, step)
    if mask is not None:
        back = back + (1 - ops.cast(mask, back.dtype)) * dh
    return step_input(back, dc, problem.at("keep", turn, step))


def _recurrent_inputs(h_TBU, h_BU, given):
    """Returns the h that entered each step's recurrent product, [T * B, U]."""
    h_TBU = ops.concatenate([h_BU[None], h_TBU[:-1]], axis=0)
    for name in ("keep", "dropout"):
        if name in given:
            h_TBU = h_TBU * ops.cast(given[name], h_TBU.dtype)
    return ops.reshape(h_TBU, (-1, h_TBU.shape[-1]))
