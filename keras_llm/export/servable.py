"""What an exported model offers: the interface that every kind of model shares."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

# A signature's name and its inputs: tensors or nested lists.
Request = tuple[str, Mapping[str, Any]]
# What answers a signature and the types of its inputs by name.
Function = tuple[Callable[..., dict[str, Any]], dict[str, tf.TensorSpec]]
# From a request to its outputs as nested lists.
Answer = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class Servable(abc.ABC):
    """A model's weights and one function per signature: what is written.

    Every input has rank 1 or more and every output leads with the batch, so that
    TF Serving can put requests together.

    Args:
        model: The built model.
        tokenizer: Its tokenizer.
        jit: Whether XLA compiles what the kind of model has compiled.
        weights: The variables that the model computes with.
    """

    def __init__(self, model, tokenizer, jit: bool, weights: Sequence[Any]):
        self.model = model
        self.tokenizer = tokenizer
        self.jit = jit
        self.weights = list(weights)

    @abc.abstractmethod
    def functions(self) -> dict[str, Function]:
        """Returns what answers each signature, by signature name."""

    def signatures(self) -> dict[str, Any]:
        """Returns the traced functions by signature name.

        Signatures that have one function share its trace.
        """
        functions, traced = self.functions(), {}
        for method, specs in functions.values():
            if method not in traced:
                traced[method] = trace(method, **specs)
        return {name: traced[method] for name, (method, _) in functions.items()}

    @abc.abstractmethod
    def warmup_requests(self) -> list[Request]:
        """Returns small requests, of tensors, that a server answers before others."""

    @abc.abstractmethod
    def cases(self, answer: Answer) -> Iterator[Request]:
        """Yields what the proof asks every signature; generation in a mixed batch.

        Args:
            answer: Runs a request in memory, for a case that goes on from another.
        """

    @abc.abstractmethod
    def example(self) -> str:
        """Returns shell commands, for the card, that ask the model `{name}`."""

    def limits(self) -> str:
        """Returns how long a request may be, for the card."""
        limit = getattr(self.model.config, "max_positions", None)
        return f"{limit} tokens" if limit else "not bounded by positions"


def trace(method: Callable, **specs: tf.TensorSpec):
    """Returns the method traced for inputs of these types, by name.

    An input of another rank is refused when it is run: a server hands on whatever
    shape a request has, and the first op to stumble over it would not name it.
    """

    def checked(**inputs):
        right = [_require_rank(n, x, len(specs[n].shape)) for n, x in inputs.items()]
        with tf.control_dependencies(right):
            inputs = {name: tf.identity(value) for name, value in inputs.items()}
        return method(**inputs)

    function = tf.function(checked, autograph=False)
    return function.get_concrete_function(**specs)


def _require_rank(name: str, value: tf.Tensor, rank: int):
    """Returns an op that fails unless a value has the rank that its type says."""
    shape = tf.shape(value)
    # Counted, since `tf.rank` would be folded to what the type says.
    counted = tf.reduce_sum(tf.cast(shape >= 0, tf.int32))
    meaning = "one value for each row" if rank == 1 else f"{rank} axes, rows first"
    return tf.debugging.Assert(
        tf.equal(counted, rank),
        [f"`{name}` must have {meaning}. Received the shape:", shape],
        name=f"check_rank_{name}",
    )
