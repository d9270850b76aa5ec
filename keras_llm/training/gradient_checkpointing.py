"""Blocks whose inner values are computed again for the gradient, not kept."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_llm.layers import DecoderBlock, EncoderBlock, RecurrentBlock
from keras_llm.layers.dropout import SeedTape
from keras_llm.layers.walking import sublayers

_BLOCKS = (DecoderBlock, EncoderBlock, RecurrentBlock)


def checkpoint_blocks(model: keras.Model) -> int:
    """Makes every block of a model keep its inputs alone for the gradient.

    Of L blocks, L inputs [B, T, D] and the inner values of one block are in memory at
    a time, instead of the inner values of all; for that every block runs forward
    twice in a step, a third more work. Loss and gradients are the same numbers: a
    block's dropouts draw their masks once.

    Args:
        model: Of this package's blocks.

    Returns:
        How many blocks there are.

    Raises:
        ValueError: There is none.

    Source: Chen et al. 2016, section 4.2, with a segment a block,
    https://arxiv.org/abs/1604.06174.
    """
    blocks = [layer for layer in sublayers(model) if isinstance(layer, _BLOCKS)]
    if not blocks:
        kinds = ", ".join(kind.__name__ for kind in _BLOCKS)
        raise ValueError(
            "`train.gradient_checkpointing` computes blocks again, so the model must "
            f"have some. Received: `{model.name}`, with no {kinds}. Leave it out."
        )
    for block in blocks:
        block.call = _computed_twice(block.call)  # type: ignore[method-assign]
    return len(blocks)


def _computed_twice(call: Callable) -> Callable:
    """Returns a block's `call` which keeps its arguments for the gradient, no more."""

    @functools.wraps(call)  # Keras reads the names of its arguments.
    def wrapped(*args, **kwargs):
        given = tf.nest.flatten((args, kwargs))
        # Ids and masks have no gradient, and TensorFlow would add floats to them.
        moving = [i for i, value in enumerate(given) if _has_gradient(value)]
        tape = SeedTape()

        def run(*values):
            filled = list(given)
            for i, value in zip(moving, values, strict=True):
                filled[i] = value
            own_args, own_kwargs = tf.nest.pack_sequence_as((args, kwargs), filled)
            with tape.playing():
                return call(*own_args, **own_kwargs)

        return tf.recompute_grad(run)(*[given[i] for i in moving])

    return wrapped


def _has_gradient(value: Any) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating
