"""The loss over a whole validation text: every token once, exactly."""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_llm.data import ValidationBatches
from keras_llm.training.objective import validation_loss
from keras_llm.training.replicas import Spreader


class Validation(NamedTuple):
    """Loss over a text.

    Attributes:
        nats_per_token: Mean cross-entropy.
        bits_per_byte: Total in bits per UTF-8 byte of the text: comparable across
            tokenizers.
        num_tokens: Predicted tokens.
        num_bytes: Bytes that they stand for.
    """

    nats_per_token: float
    bits_per_byte: float
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        """Returns exp(nats_per_token); infinity where that overflows."""
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:
            return math.inf


class Validator:
    """Measures a model's loss over a text, on every replica of a strategy.

    Args:
        strategy: The one that the model was made in.
        model: From token ids [R, T] to logits [R, T, V].
        batches: The text; each worker gives its own part.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        batches: ValidationBatches,
    ):
        self.strategy = strategy
        self.batches = batches
        self._spread = Spreader(strategy, batches.config.batch_size)
        self._summed_loss = validation_loss(model)
        self._batch_loss = tf.function(self._replicated)

    def _replicated(self, batch):
        total = self.strategy.run(
            self._summed_loss,
            args=(batch["token_ids"], batch["targets"], batch["weights"]),
        )
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, total, axis=None)

    def __call__(self, before_batch: Callable[[], None] | None = None) -> Validation:
        """Returns the loss of the model as it stands.

        Args:
            before_batch: Called before each batch; what it raises ends the
                measuring.
        """
        losses = []
        for batch in self.batches:
            if before_batch is not None:
                before_batch()
            losses.append(float(self._batch_loss(self._spread(batch, axis=0))))
        # Sums of batches are added in float64: exact to far more digits than shown.
        total = math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan
        return Validation(
            nats_per_token=total / self.batches.num_tokens,
            bits_per_byte=total / math.log(2) / self.batches.num_bytes,
            num_tokens=self.batches.num_tokens,
            num_bytes=self.batches.num_bytes,
        )
