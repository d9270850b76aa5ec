"""Which stretch of the token stream each row of each batch is."""

import numpy as np

from keras_llm.data.config import DataConfig, DataError
from keras_llm.data.permutation import permute, uniform_below

_BLOCK_ROWS = 4096


def epoch_order(numbers: np.ndarray, rows_per_epoch: int, seed: int) -> np.ndarray:
    """Returns which row of the epoch each row of the run is, shuffled anew each epoch.

    Args:
        numbers: int64 [R], the rows of the run, from 0.
        rows_per_epoch: How many rows there are.
        seed: From 0.

    >>> epoch_order(np.arange(6), 3, seed=1)
    array([1, 0, 2, 2, 1, 0])
    """
    epochs, rows = np.divmod(numbers, rows_per_epoch)
    for epoch in np.unique(epochs).tolist():
        inside = epochs == epoch
        rows[inside] = permute(rows[inside], rows_per_epoch, seed, epoch)
    return rows


class RowOrder:
    """The endless order of training rows, as a function of the row's number.

    Row p of the run begins at token `starts(p)` and has `context` + 1 tokens. In
    global batch b lie the rows b * batch_size and up, whatever the number of
    workers; an epoch need not end with a batch.

    Args:
        num_tokens: Length of the token stream.
        config: Context, batch size, seed and kind of sampling.

    Raises:
        DataError: The stream is too short for one row (of each stream).

    >>> config = DataConfig(context=4, batch_size=2, shuffle=False)
    >>> RowOrder(13, config).starts(0, 5)
    array([0, 4, 8, 0, 4])
    """

    def __init__(self, num_tokens: int, config: DataConfig):
        self._num_tokens, self._config = num_tokens, config
        streams = config.batch_size if config.sampling == "streams" else 1
        needed = streams * config.context + 1
        if not num_tokens >= needed:
            rows = f" in each of {streams} streams" if streams > 1 else ""
            raise DataError(
                f"A corpus must fill one row of `context` + 1 tokens{rows}. "
                f"Received: {num_tokens} tokens, {needed} needed (context="
                f"{config.context}). Give more text or a smaller `context`"
                f"{' or `batch_size`' if rows else ''}."
            )
        self._block: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        if config.sampling == "rows":
            self.rows_per_epoch = -(-(num_tokens - 1) // config.context)
        else:
            per_stream = (num_tokens - 1) // (streams * config.context)
            self.rows_per_epoch = per_stream * streams

    def epoch(self, row: int) -> int:
        """Returns the epoch, from 0, that a row of the run belongs to."""
        return row // self.rows_per_epoch

    def starts(self, first: int, count: int) -> np.ndarray:
        """Returns where rows `first` .. `first` + `count` - 1 begin, int64 [count]."""
        # A block at a time: one row's place costs as much as a thousand.
        first_block, skipped = divmod(first, _BLOCK_ROWS)
        last_block = (first + count - 1) // _BLOCK_ROWS
        blocks = map(self._block_starts, range(first_block, last_block + 1))
        return np.concatenate(list(blocks))[skipped : skipped + count]

    def _block_starts(self, block: int) -> np.ndarray:
        number, starts = self._block
        if number != block:
            first = block * _BLOCK_ROWS
            starts = self._compute(np.arange(first, first + _BLOCK_ROWS))
            self._block = block, starts  # One assignment: readers may be threads.
        return starts

    def _compute(self, rows: np.ndarray) -> np.ndarray:
        config = self._config
        if config.sampling == "windows":
            return uniform_below(rows, self._num_tokens - config.context, config.seed)
        if config.sampling == "streams":
            rows = rows % self.rows_per_epoch
            step, stream = np.divmod(rows, config.batch_size)
            per_stream = self.rows_per_epoch // config.batch_size
            return (stream * per_stream + step) * config.context
        if config.shuffle:
            rows = epoch_order(rows, self.rows_per_epoch, config.seed)
        return rows % self.rows_per_epoch * config.context
