"""Judging a model by rows that it does not learn from, each once, exactly."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from keras_llm.data import FiniteBatches, ValidationBatches
from keras_llm.training.objective import validation_loss
from keras_llm.training.replicas import Spreader
from keras_llm.training.task import Batch, Judgement


def perplexity(loss: float) -> float:
    """Returns exp(loss); infinity where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


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
    def loss(self) -> float:
        """Returns the mean cross-entropy."""
        return self.nats_per_token

    @property
    def perplexity(self) -> float:
        """Returns exp(nats_per_token); infinity where that overflows."""
        return perplexity(self.nats_per_token)

    def figures(self) -> dict[str, float]:
        """Returns what is logged, by name."""
        return {"loss": self.nats_per_token, "bits_per_byte": self.bits_per_byte}

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes."""
        return self._asdict()

    def describe(self) -> str:
        """Returns the figures in words."""
        return (
            f"{self.nats_per_token:.4f} nats per token, "
            f"{self.bits_per_byte:.4f} bits per byte"
        )


class Scores(NamedTuple):
    """What a task other than a language model's is judged by.

    Attributes:
        loss: Mean loss, without label smoothing and the like.
        metrics: By name, such as "accuracy".
        num_rows: Rows judged.
        confusion: Where classes are told apart, [L, L]: how many of class i were
            taken for class j. It is not logged.
    """

    loss: float
    metrics: dict[str, float]
    num_rows: int
    confusion: np.ndarray | None = None

    def figures(self) -> dict[str, float]:
        """Returns what is logged, by name."""
        return {"loss": self.loss, **self.metrics}

    def to_dict(self) -> dict[str, Any]:
        """Returns its figures as plain values."""
        return {**self.figures(), "num_rows": self.num_rows}

    def describe(self) -> str:
        """Returns the figures in words."""
        return ", ".join(
            f"{name} {value:.4f}" for name, value in self.figures().items()
        )


_J = TypeVar("_J", bound=Judgement)


class Validator(Generic[_J]):
    """Judges a model by sums over all rows, on every replica of a strategy.

    Args:
        strategy: The one that the model was made in.
        batches: The rows; each worker gives its own part.
        sums: From a batch of tensors to sums over its rows, by name. A scalar each,
            or an array where sums are kept apart, as by class.
        judge: From those sums over all rows, in float64, to the judgement.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        batches: FiniteBatches,
        sums: Callable[[Batch], Mapping[str, tf.Tensor]],
        judge: Callable[[dict[str, Any]], _J],
    ):
        self.strategy = strategy
        self.batches = batches
        self._spread = Spreader(strategy, batches.config.batch_size)
        self._sums = sums
        self._judge = judge
        self._batch_sums = tf.function(self._replicated, autograph=False)

    def _replicated(self, batch):
        sums = self.strategy.run(self._sums, args=(batch,))
        add = tf.distribute.ReduceOp.SUM
        return {n: self.strategy.reduce(add, s, axis=None) for n, s in sums.items()}

    def __call__(self, before_batch: Callable[[], None] | None = None) -> _J:
        """Returns the judgement of the model as it stands.

        Args:
            before_batch: Called before each batch; what it raises ends the
                judging.
        """
        totals: dict[str, Any] = {}
        for batch in self.batches:
            if before_batch is not None:
                before_batch()
            # Sums of batches are added in float64: exact to far more digits than
            # shown.
            for name, value in self._batch_sums(self._spread(batch, axis=0)).items():
                totals[name] = totals.get(name, 0.0) + value.numpy().astype("float64")
        return self._judge(totals)


def text_validator(
    strategy: tf.distribute.Strategy, model: keras.Model, batches: ValidationBatches
) -> Validator[Validation]:
    """Returns the judge of a language model: the loss over every token of a text.

    Args:
        strategy: The one that the model was made in.
        model: From token ids [R, T] to logits [R, T, V].
        batches: The text.
    """
    summed_loss = validation_loss(model)

    def judge(sums):
        total = float(sums["loss"])
        return Validation(
            nats_per_token=total / batches.num_tokens,
            bits_per_byte=total / math.log(2) / batches.num_bytes,
            num_tokens=batches.num_tokens,
            num_bytes=batches.num_bytes,
        )

    return Validator(
        strategy, batches, lambda batch: {"loss": summed_loss(batch)}, judge
    )


def means_validator(
    strategy: tf.distribute.Strategy,
    batches: FiniteBatches,
    each: Callable[[Batch], Mapping[str, tf.Tensor]],
) -> Validator[Scores]:
    """Returns the judge by means over the rows, "loss" among them.

    Args:
        strategy: The one that the model was made in.
        batches: The rows, with `weights` [R].
        each: From a batch to the figures of its rows, each [R], by name.
    """

    def sums(batch):
        figures = {"count": tf.ones_like(batch["weights"]), **each(batch)}
        return {n: tf.reduce_sum(batch["weights"] * x) for n, x in figures.items()}

    def judge(sums):
        count = float(sums.pop("count"))
        means = {name: float(value) / count for name, value in sums.items()}
        return Scores(means.pop("loss"), means, int(count))

    return Validator(strategy, batches, sums, judge)
