"""Rows of a token stream, for training (endless, resumable) and validation."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from keras_llm.data.config import DataConfig, DataError
from keras_llm.data.corpus import Source, load_tokens
from keras_llm.data.row_batches import Batch, EndlessBatches, FiniteBatches, Transform
from keras_llm.data.sampling import RowOrder
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import CorruptRecordError, TokenStore

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer


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


class TrainingBatches(EndlessBatches):
    """Endless rows of a token stream.

    Each batch is a dict of `token_ids` int32 [R / W, T], `targets` int32 (the next
    tokens) and `weights` float32 (1, or 0 after the end of the text: the last row of
    an epoch).

    Args:
        tokens: The token stream.
        config: Context T, batch size R, seed and order.
        num_workers: W; must divide R.
        worker: w, from 0.
        transform: Makes of each batch what is learnt from; None leaves it.
    """

    def __init__(
        self,
        tokens: TokenStore,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
        transform: Transform | None = None,
    ):
        self._order = RowOrder(tokens.num_tokens, config)
        super().__init__(config, num_workers, worker, transform)
        self.tokens = tokens

    @property
    def rows_per_epoch(self) -> int:
        """Returns how many rows the stream is cut into."""
        return self._order.rows_per_epoch

    @property
    def sha256(self) -> str:
        """Returns the fingerprint of the token stream."""
        return self.tokens.counts.sha256

    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows of the run numbered from `first` on."""
        starts = self._order.starts(first, count)
        return _batch_of(self.tokens, starts, self.config.context)


class ValidationBatches(FiniteBatches):
    """All rows of a text in order: every token is predicted exactly once.

    Args:
        tokens: The token stream, of at least 2 tokens.
        config: Context T and batch size R; the order is always that of the text.
        tokenizer: Gives the length in bytes of a first token without context.
        num_workers: Must divide R.
        worker: From 0.
        transform: Makes of each batch what is judged; None leaves it.

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
        transform: Transform | None = None,
    ):
        if not tokens.num_tokens >= 2:
            raise DataError(
                "A validation text must have a token to predict after the first. "
                f"Received: {tokens.num_tokens} token(s). Give more text."
            )
        super().__init__(config, num_workers, worker, transform)
        self.tokens = tokens
        self.num_tokens = tokens.num_tokens - 1
        self.num_bytes = tokens.counts.num_bytes
        if tokens.separator_id is None:
            # No separator opens the text, so its first token is never predicted.
            first = int(tokens.read(np.zeros(1, np.int64), 1)[0, 0])
            self.num_bytes -= len(tokenizer.token_bytes[first])

    @property
    def num_rows(self) -> int:
        """Returns how many rows the text is cut into."""
        return -(-self.num_tokens // self.config.context)

    @property
    def sha256(self) -> str:
        """Returns the fingerprint of the token stream."""
        return self.tokens.counts.sha256

    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows numbered from `first` on.

        Raises:
            CorruptRecordError: Tokens are damaged, whatever the store allows:
                `num_tokens` and `num_bytes` count them.
        """
        context = self.config.context
        starts = np.arange(first, first + count, dtype=np.int64) * context
        batch = _batch_of(self.tokens, starts, context)
        wanted = int(np.clip(self.num_tokens - starts, 0, context).sum())
        found = int(batch["weights"].sum())
        if found != wanted:
            raise CorruptRecordError(
                "A mean over a validation text counts each of its tokens, so none may "
                f"be left out as damaged. Received: {found} of {wanted} tokens from "
                f"row {first} on. Restore the prepared corpus from a copy, or give "
                "another validation text."
            )
        return batch


def training_batches(
    source: Source,
    tokenizer: "Tokenizer",
    config: DataConfig,
    num_workers: int = 1,
    worker: int = 0,
    transform: Transform | None = None,
) -> TrainingBatches:
    """Returns endless batches of text files, a prepared folder or a token store.

    Of a prepared folder that holds validation text back, the training part.

    Args:
        source: What to read; see `load_tokens`.
        tokenizer: Encodes the text.
        config: How to read and order it.
        num_workers: Workers that share each global batch; divides `batch_size`.
        worker: This one, from 0.
        transform: Makes of each batch what is learnt from; None leaves it.

    Raises:
        DataError: The text cannot be used, or is shorter than one row.
    """
    tokens = load_tokens(source, tokenizer, config, TRAIN)
    return TrainingBatches(tokens, config, num_workers, worker, transform)


def validation_batches(
    source: Source,
    tokenizer: "Tokenizer",
    config: DataConfig,
    num_workers: int = 1,
    worker: int = 0,
    transform: Transform | None = None,
) -> ValidationBatches:
    """Returns the finite batches of a text, each token predicted once.

    Of a prepared folder the validation part, or all of it if none is held back.
    The arguments and errors are those of `training_batches`.
    """
    # What is evaluated in full is not left out by an allowance for damage.
    config = dataclasses.replace(config, max_corrupt_records=0)
    tokens = load_tokens(source, tokenizer, config, VALID)
    return ValidationBatches(tokens, config, tokenizer, num_workers, worker, transform)
