"""What a run learns: the interface that every task shares."""

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.core import Config
from keras_llm.training.config import TrainConfig
from keras_llm.training.replicas import Workers

Batch = Mapping[str, Any]

# From a micro-batch of tensors, each leading with its rows, and the step's number
# (int64) to the sum of the losses, weighted by `batch["weights"]`.
SummedLoss = Callable[[Batch, tf.Tensor], tf.Tensor]


# From a step's number to one bool for each trainable weight of the model.
Moves = Callable[[tf.Tensor], Sequence[tf.Tensor | bool]]

_VALIDATION_TOKENS = 8_192  # Of a validation batch, unless training's is larger.


class Objective(NamedTuple):
    """What the train step minimises.

    Attributes:
        summed_loss: Divided by the sum of the whole step's weights, it is the loss.
        state: Variables that a checkpoint must hold beside the model's, by name.
        moves: False leaves a weight and its moments as they are in that step; None:
            all move. A function of the step alone, so that a resumed run goes on
            as before.
    """

    summed_loss: SummedLoss
    state: dict[str, tf.Variable] = {}
    moves: Moves | None = None


class Judgement(Protocol):
    """What an evaluation found."""

    @property
    def loss(self) -> float:
        """Returns what the best model is chosen by: the lower the better."""

    def figures(self) -> dict[str, float]:
        """Returns what is logged, by name; "loss" is among them."""

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as plain values."""

    def describe(self) -> str:
        """Returns the figures in words."""


class Task(Config, abc.ABC):
    """What a run learns: which rows it reads, which loss, how it is judged.

    A task is a frozen config, part of the `Experiment`, and stateless: every method
    is a function of its arguments.
    """

    kind: ClassVar[str]
    # Whether it is of little use from weights at random: then that is said.
    wants_a_start: ClassVar[bool] = False

    def texts(self, source: Any, config: data.TextConfig) -> Iterable[bytes]:
        """Yields the texts of a source that a tokenizer may be trained on."""
        return data.read_documents(source, config)

    @abc.abstractmethod
    def fill_in(self, experiment: Any, tokenizer: Any, train_text: Any) -> Any:
        """Returns the `Experiment` with what tokenizer and text decide.

        Raises:
            ValueError: The model does not fit the task, or not the tokenizer.
        """

    @abc.abstractmethod
    def batches(
        self,
        experiment: Any,
        train_text: Any,
        valid_text: Any,
        tokenizer: Any,
        team: Workers,
    ) -> tuple[data.EndlessBatches, data.FiniteBatches]:
        """Returns this worker's training and validation batches.

        Args:
            experiment: Filled in.
            train_text: What to learn from.
            valid_text: What to judge by; None holds a share of `train_text` back.
            tokenizer: The run's.
            team: The workers that share the rows.
        """

    @abc.abstractmethod
    def objective(
        self,
        model: keras.Model,
        config: TrainConfig,
        fuse: Callable[[Callable], Callable] | None = None,
        rows: int | None = None,
    ) -> Objective:
        """Returns what is minimised; called in the strategy's scope.

        Args:
            model: Built for this task.
            config: How it is trained.
            fuse: Compiles what lies between the products; None compiles nothing.
            rows: Rows of a global micro-batch, where they are fixed.
        """

    @abc.abstractmethod
    def validator(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        batches: data.FiniteBatches,
    ) -> Callable[..., Judgement]:
        """Returns the function that judges the model as it stands.

        It takes a function, or None, that is called before each batch.
        """

    def count_tokens(self, batch: Mapping[str, np.ndarray]) -> int:
        """Returns how many real tokens a batch has the model read."""
        return int(batch["weights"].sum())


def validation_config(config: data.DataConfig) -> data.DataConfig:
    """Returns the config of validation batches, of 8,192 tokens where rows are short.

    They may be larger than training's: nothing is kept of them.
    """
    times = max(1, _VALIDATION_TOKENS // (config.batch_size * config.context))
    return config.replace(batch_size=config.batch_size * times)


def refuse_carried_state(config: TrainConfig) -> None:
    """Raises ValueError where recurrent state is to be carried on."""
    if config.carry_state:
        raise ValueError(
            "Each row of this task stands for itself: no state goes on from it to the "
            "next. Received: train.carry_state=True. Set train.carry_state=False."
        )


def refuse_label_smoothing(config: TrainConfig, what: str) -> None:
    """Raises ValueError where a loss that has no classes is to be smoothed."""
    if config.label_smoothing:
        raise ValueError(
            f"{what} have no classes to smooth. Received: label_smoothing="
            f"{config.label_smoothing}. Set train.label_smoothing=0."
        )


def fill_in_vocabulary(model: Any, tokenizer: Any) -> Any:
    """Returns a model's config with the vocabulary's size filled in.

    Raises:
        ValueError: The model's vocabulary is smaller than the tokenizer's.
    """
    size = model.vocab_size or tokenizer.vocab_size
    if not size >= tokenizer.vocab_size:
        raise ValueError(
            "`model.vocab_size` must hold every id of the tokenizer. Received: "
            f"model.vocab_size={size}, a tokenizer of {tokenizer.vocab_size} ids. "
            "Set 0 to take the tokenizer's."
        )
    return model.replace(vocab_size=size)


def check_architecture(task: Task, model: Any, *names: str) -> None:
    """Raises ValueError unless a task can train a model's architecture."""
    if model.architecture not in names:
        raise ValueError(
            f"The task {task.kind!r} trains the architectures {', '.join(names)}. "
            f"Received: {model.architecture!r}. Change `task` or `model`."
        )
