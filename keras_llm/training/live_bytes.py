"""What the tensors of a graph take in memory at a time, from their shapes alone."""

import math
from collections.abc import Iterable, Sequence

import tensorflow as tf

# The result is the input under another shape or name.
_SAME_BUFFER = (
    "ExpandDims",
    "Identity",
    "IdentityN",
    "PreventGradient",
    "ReadVariableOp",
    "Reshape",
    "Squeeze",
    "StatelessWhile",
    "StopGradient",
    "TensorListFromTensor",
    "TensorListSetItem",
    "While",
)
# TensorFlow writes the result over an input that nothing else needs.
_IN_PLACE = (
    "Add",
    "AddN",
    "AddV2",
    "Cast",
    "Exp",
    "Log",
    "Mul",
    "Neg",
    "RealDiv",
    "Rsqrt",
    "RsqrtGrad",
    "SelectV2",
    "Sigmoid",
    "SigmoidGrad",
    "Softmax",
    "Sqrt",
    "Square",
    "Sub",
    "Tanh",
    "TanhGrad",
)

# Of no size: weights are counted apart, and axes to sum over are a few numbers.
_NEGLIGIBLE = ("Const", "ReadVariableOp", "VarHandleOp", "BroadcastGradientArgs")


def peak_bytes(
    operations: Sequence[tf.Operation], kept: Iterable[tf.Tensor] = ()
) -> int:
    """Returns the most bytes that the results of operations take at one time.

    A result lives from its operation to the last one that reads it. Constants count
    nothing, nor does what other operations have made. Of a loop's body what it hands
    on counts alone, and a list takes what it is stacked to. A runtime that runs
    operations in another order, or leaves some out, needs a little more or less.

    Args:
        operations: In the order in which they run, such as that of their making.
        kept: Results that live to the end.

    Raises:
        ValueError: The shape of a result is not known.

    >>> with tf.Graph().as_default() as graph:
    ...     x = tf.zeros((5, 7)) + 1.0  # 140 bytes
    ...     y = tf.matmul(x, x, transpose_b=True)  # 100 more, read with x
    ...     z = tf.reduce_sum(y)
    >>> peak_bytes(graph.get_operations())
    240
    """
    homes: dict[str, int] = {}  # Tensor to the number of its buffer.
    sizes: list[int] = []
    last: list[float] = []
    for i, operation in enumerate(operations):
        for tensor in operation.inputs:
            if tensor.name in homes:
                last[homes[tensor.name]] = i
        for place, tensor in enumerate(operation.outputs):
            home = _shared(operation, place, homes)
            if home is None:
                home = len(sizes)
                sizes.append(_size(operation, tensor))
                last.append(i)
            homes[tensor.name] = home
        if operation.type == "TensorListStack":
            listed = homes[operation.inputs[0].name]
            sizes[listed] = max(sizes[listed], sizes[-1])
    for tensor in kept:
        if tensor.name in homes:
            last[homes[tensor.name]] = math.inf
    return _highest(operations, homes, sizes, last)


def _shared(operation, place, homes):
    """Returns the buffer that a result shares with the input of its place, if any."""
    if operation.type not in _SAME_BUFFER or place >= len(operation.inputs):
        return None
    return homes.get(operation.inputs[place].name)


def _size(operation, tensor) -> int:
    """Returns the bytes of a result."""
    if operation.type in _NEGLIGIBLE:
        return 0
    if tensor.dtype in (tf.variant, tf.resource, tf.string):
        return 0
    values = tensor.shape.num_elements()
    if values is None:
        raise ValueError(
            "Memory is counted from shapes that are known. Received: "
            f"`{tensor.name}` of shape {tensor.shape}. Give every input its sizes."
        )
    return values * tensor.dtype.size


def _highest(operations, homes, sizes, last) -> int:
    """Walks the operations and returns the most that is alive."""
    alive: set[int] = set()
    now = most = 0
    for i, operation in enumerate(operations):
        read = {homes[t.name] for t in operation.inputs if t.name in homes}
        ending = {home for home in read & alive if last[home] == i}
        for tensor in operation.outputs:
            home = homes[tensor.name]
            if home in alive:
                continue
            if operation.type in _IN_PLACE:
                over = next((e for e in ending if sizes[e] == sizes[home]), None)
                if over is not None:
                    ending.discard(over)
                    alive.discard(over)
                    now -= sizes[over]
            alive.add(home)
            now += sizes[home]
        most = max(most, now)
        gone = ending | {
            homes[t.name] for t in operation.outputs if last[homes[t.name]] == i
        }
        for home in gone & alive:
            alive.discard(home)
            now -= sizes[home]
    return most
