"""Documents to token streams on an engine: files apart, their tokens put in order."""

import dataclasses
import functools
import hashlib
import pathlib
import shutil
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from keras_llm.data.config import TextConfig
from keras_llm.data.documents import ReadCounts
from keras_llm.data.encoding import Progress, TokenSink, encode_files, token_dtype
from keras_llm.data.engines import Engine
from keras_llm.data.splits import VALID, Split, choose_split
from keras_llm.data.token_store import TokenCounts

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

_BLOCK_TOKENS = 2**20


def encode_on(
    engine: Engine,
    files: list[pathlib.Path],
    tokenizer: "Tokenizer",
    config: TextConfig,
    sinks: dict[str, TokenSink],
    work: pathlib.Path,
    progress: Progress | None = None,
) -> tuple[dict[str, TokenCounts], ReadCounts]:
    """Streams a corpus into its sinks as `encode_files` does, file by file at once.

    The tokens are the same. A corpus of so few documents that its tail is held back is
    encoded here, in one process.

    Args:
        engine: Its workers see `files` and `work` under the same paths.
        files: What to read, in order.
        tokenizer: Encodes the text.
        config: How to read and split.
        sinks: As for `encode_files`.
        work: A folder to make for the tokens of each file, gone at the end.
        progress: Called after every file with what has been read.
    """
    split = choose_split(files, config) if VALID in sinks else Split()
    if split.cut is not None:
        return encode_files(files, tokenizer, config, sinks, progress, split)
    work.mkdir()
    tokenizer.save(str(work / "tokenizer"))
    encode = _EncodeFile(work, config, tuple(sinks), split)
    streams = {name: _Stream(sink) for name, sink in sinks.items()}
    read = ReadCounts()
    dtype = token_dtype(tokenizer.vocab_size)
    with engine as running:
        parts = running.map(encode, list(enumerate(files)))
        for index, (counts, found) in enumerate(parts):
            for name, stream in streams.items():
                path = encode.path(index, name)
                stream.take(path, dtype, counts[name])
                path.unlink()
            for field in dataclasses.fields(ReadCounts):
                total = getattr(read, field.name) + getattr(found, field.name)
                setattr(read, field.name, total)
            if progress is not None:
                progress(read)
    shutil.rmtree(work)
    return {name: stream.counts() for name, stream in streams.items()}, read


class _Stream:
    """One part's tokens, taken file by file."""

    def __init__(self, sink: TokenSink):
        self._sink = sink
        self._digest = hashlib.sha256()
        self._tokens = self._documents = self._bytes = 0

    def take(self, path: pathlib.Path, dtype: np.dtype, counts: TokenCounts) -> None:
        self._tokens += counts.num_tokens
        self._documents += counts.num_documents
        self._bytes += counts.num_bytes
        ids = np.memmap(path, dtype, "r") if counts.num_tokens else np.empty(0, dtype)
        for start in range(0, len(ids), _BLOCK_TOKENS):
            block = np.asarray(ids[start : start + _BLOCK_TOKENS])
            self._digest.update(block.astype("<u4").data)
            self._sink.append(block)

    def counts(self) -> TokenCounts:
        return TokenCounts(
            self._tokens, self._documents, self._bytes, self._digest.hexdigest()
        )


@dataclasses.dataclass(frozen=True)
class _EncodeFile:
    """Writes the tokens of one file, a file for each part."""

    work: pathlib.Path
    config: TextConfig
    names: tuple[str, ...]
    split: Split

    def path(self, index: int, name: str) -> pathlib.Path:
        return self.work / f"{index}.{name}"

    def __call__(self, item: tuple[int, pathlib.Path]):
        index, path = item
        tokenizer = _loaded(self.work / "tokenizer")
        files = {name: open(self.path(index, name), "wb") for name in self.names}
        try:
            sinks: dict[str, TokenSink] = {
                name: _FileSink(file) for name, file in files.items()
            }
            return encode_files([path], tokenizer, self.config, sinks, split=self.split)
        finally:
            for file in files.values():
                file.close()


class _FileSink:
    """Writes ids to a file as they lie in memory."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def append(self, ids: np.ndarray) -> None:
        self._file.write(ids.data)


@functools.lru_cache(maxsize=1)
def _loaded(folder: pathlib.Path) -> "Tokenizer":
    """Returns the tokenizer, read once in each process."""
    from keras_llm import tokenizers

    return tokenizers.load(str(folder))
