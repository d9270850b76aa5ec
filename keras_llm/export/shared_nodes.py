"""Nodes of a SavedModel's functions that compute the same become one.

Every reshape of a traced layer asks anew for the same sizes, and every constant is
written where it is used: more than half of the nodes of a deep model. A server reads,
checks and optimises each of them when it loads the model and at the first call.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

# Functions of their inputs and attributes alone, and what most copies are.
_SHAREABLE = frozenset(
    ("AddV2", "Cast", "ConcatV2", "Const", "Equal", "ExpandDims", "Fill", "FloorDiv")
    + ("GreaterEqual", "Identity", "Less", "LogicalAnd", "Mul", "Pack", "Prod")
    + ("Range", "Reshape", "SelectV2", "Shape", "Squeeze", "StridedSlice", "Sub")
    + ("Transpose",)
)


def share_nodes(folder: pathlib.Path) -> tuple[int, int]:
    """Rewrites `saved_model.pb` in a folder, its functions' copies of nodes merged.

    Two nodes are one where op, device, inputs in their order and attributes are the
    same. Results are the same, in each bit.

    Args:
        folder: Of a SavedModel.

    Returns:
        The number of nodes in functions before and after.
    """
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    before = after = 0
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            before += len(function.node_def)
            _share(function)
            after += len(function.node_def)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    return before, after


def _share(function: Any) -> None:
    """Merges the copies in one FunctionDef."""
    named = set(function.control_ret.values())  # What a caller waits for by name.
    kept: dict[tuple, str] = {}
    instead: dict[str, str] = {}
    nodes = []
    for node in function.node_def:
        inputs = _renamed(node.input, instead)
        if node.op in _SHAREABLE and node.name not in named:
            key = (node.op, node.device, *inputs, _attributes(node))
            first = kept.setdefault(key, node.name)
            if first != node.name:
                instead[node.name] = first
                continue
        nodes.append((node, inputs))
    copies = []
    for node, inputs in nodes:
        copy = type(node).FromString(node.SerializeToString())
        copy.ClearField("input")
        # Once more, for a node that is named before it stands.
        copy.input.extend(_renamed(inputs, instead))
        copies.append(copy)
    function.ClearField("node_def")
    function.node_def.extend(copies)
    for name, source in list(function.ret.items()):
        (function.ret[name],) = _renamed([source], instead)


def _attributes(node: Any) -> tuple:
    """Returns a node's attributes, but for the shapes that its inputs imply."""
    return tuple(
        (name, value.SerializeToString(deterministic=True))
        for name, value in sorted(node.attr.items())
        if name != "_output_shapes"
    )


def _renamed(inputs: Iterable[str], instead: dict[str, str]) -> list[str]:
    """Returns inputs, `node:output:0` or `^node`, with the nodes that stay."""
    renamed = []
    for source in inputs:
        mark = "^" if source.startswith("^") else ""
        name, colon, output = source.removeprefix("^").partition(":")
        source = mark + instead.get(name, name) + colon + output
        # What is waited for twice by now is waited for once.
        if not (mark and source in renamed):
            renamed.append(source)
    return renamed
