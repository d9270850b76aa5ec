"""A corpus as TFRecord shards of tokens, with a manifest: written and opened."""

import dataclasses
import math
import os
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_llm.core import checks, folders
from keras_llm.core.folders import CorruptFolderError
from keras_llm.data.config import DataError, TextConfig
from keras_llm.data.encoding import (
    Progress,
    encode_files,
    token_dtype,
    tokenizer_fingerprint,
)
from keras_llm.data.records import RecordFormat
from keras_llm.data.sources import Patterns, find_files
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import ShardedTokens, ShardLayout, TokenCounts

if TYPE_CHECKING:
    from keras_llm.tokenizers import Tokenizer

DESCRIPTION = "prepared.json"
_KIND = "keras_llm tokens"
_VERSION = 1
_RECORD_TOKENS = 2048
_SHARD_TOKENS = 2**27
# Below this size every shard's SHA-256 is checked when the folder is opened;
# above it the checksum of each record is, when the record is read.
_HASH_LIMIT_BYTES = 2**30
_SHARD_NAME = re.compile(r"(train|valid)-\d{5}\.tfrecord")


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
) -> PreparedSummary:
    """Tokenises a corpus once, into a folder that is accepted wherever text is.

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
        counts, read = encode_files(files, tokenizer, config, dict(writers), progress)
        for name in names:
            check_not_empty(counts[name], files, name)
        tokenizer.save(str(folder / "tokenizer"))
        description = {
            "kind": _KIND,
            "version": _VERSION,
            "config": config.to_dict(),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "separator_id": tokenizer.special_ids["end"],
            "token_type": dtype.name,
            "record_tokens": record_tokens,
            "empty_documents": read.empty_documents,
            "parts": {
                name: {**dataclasses.asdict(counts[name]), "shards": writer.close()}
                for name, writer in writers.items()
            },
        }
        folders.write_json(folder / DESCRIPTION, description)
        folders.write_manifest(folder)
    return PreparedSummary(
        counts[TRAIN],
        counts.get(VALID),
        read.empty_documents,
        sum(len(writer.shards) for writer in writers.values()),
    )


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


def is_prepared(source: Any) -> bool:
    """Says if `source` is the path of a folder that `prepare` wrote."""
    return isinstance(source, (str, os.PathLike)) and os.path.isfile(
        os.path.join(source, DESCRIPTION)
    )


class PreparedCorpus:
    """An opened folder of tokens: checked on opening, read in place.

    Args:
        path: Folder that `prepare` wrote.
        max_corrupt_records: Damaged records that are left out before one raises.

    Attributes:
        config: The `TextConfig` it was written with.
        tokenizer: Fingerprint of the tokenizer it was written with.

    Raises:
        keras_llm.core.CorruptFolderError: A file is missing, cut or changed, or
            names anything but plain files of this folder.
    """

    def __init__(self, path: str | os.PathLike[str], max_corrupt_records: int = 0):
        self.path = pathlib.Path(path)
        self._max_corrupt_records = max_corrupt_records
        try:
            manifest = folders.read_json(self.path / "manifest.json")
            self._files = {
                str(name): (int(entry["bytes"]), str(entry["sha256"]))
                for name, entry in manifest["files"].items()
            }
            self._check_small_files()
            self._read_description()
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFolderError(
                f"{self.path} is not a whole prepared corpus: {error!r}. Restore it "
                "from a copy or run prepare_data again."
            ) from error

    def _read_description(self) -> None:
        description = folders.read_json(self.path / DESCRIPTION)
        if (description["kind"], description["version"]) != (_KIND, _VERSION):
            raise CorruptFolderError(
                f"{self.path} holds {description['kind']!r} of version "
                f"{description['version']!r}; this release reads {_KIND!r} of version "
                f"{_VERSION}. Run prepare_data again."
            )
        self.config = TextConfig.from_dict(description["config"])
        self.tokenizer = str(description["tokenizer"])
        separator = int(description["separator_id"])
        self._separator_id = separator if self.config.add_separators else None
        self._dtype = np.dtype(description["token_type"]).newbyteorder("<")
        self._record_tokens = int(description["record_tokens"])
        self._parts = {
            str(name): (part.pop("shards"), TokenCounts(**part))
            for name, part in description["parts"].items()
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns ("train", "valid"), or ("train",) if nothing was held back."""
        return tuple(self._parts)

    def tokens(self, part: str) -> ShardedTokens:
        """Returns the token stream of one part.

        Raises:
            keras_llm.core.CorruptFolderError: A shard is not as it was written.
        """
        shards, counts = self._parts[part]
        layout = ShardLayout(
            tuple(self.path / self._plain_name(shard["name"]) for shard in shards),
            tuple(int(shard["records"]) for shard in shards),
            self._record_tokens,
            self._dtype,
        )
        needed = math.ceil(counts.num_tokens / self._record_tokens)
        if needed != sum(layout.num_records) or len(set(layout.num_records[:-1])) > 1:
            raise CorruptFolderError(f"{self.path}: the shards' counts do not add up.")
        tokens = ShardedTokens(
            layout, counts, self._separator_id, self._max_corrupt_records
        )
        self._check_shards(layout, tokens)
        return tokens

    def _plain_name(self, name: str) -> str:
        """Returns `name` if it names a file of this folder and nothing else."""
        path = self.path / name
        if (
            not _SHARD_NAME.fullmatch(name)
            or name not in self._files
            or path.is_symlink()
            or not path.is_file()
        ):
            raise CorruptFolderError(
                f"A shard must be a plain file of {self.path}, listed in its manifest "
                f"and named like train-00000.tfrecord. Received: {name!r}."
            )
        return name

    def _check_small_files(self) -> None:
        """Checks size and SHA-256 of everything but the shards."""
        present = {
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        for name in sorted((present | set(self._files)) - {"manifest.json"}):
            if name not in self._files or name not in present:
                state = "missing" if name in self._files else "not in the manifest"
                raise CorruptFolderError(f"{self.path / name} is {state}.")
            path = self.path / name
            if path.is_symlink():
                raise CorruptFolderError(f"{path} is a link; a plain file is needed.")
            if not _SHARD_NAME.fullmatch(name):
                self._check_digest(name)

    def _check_digest(self, name: str) -> None:
        if folders.sha256(self.path / name) != self._files[name][1]:
            raise CorruptFolderError(
                f"{self.path / name} differs from its manifest: it was changed or cut "
                "after it was written. Restore it or run prepare_data again."
            )

    def _check_shards(self, layout: ShardLayout, tokens: ShardedTokens) -> None:
        """Checks sizes always, contents here only where that is quick."""
        if self._max_corrupt_records:
            return
        stride = layout.record_format.stride
        for path, records in zip(layout.paths, layout.num_records, strict=True):
            size = path.stat().st_size
            if size != records * stride:
                raise CorruptFolderError(
                    f"{path} was cut or grew after it was written: {size} bytes, "
                    f"{records * stride} expected; the last whole record ends at byte "
                    f"offset {min(size // stride, records) * stride}. Restore it or "
                    "run prepare_data again."
                )
        if sum(self._files[path.name][0] for path in layout.paths) > _HASH_LIMIT_BYTES:
            return
        for path in layout.paths:
            if folders.sha256(path) != self._files[path.name][1]:
                tokens.check_all()  # Names the first damaged record and its offset.
                self._check_digest(path.name)
