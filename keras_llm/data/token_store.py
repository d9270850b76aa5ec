"""Token streams that are read at any place: in memory, or from TFRecord shards."""

import abc
import dataclasses
import logging
import os
import pathlib
import threading

import numpy as np

from keras_llm.core.folders import CorruptFolderError
from keras_llm.data.records import RecordFormat

_log = logging.getLogger(__name__)

NO_TOKEN = -1  # What `read` gives past the end and for what is damaged.
_MAX_OPEN_SHARDS = 128


class CorruptRecordError(CorruptFolderError):
    """A record of a prepared corpus is cut or differs from its checksum."""


@dataclasses.dataclass(frozen=True)
class TokenCounts:
    """What a token stream holds."""

    num_tokens: int  # Separators included.
    num_documents: int
    num_bytes: int  # Of the text as UTF-8, as it was encoded.
    sha256: str  # Of all ids as little-endian uint32: names the stream.


class TokenStore(abc.ABC):
    """A stream of token ids with random access.

    Attributes:
        counts: Its size and its fingerprint.
        separator_id: Id that opens each document, or None.
    """

    def __init__(self, counts: TokenCounts, separator_id: int | None):
        self.counts = counts
        self.separator_id = separator_id

    @property
    def num_tokens(self) -> int:
        """Returns the length of the stream, separators included."""
        return self.counts.num_tokens

    @abc.abstractmethod
    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Returns `length` consecutive ids from each start.

        Args:
            starts: int64 array [R], each at least 0; may lie past the end.
            length: Ids to read from each.

        Returns:
            int32 array [R, length], -1 past the end of the stream.
        """


class MemoryTokens(TokenStore):
    """A token stream held in one array.

    >>> counts = TokenCounts(5, 1, 5, "")
    >>> MemoryTokens(np.arange(5), counts, None).read(np.array([0, 3]), 3)
    array([[ 0,  1,  2],
           [ 3,  4, -1]], dtype=int32)
    """

    def __init__(self, ids: np.ndarray, counts: TokenCounts, separator_id: int | None):
        super().__init__(counts, separator_id)
        self._ids = ids

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Returns int32 [R, length]; see `TokenStore.read`."""
        places = np.asarray(starts, np.int64)[:, None] + np.arange(length)
        inside = places < len(self._ids)
        ids = np.take(self._ids, places, mode="clip").astype(np.int32)
        return ids if inside.all() else np.where(inside, ids, np.int32(NO_TOKEN))


@dataclasses.dataclass(frozen=True)
class ShardLayout:
    """How a token stream lies in its shards: all records of one size."""

    paths: tuple[pathlib.Path, ...]
    num_records: tuple[int, ...]  # Of each shard; equal for all but the last.
    record_tokens: int
    dtype: np.dtype

    @property
    def record_format(self) -> RecordFormat:
        """Returns the framing of one record."""
        return RecordFormat(self.record_tokens * self.dtype.itemsize)


class ShardedTokens(TokenStore):
    """A token stream in TFRecord shards, read in place.

    Memory does not grow with the stream. The length and both checksums of every
    record are checked each time that it is read.

    Args:
        layout: The shards.
        counts: Size and fingerprint of the stream.
        separator_id: Id that opens each document, or None.
        max_corrupt_records: How many different damaged records are read as -1,
            each with a warning, before the next one raises.
    """

    def __init__(
        self,
        layout: ShardLayout,
        counts: TokenCounts,
        separator_id: int | None,
        max_corrupt_records: int = 0,
    ):
        super().__init__(counts, separator_id)
        self._layout = layout
        self._records = layout.record_format
        self._max_corrupt_records = max_corrupt_records
        self._corrupt: set[int] = set()
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __del__(self):
        """Closes the shards."""
        self._close()

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Returns int32 [R, length]; see `TokenStore.read`.

        Raises:
            CorruptRecordError: A record is damaged, and more are than allowed.
        """
        starts = np.asarray(starts, np.int64)
        size = self._layout.record_tokens
        end = self.num_tokens - 1
        first = np.minimum(starts, end) // size
        last = np.minimum(starts + length - 1, end) // size
        span = (length + 2 * size - 2) // size  # Records that a row can touch.
        touched = np.minimum(first[:, None] + np.arange(span), last[:, None])
        wanted, slots = np.unique(touched, return_inverse=True)
        ids = self._read_records(wanted)
        places = starts[:, None] + np.arange(length)
        row_slots = np.take_along_axis(
            slots.reshape(touched.shape),
            np.clip(places // size - first[:, None], 0, span - 1),
            axis=1,
        )
        inside = places < self.num_tokens
        return np.where(inside, ids[row_slots, places % size], np.int32(NO_TOKEN))

    def check_all(self) -> None:
        """Reads every record once; raises as `read` does."""
        total = sum(self._layout.num_records)
        for start in range(0, total, 1024):
            self._read_records(np.arange(start, min(start + 1024, total)))

    def _read_records(self, wanted: np.ndarray) -> np.ndarray:
        """Returns the ids of whole records, int32 [k, record_tokens]."""
        framed = np.zeros((len(wanted), self._records.stride), np.uint8)
        with self._lock:  # A descriptor must not be closed under another reader.
            for i, record in enumerate(wanted.tolist()):
                self._read_into(framed[i], record)
        intact = self._records.intact(framed)
        payloads = np.ascontiguousarray(self._records.payloads(framed))
        ids = payloads.view(self._layout.dtype).astype(np.int32)
        for i in np.flatnonzero(~intact).tolist():
            self._report(int(wanted[i]))
            ids[i] = NO_TOKEN
        return ids

    def _place(self, record: int) -> tuple[int, int]:
        """Returns (shard, byte offset) of a record."""
        shard, index = divmod(record, self._layout.num_records[0])
        return shard, index * self._records.stride

    def _read_into(self, buffer: np.ndarray, record: int) -> None:
        shard, offset = self._place(record)
        if shard not in self._descriptors:
            if len(self._descriptors) >= _MAX_OPEN_SHARDS:
                self._close()
            path = self._layout.paths[shard]
            self._descriptors[shard] = os.open(path, os.O_RDONLY)
        data = os.pread(self._descriptors[shard], self._records.stride, offset)
        # A cut shard gives fewer bytes: the zeros that stay fail the checksum.
        buffer[: len(data)] = np.frombuffer(data, np.uint8)

    def _report(self, record: int) -> None:
        shard, offset = self._place(record)
        path = self._layout.paths[shard]
        message = (
            f"A record of the prepared corpus is damaged: {path} at byte offset "
            f"{offset}, {self._records.stride} bytes (cut short, or not what its "
            "checksum says)."
        )
        if record in self._corrupt:
            return
        if len(self._corrupt) < self._max_corrupt_records:
            self._corrupt.add(record)
            _log.warning("%s It is left out.", message)
            return
        raise CorruptRecordError(
            f"{message} Restore the file from a copy or run prepare_data again; "
            f"`max_corrupt_records` (now {self._max_corrupt_records}) leaves some out."
        )

    def _close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
