"""Batches of rows, whatever the rows are made of: endless ones and finite ones."""

import abc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_llm.core import checks
from keras_llm.data.config import DataConfig, DataError

if TYPE_CHECKING:
    import tensorflow as tf

Batch = dict[str, np.ndarray]

# From a batch and the numbers of its rows, int64 [R], to the batch that is learnt
# from. A row has another number each time it is seen; all chance hangs on it.
Transform = Callable[[Batch, np.ndarray], Batch]


# The fields that decide which tokens stand in which batch.
_ORDER_FIELDS = ("context", "batch_size", "seed", "shuffle", "sampling")


class Slicing:
    """The rows of a global batch that one worker reads."""

    def __init__(self, config: DataConfig, num_workers: int, worker: int):
        checks.check_positive("num_workers", num_workers)
        checks.check_in_range("worker", worker, 0, num_workers - 1)
        checks.check_divides(
            "num_workers", num_workers, "batch_size", config.batch_size
        )
        self.batch_size = config.batch_size
        self.rows = config.batch_size // num_workers
        self.first = worker * self.rows

    def first_row(self, batch: int) -> int:
        """Returns the number of this worker's first row of a global batch."""
        return batch * self.batch_size + self.first


def _dataset(make_batch: Callable[[int], Batch], first: int, stop: int):
    """Returns a tf.data.Dataset of make_batch(first) .. make_batch(stop - 1)."""
    import tensorflow as tf

    example = make_batch(first)
    names, arrays = list(example), list(example.values())

    def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
        loaded = tf.numpy_function(
            lambda i: tuple(make_batch(int(i)).values()),
            [index],
            [array.dtype for array in arrays],
            stateful=False,
        )
        for tensor, array in zip(loaded, arrays, strict=True):
            tensor.set_shape(array.shape)
        return dict(zip(names, loaded, strict=True))

    return tf.data.Dataset.range(first, stop).map(load).prefetch(2)


class EndlessBatches(Iterator[Batch], abc.ABC):
    """Endless training batches with an exact position.

    Global batch b holds the same rows whatever the number of workers; worker w of
    W takes rows w * R / W to (w + 1) * R / W of its R. Each batch is a dict of
    arrays that lead with its rows; "weights" is always among them.

    Args:
        config: Batch size R, seed and order.
        num_workers: W; must divide R.
        worker: w, from 0.
        transform: Makes of each batch what is learnt from; None leaves it.
    """

    def __init__(
        self,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
        transform: Transform | None = None,
    ):
        self.config = config
        self._slicing = Slicing(config, num_workers, worker)
        self._transform = transform
        self._next = 0

    @property
    @abc.abstractmethod
    def rows_per_epoch(self) -> int:
        """Returns how many rows there are to see."""

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Returns the fingerprint of what is read."""

    @abc.abstractmethod
    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows of the run numbered from `first` on."""

    @property
    def batches_per_epoch(self) -> float:
        """Returns how many batches show every row once; need not be whole."""
        return self.rows_per_epoch / self.config.batch_size

    def batch(self, index: int) -> Batch:
        """Returns this worker's rows of global batch `index`, from 0."""
        first, count = self._slicing.first_row(index), self._slicing.rows
        batch = self.rows(first, count)
        if self._transform is None:
            return batch
        return self._transform(batch, np.arange(first, first + count))

    def __next__(self) -> Batch:
        """Returns the next batch; there always is one."""
        batch = self.batch(self._next)
        self._next += 1
        return batch

    def advance(self, batches: int) -> None:
        """Moves the position as if `batches` had been taken from here."""
        checks.check_not_negative("batches", batches)
        self._next += batches

    def position(self) -> dict[str, Any]:
        """Returns where the next batch stands, as JSON values.

        The number of workers is no part of it: a run may go on with another.
        """
        return {
            "batch": self._next,
            "epoch": self._next * self.config.batch_size // self.rows_per_epoch,
            "tokens_sha256": self.sha256,
            "order": {name: getattr(self.config, name) for name in _ORDER_FIELDS},
        }

    def restore(self, position: dict[str, Any]) -> None:
        """Goes to a position that `position` gave, in this process or another.

        Raises:
            DataError: It is of other text, of another order, or no position.
        """
        try:
            batch, order = position["batch"], dict(position["order"])
            source = position["tokens_sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"No position in the data: {position!r}. Give what `position()` gave."
            ) from error
        here = self.position()
        if source != here["tokens_sha256"]:
            raise DataError(
                "A position holds only for the text and tokenizer it was taken in. "
                f"Received: SHA-256 {str(source)[:12]} of the tokens, these have "
                f"{here['tokens_sha256'][:12]}. Give the same text, or start a new run."
            )
        for name in _ORDER_FIELDS:
            if order.get(name) != here["order"][name]:
                raise DataError(
                    "A position holds only for the order of rows it was taken in. "
                    f"Received: {name}={order.get(name)!r}, now "
                    f"{name}={here['order'][name]!r}. Set the same, or start a new run."
                )
        if not (type(batch) is int and batch >= 0):
            raise DataError(f"No position in the data: batch={batch!r}.")
        self._next = batch

    def as_dataset(self) -> "tf.data.Dataset":
        """Returns an endless tf.data.Dataset from the present position on.

        It is read ahead and does not move this iterator: `advance` by the number
        of batches used, so that `position` tells what was trained on.
        """
        return _dataset(self.batch, self._next, np.iinfo(np.int64).max)


class FiniteBatches(abc.ABC):
    """All rows of a text once, in order, for validation.

    A worker's batches are equal in number and shape to every other's; what there
    is too much of has weight 0.

    Args:
        config: Batch size R.
        num_workers: Must divide R.
        worker: From 0.
        transform: Makes of each batch what is judged; None leaves it.
    """

    def __init__(
        self,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
        transform: Transform | None = None,
    ):
        self.config = config
        self._slicing = Slicing(config, num_workers, worker)
        self._transform = transform

    @property
    @abc.abstractmethod
    def num_rows(self) -> int:
        """Returns the number of rows of all workers together."""

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Returns the fingerprint of what is read."""

    @abc.abstractmethod
    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows numbered from `first` on; past the end of weight 0."""

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-self.num_rows // self.config.batch_size)

    def batch(self, index: int) -> Batch:
        """Returns this worker's rows of global batch `index`, from 0."""
        first, count = self._slicing.first_row(index), self._slicing.rows
        batch = self.rows(first, count)
        if self._transform is None:
            return batch
        return self._transform(batch, np.arange(first, first + count))

    def __iter__(self) -> Iterator[Batch]:
        """Yields every batch once."""
        return map(self.batch, range(len(self)))

    def as_dataset(self) -> "tf.data.Dataset":
        """Returns the same batches as a tf.data.Dataset."""
        return _dataset(self.batch, 0, len(self))
