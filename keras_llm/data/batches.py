"""Batches of rows for training (endless, resumable) and validation (finite)."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_llm.core import checks
from keras_llm.data.config import DataConfig, DataError
from keras_llm.data.corpus import Source, load_tokens
from keras_llm.data.sampling import RowOrder
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import CorruptRecordError, TokenStore

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_llm.tokenizers import Tokenizer

Batch = dict[str, np.ndarray]

# The fields that decide which tokens stand in which batch.
_ORDER_FIELDS = ("context", "batch_size", "seed", "shuffle", "sampling")


def _batch_of(tokens: TokenStore, starts: np.ndarray, context: int) -> Batch:
    """Returns the rows that begin at `starts`, int64 [R], as one batch."""
    ids = tokens.read(starts, context + 1)
    # After the end of the text, or after a damaged record, nothing counts.
    real = np.logical_and.accumulate(ids >= 0, axis=1)
    ids = np.where(real, ids, np.int32(0))
    return {
        "token_ids": np.ascontiguousarray(ids[:, :-1]),
        "targets": np.ascontiguousarray(ids[:, 1:]),
        "weights": real[:, 1:].astype(np.float32),
    }


class _Slicing:
    """The rows of a global batch that one worker reads."""

    def __init__(self, config: DataConfig, num_workers: int, worker: int):
        checks.check_positive("num_workers", num_workers)
        checks.check_in_range("worker", worker, 0, num_workers - 1)
        checks.check_divides(
            "num_workers", num_workers, "batch_size", config.batch_size
        )
        self.rows = config.batch_size // num_workers
        self.first = worker * self.rows


def _dataset(make_batch, first: int, stop: int, rows: int, context: int):
    """Returns a tf.data.Dataset of make_batch(first) .. make_batch(stop - 1)."""
    import tensorflow as tf

    types = {"token_ids": tf.int32, "targets": tf.int32, "weights": tf.float32}

    def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(
            lambda i: tuple(make_batch(int(i)).values()),
            [index],
            list(types.values()),
            stateful=False,
        )
        for array in arrays:
            array.set_shape((rows, context))
        return dict(zip(types, arrays, strict=True))

    return tf.data.Dataset.range(first, stop).map(load).prefetch(2)


class TrainingBatches(Iterator[Batch]):
    """Endless training batches with an exact position.

    Global batch b holds the same rows whatever the number of workers; worker w of
    W takes rows w * R / W to (w + 1) * R / W of its R. Each batch is a dict of
    `token_ids` int32 [R / W, T], `targets` int32 (the next tokens) and `weights`
    float32 (1, or 0 after the end of the text: the last row of an epoch).

    Args:
        tokens: The token stream.
        config: Context T, batch size R, seed and order.
        num_workers: W; must divide R.
        worker: w, from 0.
    """

    def __init__(
        self,
        tokens: TokenStore,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
    ):
        self.tokens = tokens
        self.config = config
        self._order = RowOrder(tokens.num_tokens, config)
        self._slicing = _Slicing(config, num_workers, worker)
        self._next = 0

    @property
    def batches_per_epoch(self) -> float:
        """Returns how many batches show every row once; need not be whole."""
        return self._order.rows_per_epoch / self.config.batch_size

    def batch(self, index: int) -> Batch:
        """Returns this worker's rows of global batch `index`, from 0."""
        first = index * self.config.batch_size + self._slicing.first
        starts = self._order.starts(first, self._slicing.rows)
        return _batch_of(self.tokens, starts, self.config.context)

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
            "epoch": self._order.epoch(self._next * self.config.batch_size),
            "tokens_sha256": self.tokens.counts.sha256,
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
        return _dataset(
            self.batch,
            self._next,
            np.iinfo(np.int64).max,
            self._slicing.rows,
            self.config.context,
        )


