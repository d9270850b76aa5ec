"""Adapters by their names, in the graph."""

import contextlib
from collections.abc import Sequence

import tensorflow as tf

from keras_llm import models
from keras_llm.generation import parameters as parameters_lib


class AdapterNames:
    """Lets each row of a batch choose one of a model's adapters.

    Args:
        model: Where it has none (`models.add_adapters`), nothing can be chosen.
    """

    def __init__(self, model):
        self.several = models.several_adapters(model)

    def rows(self, adapter, lengths):
        """Returns int32 [B]: the number of each row's adapter, 0 for none.

        Args:
            adapter: String [B], names; "" for none. None for none in any row.
            lengths: Int32 [B], one for each row.

        Raises:
            tf.errors.InvalidArgumentError: When run, on an unknown name.
        """
        if adapter is None:
            return tf.zeros_like(lengths)
        rule = "`adapter` must be empty: the model was given none (models.add_adapters)"
        names = [""]
        if self.several is not None:
            names += self.several.names
            rule = f"`adapter` must be one of {', '.join(names[1:])}, or empty for none"
        is_name_BK = tf.equal(adapter[:, None], tf.constant(names)[None])
        known = tf.debugging.Assert(
            tf.reduce_all(tf.reduce_any(is_name_BK, axis=1)),
            [f"{rule}. Received:", adapter],
            summarize=8,
        )
        same = parameters_lib.require_rows("adapter", adapter, lengths)
        with tf.control_dependencies([known, same]):
            return tf.argmax(tf.cast(is_name_BK, tf.int32), axis=1, output_type="int32")

    def column(self, adapter: str | Sequence[str] | None, batch: int) -> tf.Tensor:
        """Returns string [B] of one name for all rows, or of one for each.

        Raises:
            ValueError: Another number of names, or what is no string.
        """
        adapter = "" if adapter is None else adapter
        names = [adapter] * batch if isinstance(adapter, str) else list(adapter)
        if len(names) != batch or not all(isinstance(name, str) for name in names):
            raise ValueError(
                "`adapter` must be one name, or one for each prompt. Received: "
                f"{adapter!r} for {batch} prompts."
            )
        return tf.constant(names, tf.string, [batch])

    def using(self, rows):
        """Returns the context in which the model's rows take those adapters."""
        if self.several is None:
            return contextlib.nullcontext()
        return self.several.choice.using(rows)
