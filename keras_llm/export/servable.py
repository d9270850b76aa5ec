"""What an exported model offers: the interface that every kind of model shares."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

# A signature's name and its inputs: tensors or nested lists.
Request = tuple[str, Mapping[str, Any]]
# From a request to its outputs as nested lists.
Answer = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class Servable(tf.Module, abc.ABC):
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
        super().__init__()
        # In a list: Keras' objects are not to be tracked themselves.
        self._parts = [model, tokenizer]
        self.jit = jit
        # A SavedModel finds TensorFlow's variables, not Keras' wrappers of them.
        self.weights = [weight.value for weight in weights]

    @property
    def model(self):
        """Returns the Keras model."""
        return self._parts[0]

    @property
    def tokenizer(self):
        """Returns the model's tokenizer."""
        return self._parts[1]

    @abc.abstractmethod
    def signatures(self) -> dict[str, Any]:
        """Returns the traced functions by signature name."""

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
    """Returns the method traced for inputs of these types, by name."""
    function = tf.function(method, autograph=False)
    return function.get_concrete_function(**specs)
