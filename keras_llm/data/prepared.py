"""A corpus of tokens in TFRecord shards: checked on opening, read in place."""

import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from keras_llm.core import checks, folders
from keras_llm.core.folders import CorruptFolderError
from keras_llm.data.config import TextConfig
from keras_llm.data.splits import TRAIN, VALID
from keras_llm.data.token_store import ShardedTokens, ShardLayout, TokenCounts

DESCRIPTION = "prepared.json"
KIND = "keras_llm tokens"
VERSION = 1
_TOKEN_TYPES = ("uint16", "uint32")
# Below this size every shard's SHA-256 is checked when the folder is opened;
# above it the checksum of each record is, when the record is read.
_HASH_LIMIT_BYTES = 2**30
_SHARD_NAME = re.compile(r"(train|valid)-\d{5}\.tfrecord")


def is_prepared(source: Any) -> bool:
    """Says if `source` is the path of a folder that `prepare` wrote."""
    return isinstance(source, (str, os.PathLike)) and os.path.isfile(
        os.path.join(source, DESCRIPTION)
    )


class PreparedCorpus:
    """An opened folder of tokens: checked on opening, read in place.

    Args:
        path: Folder that `prepare` wrote.
        max_corrupt_records: Damaged records of the training part that are left out
            before one raises. Validation text must be whole: its mean loss would
            otherwise be that of another text.

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
            self._read_manifest()
            self._check_small_files()
            self._read_description()
        except CorruptFolderError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFolderError(
                f"{self.path} is not a whole prepared corpus: {error!r}. Restore it "
                "from a copy or run prepare_data again."
            ) from error

    def _read_manifest(self) -> None:
        manifest = folders.read_manifest(self.path)
        self._files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }

    def _read_description(self) -> None:
        description = folders.read_json(self.path / DESCRIPTION)
        if (description["kind"], description["version"]) != (KIND, VERSION):
            raise CorruptFolderError(
                f"{self.path} holds {description['kind']!r} of version "
                f"{description['version']!r}; this release reads {KIND!r} of version "
                f"{VERSION}. Run prepare_data again."
            )
        self.config = TextConfig.from_dict(description["config"])
        self.tokenizer = str(description["tokenizer"])
        separator = int(description["separator_id"])
        self._separator_id = separator if self.config.add_separators else None
        checks.check_choice("token_type", description["token_type"], _TOKEN_TYPES)
        self._dtype = np.dtype(description["token_type"]).newbyteorder("<")
        self._record_tokens = int(description["record_tokens"])
        checks.check_positive("record_tokens", self._record_tokens)
        self._parts = {
            part: self._read_part(description["parts"][part])
            for part in (TRAIN, VALID)
            if part == TRAIN or part in description["parts"]
        }

    def _read_part(self, part: dict[str, Any]) -> tuple[ShardLayout, TokenCounts]:
        shards = part.pop("shards")
        counts = TokenCounts(**part)
        layout = ShardLayout(
            tuple(self.path / self._plain_name(shard["name"]) for shard in shards),
            tuple(int(shard["records"]) for shard in shards),
            self._record_tokens,
            self._dtype,
        )
        records = math.ceil(counts.num_tokens / self._record_tokens)
        *full, last = layout.num_records
        if (
            len(set(full)) > 1
            or not 0 < last <= (full or [last])[0]
            or (sum(layout.num_records) != records)
        ):
            raise CorruptFolderError(
                f"{self.path}: {layout.num_records} records in shards cannot hold "
                f"{counts.num_tokens} tokens. Run prepare_data again."
            )
        return layout, counts

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns ("train", "valid"), or ("train",) if nothing was held back."""
        return tuple(self._parts)

    def tokens(self, part: str) -> ShardedTokens:
        """Returns the token stream of one part.

        Raises:
            keras_llm.core.CorruptFolderError: A shard is not as it was written.
        """
        layout, counts = self._parts[part]
        allowed = self._max_corrupt_records if part == TRAIN else 0
        tokens = ShardedTokens(layout, counts, self._separator_id, allowed)
        if not allowed:
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
