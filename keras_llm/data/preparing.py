"""A corpus tokenised once into TFRecord shards with a manifest."""

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_llm.core import checks, folders
from keras_llm.data.config import TextConfig
from keras_llm.data.documents import ReadCounts
from keras_llm.data.encoding import (
    Progress,
    TokenSink,
    check_not_empty,
    encode_files,
    token_dtype,
    tokenizer_fingerprint,
)
from keras_llm.data.engines import Engine
from keras_llm.data.parallel_encoding import encode_on
from keras_llm.data.prepared import DESCRIPTION, KIND, VERSION
from keras_llm.data.records import RecordFormat
from keras_llm.data.sources import Patterns, find_files
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import TokenCounts

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

_RECORD_TOKENS = 2048
_SHARD_TOKENS = 2**27
_WORK = ".work"  # Under the folder while it is made.


@dataclasses.dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` wrote."""

    train: TokenCounts
    valid: TokenCounts | None
    empty_documents: int
    num_shards: int


class _ShardWriter:
    """Writes a token stream as records of one size into numbered shards."""

    def __init__(
        self,
        folder: pathlib.Path,
        part: str,
        dtype: np.dtype,
        record_tokens: int,
        shard_records: int,
    ):
        self._folder, self._part = folder, part
        self._record_tokens, self._shard_records = record_tokens, shard_records
        self._records = RecordFormat(record_tokens * dtype.itemsize)
        self._rest = np.empty(0, dtype)
        self.shards: list[dict[str, Any]] = []

    def append(self, ids: np.ndarray) -> None:
        ids = np.concatenate([self._rest, ids])
        whole = len(ids) // self._record_tokens * self._record_tokens
        self._rest = ids[whole:]
        self._write(ids[:whole].reshape(-1, self._record_tokens))

    def close(self) -> list[dict[str, Any]]:
        """Writes what is left, filled up with zeros, and returns the shards."""
        if len(self._rest):
            last = np.zeros((1, self._record_tokens), self._rest.dtype)
            last[0, : len(self._rest)] = self._rest
            self._write(last)
        return self.shards

    def _write(self, ids: np.ndarray) -> None:
        while len(ids):
            if not self.shards or self.shards[-1]["records"] == self._shard_records:
                name = f"{self._part}-{len(self.shards):05d}.tfrecord"
                self.shards.append({"name": name, "records": 0})
            shard = self.shards[-1]
            now = ids[: self._shard_records - shard["records"]]
            with open(self._folder / shard["name"], "ab") as file:
                file.write(self._records.frame(now.view(np.uint8)).data)
            shard["records"] += len(now)
            ids = ids[len(now) :]


def prepare(
    patterns: Patterns,
    tokenizer: "Tokenizer",
    out: str | os.PathLike[str],
    config: TextConfig | None = None,
    *,
    shard_tokens: int = _SHARD_TOKENS,
    record_tokens: int = _RECORD_TOKENS,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> PreparedSummary:
    """Tokenises a corpus once, into a folder to train and evaluate on.

    Memory does not grow with the corpus. The folder appears when it is whole:
    `train-NNNNN.tfrecord` and `valid-NNNNN.tfrecord`, `prepared.json` (counts,
    config, fingerprints), `tokenizer/` and `manifest.json` (SHA-256 of each).

    Args:
        patterns: Files, folders or globs.
        tokenizer: Encodes the text.
        out: Folder to make; must not exist.
        config: How to read, and which share to hold back for validation.
        shard_tokens: Tokens a shard, rounded down to whole records.
        record_tokens: Tokens a record, the unit that is read and checked.
        progress: Called now and then with what has been read.
        engine: Encodes the files apart; None does so here. The folder is the same.

    Raises:
        DataError: No text, or text that cannot be used.
        FileExistsError: `out` exists.
        keras_llm.core.DiskFullError: No space left; nothing stays behind.
    """
    checks.check_positive("record_tokens", record_tokens)
    checks.check_in_range("shard_tokens", shard_tokens, record_tokens, 2**40)
    config = config or TextConfig()
    folders.check_absent(out)
    files = find_files(patterns)
    dtype = token_dtype(tokenizer.vocab_size)
    names = (TRAIN, VALID) if config.valid_fraction else (TRAIN,)
    with folders.new_folder(out) as folder:
        writers = {
            name: _ShardWriter(
                folder, name, dtype, record_tokens, shard_tokens // record_tokens
            )
            for name in names
        }
        sinks: dict[str, TokenSink] = dict(writers)
        what = (files, tokenizer, config, sinks)
        if engine is None:
            counts, read = encode_files(*what, progress)
        else:
            counts, read = encode_on(engine, *what, folder / _WORK, progress)
        for name in names:
            check_not_empty(counts[name], files, name)
        tokenizer.save(str(folder / "tokenizer"))
        description = _described(tokenizer, config, record_tokens, read)
        description["parts"] = {
            name: {**dataclasses.asdict(counts[name]), "shards": writer.close()}
            for name, writer in writers.items()
        }
        folders.write_json(folder / DESCRIPTION, description)
        folders.write_manifest(folder)
    return PreparedSummary(
        counts[TRAIN],
        counts.get(VALID),
        read.empty_documents,
        sum(len(writer.shards) for writer in writers.values()),
    )


def _described(
    tokenizer: "Tokenizer", config: TextConfig, record_tokens: int, read: ReadCounts
) -> dict[str, Any]:
    """Returns what a description says besides its parts."""
    return {
        "kind": KIND,
        "version": VERSION,
        "config": config.to_dict(),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "separator_id": tokenizer.special_ids["end"],
        "token_type": token_dtype(tokenizer.vocab_size).name,
        "record_tokens": record_tokens,
        "empty_documents": read.empty_documents,
    }
