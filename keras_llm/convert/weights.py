"""How one of our weights is made of theirs, read in both directions."""

import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Weight:
    """One of our weights and the tensors that another library keeps of it.

    Ours is theirs side by side: joined along the last axis, each transposed before
    that where their projections are stored [out, in].

    Attributes:
        ours: Path of the weight in our model.
        theirs: Names of their tensors, in the order of joining.
        transposed: Whether each of theirs is a matrix the other way around.
        sizes: What each takes of our last axis; None for equal shares.

    >>> fused = Weight("qkv", ("q", "k", "v"), transposed=True, sizes=(4, 2, 2))
    >>> fused.their_shapes((3, 8))
    [(4, 3), (2, 3), (2, 3)]
    >>> parts = fused.split(np.ones((3, 8)))
    >>> fused.join(parts).shape
    (3, 8)
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    sizes: tuple[int, ...] | None = None

    def their_shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Returns the shapes of `theirs` where ours has `shape`."""
        shapes = [(*shape[:-1], size) for size in self._sizes(shape[-1])]
        return [shape[::-1] for shape in shapes] if self.transposed else shapes

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        """Returns our weight from their tensors."""
        if self.transposed:
            parts = [part.T for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Returns their tensors from our weight."""
        ends = np.cumsum(self._sizes(values.shape[-1]))[:-1]
        parts = np.split(values, ends, axis=-1)
        return [part.T for part in parts] if self.transposed else parts

    def _sizes(self, size: int) -> tuple[int, ...]:
        return self.sizes or (size // len(self.theirs),) * len(self.theirs)


def shapes_of_theirs(
    weights: list[Weight], model: keras.Model
) -> dict[str, tuple[int, ...]]:
    """Returns name to shape of all their tensors, for a model of ours."""
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    return {
        name: shape
        for weight in weights
        for name, shape in zip(
            weight.theirs, weight.their_shapes(shapes[weight.ours]), strict=True
        )
    }