class ValidationBatches:
    """All rows of a text in order: every token is predicted exactly once.

    A worker's batches are equal in number and shape to every other's; what lies
    past the end of the text has weight 0.

    Args:
        tokens: The token stream, of at least 2 tokens.
        config: Context T and batch size R; the order is always that of the text.
        tokenizer: Gives the length in bytes of a first token without context.
        num_workers: Must divide R.
        worker: From 0.

    Attributes:
        num_tokens: Predicted tokens of all workers: the sum of their weights.
        num_bytes: UTF-8 bytes that the predicted tokens stand for. The sum of
            losses in nats / log(2) / num_bytes is the bits per byte.
    """

    def __init__(
        self,
        tokens: TokenStore,
        config: DataConfig,
        tokenizer: "Tokenizer",
        num_workers: int = 1,
        worker: int = 0,
    ):
        if not tokens.num_tokens >= 2:
            raise DataError(
                "A validation text must have a token to predict after the first. "
                f"Received: {tokens.num_tokens} token(s). Give more text."
            )
        self.tokens = tokens
        self.config = config
        self._slicing = _Slicing(config, num_workers, worker)
        self.num_tokens = tokens.num_tokens - 1
        self.num_bytes = tokens.counts.num_bytes
        if tokens.separator_id is None:
            # No separator opens the text, so its first token is never predicted.
            first = int(tokens.read(np.zeros(1, np.int64), 1)[0, 0])
            self.num_bytes -= len(tokenizer.token_bytes[first])

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-self.num_tokens // (self.config.context * self.config.batch_size))

    def batch(self, index: int) -> Batch:
        """Returns this worker's rows of global batch `index`, from 0.

        Raises:
            CorruptRecordError: Tokens are damaged, whatever the store allows:
                `num_tokens` and `num_bytes` count them.
        """
        context = self.config.context
        first = index * self.config.batch_size + self._slicing.first
        starts = np.arange(first, first + self._slicing.rows, dtype=np.int64) * context
        batch = _batch_of(self.tokens, starts, context)
        wanted = int(np.clip(self.num_tokens - starts, 0, context).sum())
        found = int(batch["weights"].sum())
        if found != wanted:
            raise CorruptRecordError(
                "A mean over a validation text counts each of its tokens, so none may "
                f"be left out as damaged. Received: {found} of {wanted} tokens in "
                f"batch {index}. Restore the prepared corpus from a copy, or give "
                "another validation text."
            )
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """Yields every batch once."""
        return map(self.batch, range(len(self)))

    def as_dataset(self) -> "tf.data.Dataset":
        """Returns the same batches as a tf.data.Dataset."""
        return _dataset(
            self.batch, 0, len(self), self._slicing.rows, self.config.context
        )


def training_batches(
    source: Source,
    tokenizer: "Tokenizer",
    config: DataConfig,
    num_workers: int = 1,
    worker: int = 0,
) -> TrainingBatches:
    """Returns endless batches of text files, a prepared folder or a token store.

    Of a prepared folder that holds validation text back, the training part.

    Args:
        source: What to read; see `load_tokens`.
        tokenizer: Encodes the text.
        config: How to read and order it.
        num_workers: Workers that share each global batch; divides `batch_size`.
        worker: This one, from 0.

    Raises:
        DataError: The text cannot be used, or is shorter than one row.
    """
    tokens = load_tokens(source, tokenizer, config, TRAIN)
    return TrainingBatches(tokens, config, num_workers, worker)


def validation_batches(
    source: Source,
    tokenizer: "Tokenizer",
    config: DataConfig,
    num_workers: int = 1,
    worker: int = 0,
) -> ValidationBatches:
    """Returns the finite batches of a text, each token predicted once.

    Of a prepared folder the validation part, or all of it if none is held back.
    The arguments and errors are those of `training_batches`.
    """
    # What is evaluated in full is not left out by an allowance for damage.
    config = dataclasses.replace(config, max_corrupt_records=0)
    tokens = load_tokens(source, tokenizer, config, VALID)
    return ValidationBatches(tokens, config, tokenizer, num_workers, worker)
