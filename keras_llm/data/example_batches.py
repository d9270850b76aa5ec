"""Batches of examples that were encoded once and lie in memory."""

import hashlib
from collections.abc import Mapping

import numpy as np

from keras_llm.data.config import DataConfig, DataError
from keras_llm.data.row_batches import Batch, EndlessBatches, FiniteBatches, Transform
from keras_llm.data.sampling import epoch_order


class EncodedExamples:
    """Examples as arrays: one row each, all of one size.

    Args:
        arrays: By name, each [N, ...]; "weights" float32 is among them.

    Raises:
        DataError: There is no example.
        ValueError: The arrays differ in N, or "weights" is missing.

    >>> ids, weights = np.zeros((3, 7), "int32"), np.ones((3,), "float32")
    >>> EncodedExamples({"token_ids": ids, "weights": weights}).size
    3
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = dict(arrays)
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if "weights" not in sizes or len(set(sizes.values())) != 1:
            raise ValueError(
                "Encoded examples are arrays of equally many rows, `weights` among "
                f"them. Received: {sizes}."
            )
        self.size = sizes["weights"]
        if self.size == 0:
            raise DataError(
                "At least one example is needed. Received: none. Check the files."
            )

    def take(self, rows: np.ndarray) -> Batch:
        """Returns the examples at `rows`, int64 [R]."""
        return {name: array[rows] for name, array in self.arrays.items()}

    def sha256(self) -> str:
        """Returns the fingerprint of all arrays."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = np.ascontiguousarray(self.arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


class ExampleBatches(EndlessBatches):
    """Endless batches of examples, shuffled anew in every epoch.

    Args:
        examples: What is learnt from.
        config: Batch size R, seed, and whether to shuffle; `sampling` must be "rows".
        num_workers: W; must divide R.
        worker: w, from 0.
        transform: Makes of each batch what is learnt from; None leaves it.
    """

    def __init__(
        self,
        examples: EncodedExamples,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
        transform: Transform | None = None,
    ):
        if config.sampling != "rows":
            raise DataError(
                "Examples are rows of their own. Received: "
                f"data.sampling={config.sampling!r}. Set data.sampling='rows'."
            )
        super().__init__(config, num_workers, worker, transform)
        self.examples = examples
        self._sha256 = examples.sha256()

    @property
    def rows_per_epoch(self) -> int:
        """Returns the number of examples."""
        return self.examples.size

    @property
    def sha256(self) -> str:
        """Returns the fingerprint of the examples."""
        return self._sha256

    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows of the run numbered from `first` on."""
        numbers = np.arange(first, first + count)
        if self.config.shuffle:
            chosen = epoch_order(numbers, self.examples.size, self.config.seed)
        else:
            chosen = numbers % self.examples.size
        return self.examples.take(chosen)


class ValidationExamples(FiniteBatches):
    """All examples once, in order; the last batch is filled up with weight 0.

    Args:
        examples: What is judged by.
        config: Batch size R.
        num_workers: Must divide R.
        worker: From 0.
        transform: Makes of each batch what is judged; None leaves it.
    """

    def __init__(
        self,
        examples: EncodedExamples,
        config: DataConfig,
        num_workers: int = 1,
        worker: int = 0,
        transform: Transform | None = None,
    ):
        super().__init__(config, num_workers, worker, transform)
        self.examples = examples
        self._sha256 = examples.sha256()

    @property
    def num_rows(self) -> int:
        """Returns the number of examples."""
        return self.examples.size

    @property
    def sha256(self) -> str:
        """Returns the fingerprint of the examples."""
        return self._sha256

    def rows(self, first: int, count: int) -> Batch:
        """Returns the rows numbered from `first` on; past the end of weight 0."""
        numbers = np.arange(first, first + count)
        batch = self.examples.take(np.minimum(numbers, self.examples.size - 1))
        batch["weights"] = batch["weights"].copy()
        batch["weights"][numbers >= self.examples.size] = 0.0
        return batch
