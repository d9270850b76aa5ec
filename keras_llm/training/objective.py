"""The loss of next-token prediction, for training and for validation."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_llm import models
from keras_llm.ops import losses
from keras_llm.training.task import Batch, SummedLoss

Trunk = Callable[[Batch], tf.Tensor]
# From hidden states [R, T, D] and their batch to the sum of its weighted token losses.
HeadLoss = Callable[[tf.Tensor, Batch], tf.Tensor]


def training_loss(
    model: keras.Model,
    label_smoothing: float = 0.0,
    fuse: Callable[[Callable], Callable] | None = None,
    trunk: Trunk | None = None,
) -> SummedLoss:
    """Returns the function from one micro-batch to its summed loss.

    With one of this package's models the head's product and the loss are taken
    together, some tokens at a time (`ops.losses.head_loss`).

    Args:
        model: To logits [R, T, V], from token ids [R, T] or from a dict of inputs.
        label_smoothing: As in `ops.losses.token_losses`.
        fuse: Compiles what lies between the products.
        trunk: From a batch to hidden states [R, T, D]; None for the model's own.
    """
    if _head_kernel(model) is None:
        return logits_loss(model, label_smoothing)
    if trunk is None:
        layers, _ = models.split_head(model)

        def trunk(batch):
            return layers(inputs_of(model, batch), training=True)

    loss_of_hidden = training_head_loss(model, label_smoothing, fuse)

    def summed_loss(batch, step):
        del step
        return loss_of_hidden(trunk(batch), batch)

    return summed_loss


def training_head_loss(
    model: keras.Model,
    label_smoothing: float = 0.0,
    fuse: Callable[[Callable], Callable] | None = None,
) -> HeadLoss:
    """Returns the function from hidden states and their batch to the summed loss.

    For a task whose loss needs more of a forward pass than its hidden states.

    Args:
        model: One of this package's, whose logits are a product with its head.
        label_smoothing: As in `training_loss`.
        fuse: As in `training_loss`.

    Raises:
        ValueError: Its logits are more than that product.
    """
    head = _head_kernel(model)
    if head is None:
        raise ValueError(
            "The loss of hidden states needs a model whose logits are their product "
            f"with a head's matrix. Received: {model.name}. Take `training_loss`."
        )
    kernel, tied, scale = head
    soft_cap = getattr(model.config, "logit_soft_cap", None)

    def loss_of_hidden(hidden, batch):
        if scale != 1:
            hidden = hidden * scale
        return losses.head_loss(
            tf.reshape(hidden, (-1, hidden.shape[-1])),
            kernel.value,
            tf.reshape(batch["targets"], (-1,)),
            tf.reshape(batch["weights"], (-1,)),
            tied,
            label_smoothing,
            fuse=fuse,
            soft_cap=soft_cap,
        )

    return loss_of_hidden


def inputs_of(model: keras.Model, batch: Batch) -> Any:
    """Returns what a model reads of a batch: its token ids, or a dict of inputs."""
    if isinstance(model.input, dict):
        return {name: batch[name] for name in model.input}
    return batch["token_ids"]


def logits_loss(model: keras.Model, label_smoothing: float = 0.0) -> SummedLoss:
    """Returns the weighted sum of cross-entropies, from all logits at once.

    Args:
        model: From the inputs that a batch names to logits of its targets.
        label_smoothing: Share of probability spread over all classes.
    """

    def summed_loss(batch, step):
        del step
        logits = model(inputs_of(model, batch), training=True)
        each = losses.token_losses(logits, batch["targets"], label_smoothing)
        return tf.reduce_sum(batch["weights"] * each)

    return summed_loss


class CarriedState:
    """A trunk whose recurrent state goes on from one micro-batch to the next.

    Gradients stop at the start of a micro-batch: truncated back-propagation.
    (Williams and Peng 1990.) A state with NaN in it starts anew from zeros, or one
    bad batch would spoil all that follow.

    Args:
        model: Its decoder must offer `initial_state` and `sequence`.
        rows: R, the rows of every micro-batch.

    Attributes:
        variables: The state by name, each [R, ...].
    """

    def __init__(self, model: keras.Model, rows: int):
        self.decoder = models.decoder(model)
        if not hasattr(self.decoder, "sequence"):
            raise ValueError(
                "`carry_state` needs a recurrent model, whose state can go on from "
                f"batch to batch. Received: {model.config.architecture}. Set "
                "carry_state=False."
            )
        self.variables = {
            name: tf.Variable(value, trainable=False)
            for name, value in self.decoder.initial_state(rows).items()
        }

    def __call__(self, batch: Batch) -> tf.Tensor:
        """Returns the hidden states [R, T, D] and keeps the state they end in."""
        state = {name: v.read_value() for name, v in self.variables.items()}
        hidden, state = self.decoder.sequence(batch["token_ids"], state, training=True)
        for name, value in state.items():
            finite = tf.reduce_all(tf.math.is_finite(value), axis=-1, keepdims=True)
            self.variables[name].assign(tf.where(finite, value, tf.zeros_like(value)))
        return hidden


def validation_loss(model: keras.Model) -> Callable[[Any], tf.Tensor]:
    """Returns the function from a batch to its summed loss, without dropout.

    No label smoothing, whatever the training had: its figures can be compared.
    """
    if _head_kernel(model) is None:

        def plain(batch):
            logits = model(inputs_of(model, batch), training=False)
            each = losses.token_losses(logits, batch["targets"])
            return tf.reduce_sum(batch["weights"] * each)

        return plain
    trunk, _ = models.split_head(model)
    loss_of_hidden = validation_head_loss(model)
    return lambda batch: loss_of_hidden(
        trunk(inputs_of(model, batch), training=False), batch
    )


def validation_head_loss(model: keras.Model) -> HeadLoss:
    """Returns the function from hidden states and their batch to the summed loss.

    Args:
        model: One of this package's, with a head.
    """
    token_losses = head_token_losses(model)

    def loss_of_hidden(hidden, batch):
        weights = tf.reshape(batch["weights"], (-1,))
        total = 0.0
        for part, each in token_losses(hidden, batch["targets"]):
            total += tf.reduce_sum(weights[part] * each)
        return total

    return loss_of_hidden


def head_token_losses(
    model: keras.Model,
) -> Callable[[tf.Tensor, tf.Tensor], Iterator[tuple[slice, tf.Tensor]]]:
    """Returns the function from hidden states and targets to each token's loss.

    The states [R, T, D] and targets [R, T] are read as one row of R T tokens; it
    yields stretches of that row with their losses, so that few logits are in memory.

    Args:
        model: One of this package's, with a head.
    """
    _, project = models.split_head(model)
    vocab_size = model.config.vocab_size

    def token_losses(hidden, targets):
        hidden = tf.reshape(hidden, (-1, hidden.shape[-1]))
        targets = tf.reshape(targets, (-1,))
        size = losses.chunk_tokens(hidden.shape[0], vocab_size)
        for start in range(0, hidden.shape[0], size):
            part = slice(start, start + size)
            yield part, losses.token_losses(project(hidden[part]), targets[part])

    return token_losses


def _head_kernel(model: keras.Model) -> tuple[Any, bool, float] | None:
    """Returns the head's matrix, whether it is the embedding, and a factor on x.

    None where logits are more than that product: a foreign model, a bias, an adapter.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "final_norm" not in layers:
        return None
    if "head" in layers:
        head = layers["head"]
        plain = not (head.use_bias or head.adapter.started)
        return (head.kernel, False, 1.0) if plain else None
    if "token_embedding" in layers and not layers["token_embedding"].use_output_bias:
        embedding = layers["token_embedding"]
        return embedding.embeddings, True, embedding.logit_scale
    return None
