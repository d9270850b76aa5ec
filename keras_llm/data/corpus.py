"""One way in for text files and prepared folders alike: a token store."""

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from keras_llm.data.config import DataConfig, DataError, TextConfig
from keras_llm.data.documents import ReadCounts
from keras_llm.data.encoding import (
    check_not_empty,
    encode_files,
    token_dtype,
    tokenizer_fingerprint,
)
from keras_llm.data.prepared import PreparedCorpus, is_prepared
from keras_llm.data.sources import Patterns, find_files, total_bytes
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import MemoryTokens, TokenStore

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

Source = Patterns | TokenStore


class _MemorySink:
    """Collects a token stream in one buffer that grows in place."""

    def __init__(self, dtype: np.dtype):
        self._dtype = dtype
        self._buffer = bytearray()

    def append(self, ids: np.ndarray) -> None:
        self._buffer += ids.data

    def ids(self) -> np.ndarray:
        return np.frombuffer(self._buffer, self._dtype)


def load_tokens(
    source: Source, tokenizer: "Tokenizer", config: DataConfig, part: str = TRAIN
) -> TokenStore:
    """Returns the token stream of text files or of a prepared folder.

    Text is tokenised into memory, two bytes a token (four from a vocabulary of
    65,537 on). A prepared folder is read in place.

    Args:
        source: Files, folders or globs; or a prepared folder; or a token store,
            which is returned as it is.
        tokenizer: Must be the one that a prepared folder was written with.
        config: How to read.
        part: Of a prepared folder: "train", or "valid" for what was held back
            (all of it if nothing was). Text is taken whole.

    Raises:
        DataError: Text that cannot be used, more than `max_memory_bytes` of it,
            or a prepared folder of another tokenizer or config.
        keras_llm.core.CorruptFolderError: A damaged prepared folder.
    """
    if isinstance(source, TokenStore):
        return source
    prepared = prepared_folder(source)
    if prepared is not None:
        corpus = _open(prepared, tokenizer, config)
        return corpus.tokens(part if part in corpus.parts else TRAIN)
    return _tokenise(source, tokenizer, config, (TRAIN,))[TRAIN]


def load_splits(
    source: Source, tokenizer: "Tokenizer", config: DataConfig
) -> tuple[TokenStore, TokenStore]:
    """Returns (training tokens, validation tokens) of one corpus.

    A share `config.valid_fraction` is held back: of 10 / share documents or more,
    those whose SHA-256 falls below it, so that equal documents never stand on
    both sides; of fewer, the tail of the text from the nearest line end before.
    A prepared folder was split in the same way when it was written.

    Raises:
        DataError: As `load_tokens`; or nothing can be held back.
    """
    if isinstance(source, TokenStore):
        raise DataError(
            "A token store cannot be split. Received: a token store. Give the text, "
            "or training and validation stores of their own."
        )
    prepared = prepared_folder(source)
    if prepared is not None:
        corpus = _open(prepared, tokenizer, config)
        if VALID not in corpus.parts:
            raise DataError(
                "Validation text is needed. Received: a prepared corpus with none "
                f"held back ({prepared}). Give a validation text, or run prepare_data "
                "with `valid_fraction` above 0."
            )
        return corpus.tokens(TRAIN), corpus.tokens(VALID)
    if config.valid_fraction == 0:
        raise DataError(
            "Validation text is needed. Received: none, and valid_fraction=0. Give "
            "one, or a `valid_fraction` above 0."
        )
    stores = _tokenise(source, tokenizer, config, (TRAIN, VALID))
    return stores[TRAIN], stores[VALID]


def prepared_folder(source: Source) -> pathlib.Path | None:
    """Returns the prepared folder that `source` names, or None for anything else.

    Raises:
        DataError: It is one of several sources.
    """
    if isinstance(source, TokenStore):
        return None
    names = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found = [name for name in names if is_prepared(name)]
    if found and len(names) > 1:
        raise DataError(
            f"A prepared corpus stands alone. Received: {found[0]} among {len(names)} "
            "sources. Run prepare_data over all of the text together."
        )
    return pathlib.Path(found[0]) if found else None


def _tokenise(
    source: Patterns, tokenizer: "Tokenizer", config: DataConfig, names: tuple[str, ...]
) -> dict[str, TokenStore]:
    files = find_files(source)
    dtype = token_dtype(tokenizer.vocab_size)
    sinks = {name: _MemorySink(dtype) for name in names}

    def stop_at_limit(read: ReadCounts) -> None:
        _check_memory(read.num_bytes, config)

    _check_memory(total_bytes(files), config)
    counts, _ = encode_files(files, tokenizer, config, dict(sinks), stop_at_limit)
    separator = tokenizer.special_ids["end"] if config.add_separators else None
    for name in names:
        check_not_empty(counts[name], files, name)
    return {
        name: MemoryTokens(sink.ids(), counts[name], separator)
        for name, sink in sinks.items()
    }


def _check_memory(num_bytes: int, config: DataConfig) -> None:
    if not num_bytes <= config.max_memory_bytes:
        raise DataError(
            f"At most {config.max_memory_bytes:,} bytes of text are tokenised in "
            f"memory. Received: {num_bytes:,} bytes or more. Run prepare_data "
            "once and give its folder in place of the text, or raise "
            "`max_memory_bytes`."
        )


def _open(
    path: str | os.PathLike[str], tokenizer: "Tokenizer", config: DataConfig
) -> PreparedCorpus:
    corpus = PreparedCorpus(path, config.max_corrupt_records)
    wanted = tokenizer_fingerprint(tokenizer)
    if corpus.tokenizer != wanted:
        raise DataError(
            "A prepared corpus must be read with the tokenizer that wrote it. "
            f"Received: fingerprint {wanted[:12]}, the corpus has "
            f"{corpus.tokenizer[:12]}. Load the tokenizer from {path}/tokenizer, or "
            "run prepare_data again."
        )
    defaults = TextConfig()
    for field in dataclasses.fields(TextConfig):
        name = field.name
        asked, written = getattr(config, name), getattr(corpus.config, name)
        # What was left at its default takes what the corpus was written with; but
        # separators also decide how the model reads a row.
        chosen = asked != getattr(defaults, name) or name == "add_separators"
        if chosen and asked != written:
            raise DataError(
                "How text is read is fixed when it is prepared. Received: "
                f"{name}={asked!r}, the corpus at {path} has {written!r}. Set "
                f"{name}={written!r}, or run prepare_data again."
            )
    return corpus
