"""Variables of a KerasHub backbone under the names that Transformers has for them."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from keras_llm.convert.family import UnsupportedModelError

Layout = Callable[[np.ndarray], np.ndarray]


def as_is(values: np.ndarray) -> np.ndarray:
    """Returns what is the same there."""
    return values


def flat(values: np.ndarray) -> np.ndarray:
    """Returns a bias [N, H] as [N H]."""
    return values.reshape(-1)


def columns(values: np.ndarray) -> np.ndarray:
    """Returns a kernel [in, N, H] as [in, out].

    >>> columns(np.ones((5, 2, 3))).shape
    (5, 6)
    """
    return values.reshape(len(values), -1)


def merged(values: np.ndarray) -> np.ndarray:
    """Returns a kernel [N, H, out] as [in, out].

    >>> merged(np.ones((2, 3, 5))).shape
    (6, 5)
    """
    return values.reshape(-1, values.shape[-1])


def rows(values: np.ndarray) -> np.ndarray:
    """Returns a kernel [in, out] or [in, N, H] as [out, in]."""
    return columns(values).T


def merged_rows(values: np.ndarray) -> np.ndarray:
    """Returns a kernel [N, H, out] as [out, in]."""
    return merged(values).T


def head_rows(values: np.ndarray) -> np.ndarray:
    """Returns a kernel [N, in, H] as [out, in].

    >>> head_rows(np.ones((2, 5, 3))).shape
    (6, 5)
    """
    return values.swapaxes(1, 2).reshape(-1, values.shape[1])


class HubTensors:
    """Tensors of a checkpoint, read one at a time from a backbone's variables.

    Attributes:
        shapes: Name to shape.
    """

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Layout, tuple[Any, ...]]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def add(self, name: str, layout: Layout, *variables: Any) -> None:
        """Adds a tensor: variables laid as there, side by side along the last axis."""
        self._sources[name] = (layout, variables)
        blank = [np.empty(variable.shape, bool) for variable in variables]
        self.shapes[name] = _joined(layout, blank).shape

    def add_block(
        self,
        prefix: str,
        layer: Any,
        names: Mapping[str, tuple[Layout, str]],
    ) -> None:
        """Adds the tensors of one block.

        Args:
            prefix: Of their names.
            layer: The block.
            names: Name there to the layout and the path in the layer, of which several
                are joined by "+".

        Raises:
            UnsupportedModelError: The layer lacks a variable.
        """
        found = block_variables(layer)
        for name, (layout, paths) in names.items():
            missing = [path for path in paths.split("+") if path not in found]
            if missing:
                raise UnsupportedModelError(
                    f"The layer {layer.name!r} must have the variables {missing}. "
                    f"Received: {sorted(found)}."
                )
            self.add(
                f"{prefix}.{name}", layout, *(found[path] for path in paths.split("+"))
            )

    def check_all_used(self, variables: Iterable[Any]) -> None:
        """Raises UnsupportedModelError where a variable is no tensor's."""
        used = {id(each) for _, parts in self._sources.values() for each in parts}
        left = [each.path for each in variables if id(each) not in used]
        if left:
            raise UnsupportedModelError(
                "Every weight of the backbone must be one that is known. Left over: "
                f"{left}. Merge an adapter, and convert before quantising."
            )

    def check_readable(self, name: str) -> None:
        """Raises UnsupportedModelError unless a tensor is of floats."""
        for variable in self._sources[name][1]:
            if "float" not in str(variable.dtype):
                raise UnsupportedModelError(
                    f"The weight {variable.path!r} must be of a float type. Received: "
                    f"{variable.dtype}. Convert before quantising."
                )

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        layout, variables = self._sources[name]
        values = [np.asarray(v.numpy()).astype(np.float32) for v in variables]
        return _joined(layout, values)

    def write(self, name: str, values: np.ndarray) -> None:
        """Puts a tensor into the variables that it is read from.

        A layout only moves values: which went where is told by laying out numbers.
        """
        layout, variables = self._sources[name]
        sizes = [int(np.prod(variable.shape)) for variable in variables]
        parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        shaped = [
            part.reshape(variable.shape)
            for part, variable in zip(parts, variables, strict=True)
        ]
        places = _joined(layout, shaped).reshape(-1)
        assert len(places) == sum(sizes), f"{name} is read from a part of its variables"
        flat = np.empty(sum(sizes), np.float32)
        flat[places] = values.reshape(-1)
        for part, variable in zip(parts, variables, strict=True):
            variable.assign(flat[part].reshape(variable.shape))


def _joined(layout: Layout, values: list[np.ndarray]) -> np.ndarray:
    parts = [layout(each) for each in values]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def block_variables(layer: Any) -> dict[str, Any]:
    """Returns a layer's variables by their path in it.

    T5's norms are numbered over the whole model there, and here within the block.
    """
    found: dict[str, Any] = {}
    for variable in layer.weights:
        path = variable.path.rpartition(f"{layer.name}/")[2]
        if re.fullmatch(r"t5_layer_norm(_\d+)?/weight", path):
            path = f"norm_{sum(name.startswith('norm_') for name in found)}"
        found[path] = variable
    return found


def hub_values(model_type: str, backbone: Any, **more: Any) -> dict[str, Any]:
    """Returns a config of Transformers': its kind, its vocabulary and `more`."""
    return {
        "model_type": model_type,
        "vocab_size": backbone.vocabulary_size,
        **more,
    }


def tables(backbone: Any, paths: dict[str, str]) -> HubTensors:
    """Returns the tensors outside the blocks, which are the same there."""
    by_path = {weight.path: weight for weight in backbone.weights}
    tensors = HubTensors()
    for name, path in paths.items():
        tensors.add(name, as_is, by_path[path])
    return tensors


def add_untied(tensors: HubTensors, backbone: Any) -> None:
    """Adds the output's table where it is not the input's."""
    if not backbone.token_embedding.tie_weights:
        table = backbone.token_embedding.reverse_embeddings
        tensors.add("lm_head.weight", rows, table)


def norm(name: str, path: str) -> dict[str, tuple[Layout, str]]:
    """Returns the names of a layer norm, as `add_block` takes them."""
    return {
        f"{name}.weight": (as_is, f"{path}/gamma"),
        f"{name}.bias": (as_is, f"{path}/beta"),
    }


def dense(name: str, paths: str, layout: Layout) -> dict[str, tuple[Layout, str]]:
    """Returns the names of a projection with its bias, as `add_block` takes them."""

    def parts(kind: str) -> str:
        return "+".join(f"{path}/{kind}" for path in paths.split("+"))

    return {
        f"{name}.weight": (layout, parts("kernel")),
        f"{name}.bias": (flat, parts("bias")),
    }


def check_table(backbone: Any, max_positions: int | None) -> None:
    """Raises UnsupportedModelError for a length where a table says it."""
    if max_positions is not None:
        raise UnsupportedModelError(
            "`max_positions` is for backbones without a table of positions. Received: "
            f"max_positions={max_positions} for a table of "
            f"{backbone.max_sequence_length}."
        )
