"""Several saved adapters beside one kernel, of which each row of a batch takes one."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_llm.ops import low_rank


class Part(NamedTuple):
    """What one adapter holds for one kernel [D, E].

    Attributes:
        down: Float32 [D, R].
        up: Float32 [R, E].
        scale: Factor on their product.
        magnitude: Float32 [E] of DoRA, or None.
    """

    down: np.ndarray
    up: np.ndarray
    scale: float
    magnitude: np.ndarray | None


class RowChoice:
    """Which adapter each row takes, for as long as a block runs.

    Attributes:
        rows: Int32 [B], from 0, which stands for none, up; None where all take none.
    """

    def __init__(self):
        self.rows: Any = None

    @contextlib.contextmanager
    def using(self, rows: Any) -> Iterator[None]:
        """Lets every bank of a model choose by `rows` in the block."""
        before, self.rows = self.rows, rows
        try:
            yield
        finally:
            self.rows = before


class AdapterBank:
    """The parts that several adapters hold for one `Linear`; no weight of that layer.

    y' = (y + scale * x @ down @ up) * factor, by the row's own adapter; the factor is
    DoRA's, the magnitude over the length of the column, and else 1.

    Args:
        linear: A built `Linear`.
        parts: Of each adapter, None of one that leaves this kernel as it is.
        choice: Shared by all banks of a model.

    >>> from keras_llm.layers import Linear
    >>> linear, choice = Linear(2, use_bias=False), RowChoice()
    >>> linear.build((None, 3))
    >>> part = Part(np.ones((3, 1), "float32"), np.ones((1, 2), "float32"), 2.0, None)
    >>> linear.bank = AdapterBank(linear, [part], choice)
    >>> x = np.ones((2, 3), "float32")
    >>> plain = linear(x)
    >>> with choice.using(np.array([0, 1])):
    ...     (linear(x) - plain).numpy().round(3).tolist()
    [[0.0, 0.0], [6.0, 6.0]]
    """

    def __init__(self, linear: Any, parts: Sequence[Part | None], choice: RowChoice):
        self.choice = choice
        self.compute_dtype = linear.compute_dtype
        in_dim, out_dim = linear.kernel.shape
        rank = max((part.down.shape[1] for part in parts if part), default=1)
        down = np.zeros((len(parts) + 1, in_dim, rank), np.float32)
        up = np.zeros((len(parts) + 1, rank, out_dim), np.float32)
        factor = np.ones((len(parts) + 1, out_dim), np.float32)
        for i, part in enumerate(parts, 1):
            if part is None:
                continue
            own = part.down.shape[1]
            down[i, :, :own], up[i, :own] = part.down, part.scale * part.up
            if part.magnitude is not None:
                kernel = ops.convert_to_numpy(ops.cast(linear.kernel, "float32"))
                lengths = low_rank.column_lengths(
                    low_rank.merged_kernel(kernel, part.down, part.up, part.scale)
                )
                factor[i] = part.magnitude / ops.convert_to_numpy(lengths)
        self.variables = [
            keras.Variable(
                value, dtype=linear.variable_dtype, trainable=False, name=f"bank_{name}"
            )
            for name, value in (("down", down), ("up", up), ("factor", factor))
        ]
        self.scales = bool((factor != 1).any())

    def __call__(self, x: Any, y: Any) -> Any:
        """Returns what the projection gives, [B, E] or [B, T, E], of x alike."""
        rows = self.choice.rows
        if rows is None:
            return y
        down, up, factor = (
            ops.cast(ops.take(variable, rows, axis=0), self.compute_dtype)
            for variable in self.variables
        )
        flat = len(x.shape) == 2
        if flat:
            x, y = ops.expand_dims(x, 1), ops.expand_dims(y, 1)
        y = y + ops.matmul(ops.matmul(x, down), up)
        if self.scales:
            y = y * ops.expand_dims(factor, 1)
        return ops.squeeze(y, 1) if flat else y
