"""Documents to token streams, a bounded amount at a time."""

import hashlib
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_llm.data.config import DataError, TextConfig
from keras_llm.data.documents import Piece, ReadCounts, read_pieces
from keras_llm.data.splits import TRAIN, VALID, Split, choose_split
from keras_llm.data.token_store import TokenCounts

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

# One call of the tokenizer takes about this much text. Larger calls are no faster
# and hold more memory: a graph tokenizer keeps some 100 bytes for each.
_CALL_BYTES = 2**20

Progress = Callable[[ReadCounts], None]


class TokenSink(Protocol):
    """Takes a token stream in order."""

    def append(self, ids: np.ndarray) -> None:
        """Takes further ids, one-dimensional and unsigned."""


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the smallest little-endian type for every id below `vocab_size`.

    >>> token_dtype(65_536), token_dtype(65_537)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def tokenizer_fingerprint(tokenizer: "Tokenizer") -> str:
    """Returns a SHA-256 over all that the tokenizer saves."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent, "tokenizer")
        tokenizer.save(str(folder))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


class _Part:
    """One part's pieces that wait to be encoded, and its counts so far."""

    def __init__(self, sink: TokenSink):
        self.sink = sink
        self.waiting: list[Piece] = []
        self.waiting_bytes = 0
        self.num_tokens = self.num_documents = self.num_bytes = 0
        self.digest = hashlib.sha256()

    def add(self, piece: Piece) -> None:
        self.waiting.append(piece)
        self.waiting_bytes += len(piece.text)

    def take(self, ids: np.ndarray) -> None:
        self.num_tokens += len(ids)
        self.num_documents += sum(piece.opens for piece in self.waiting)
        self.num_bytes += self.waiting_bytes
        self.digest.update(ids.astype("<u4").data)
        self.sink.append(ids)
        self.waiting, self.waiting_bytes = [], 0

    def counts(self) -> TokenCounts:
        return TokenCounts(
            self.num_tokens,
            self.num_documents,
            self.num_bytes,
            self.digest.hexdigest(),
        )


def encode_files(
    files: list[pathlib.Path],
    tokenizer: "Tokenizer",
    config: TextConfig,
    sinks: dict[str, TokenSink],
    progress: Progress | None = None,
    split: Split | None = None,
) -> tuple[dict[str, TokenCounts], ReadCounts]:
    """Streams a corpus through the tokenizer into one sink for each part.

    Args:
        files: What to read, in order.
        tokenizer: Encodes the text; its "end" id opens each document.
        config: How to read and split.
        sinks: "train", and "valid" if validation text is to be held back.
        progress: Called after every piece with what has been read.
        split: What is held back; None chooses by these files.

    Returns:
        The counts of each part, and those of the text read.
    """
    encode = _Encoder(tokenizer, config.add_separators)
    parts = {name: _Part(sink) for name, sink in sinks.items()}
    read = ReadCounts()
    if split is None:
        split = choose_split(files, config) if VALID in parts else Split()
    for name, piece in split.route(read_pieces(files, config, read)):
        part = parts[name]
        part.add(piece)
        if part.waiting_bytes >= _CALL_BYTES:
            part.take(encode(part.waiting))
        if progress is not None:
            progress(read)
    for part in parts.values():
        if part.waiting:
            part.take(encode(part.waiting))
    return {name: part.counts() for name, part in parts.items()}, read


def check_not_empty(counts: TokenCounts, files: list[pathlib.Path], name: str) -> None:
    """Raises DataError when a part of a corpus holds no text."""
    if counts.num_bytes > 0:
        return
    shown = ", ".join(map(str, files[:3])) + (", …" if len(files) > 3 else "")
    if name == TRAIN:
        raise DataError(
            "A corpus must hold some text besides white space. Received: none in "
            f"{len(files)} file(s) ({shown}). Check what the pattern matches."
        )
    raise DataError(
        "The text is too short to hold some back for validation. Received: "
        f"{len(files)} file(s) ({shown}). Raise `valid_fraction`, set it to 0, or "
        "give a validation text."
    )


class _Encoder:
    """Encodes pieces, opening each document with the separator."""

    def __init__(self, tokenizer: "Tokenizer", add_separators: bool):
        self._tokenizer = tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._separator = tokenizer.special_ids["end"] if add_separators else None

    def __call__(self, pieces: list[Piece]) -> np.ndarray:
        ragged = self._tokenizer.encode([piece.text for piece in pieces])
        ids = ragged.values.numpy().astype(self._dtype)
        if self._separator is None:
            return ids
        opens = np.array([piece.opens for piece in pieces])
        return np.insert(ids, ragged.row_starts().numpy()[opens], self._separator)
