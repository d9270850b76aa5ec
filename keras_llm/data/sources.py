"""Patterns to files, and files to valid UTF-8 in blocks of bounded size."""

import glob
import gzip
import itertools
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence

from keras_llm.data.config import DataError, TextConfig

BLOCK_BYTES = 2**20
# Text in another encoding or a picture has far more than this share of bytes
# that are not UTF-8; a book with a few damaged letters has far less.
_BINARY_SHARE = 0.1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Patterns = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(patterns: Patterns) -> list[pathlib.Path]:
    """Returns the files that the patterns name: in their order, each once.

    Args:
        patterns: One or several of: a file; a folder, for every file below it
            but hidden ones; a glob, `**` included. The matches of one pattern
            are sorted by name.

    Raises:
        DataError: A pattern matches nothing, or something that is not a file.

    >>> [path.name for path in find_files("testdata/*.txt")]
    ['TestPlans.txt', 'japanese.txt', 'moby_dick.txt', 'tang_poems.txt']
    """
    if isinstance(patterns, (str, os.PathLike)):
        patterns = [patterns]
    found: dict[str, pathlib.Path] = {}
    for pattern in patterns:
        for path in _matches(os.fspath(pattern)):
            found.setdefault(os.path.realpath(path), path)
    if not found:
        raise DataError(
            "A corpus is named by at least one file, folder or glob. Received: none."
        )
    return list(found.values())


def _matches(pattern: str) -> list[pathlib.Path]:
    literal = os.path.lexists(pattern)
    names = [pattern] if literal else sorted(glob.glob(pattern, recursive=True))
    files: list[pathlib.Path] = []
    for path in map(pathlib.Path, names):
        if path.is_dir():
            # A glob such as **/* names the files below a folder by itself.
            files += _files_below(path) if literal else []
        else:
            files.append(path)
    for path in files:
        if not path.is_file():
            kind = "a broken link" if path.is_symlink() else "a device or a pipe"
            raise DataError(
                f"Text is read from regular files. Received: {path}, which is {kind}. "
                "Leave it out of the pattern."
            )
    if not files and os.path.isdir(pattern):
        raise DataError(
            "A folder is read for the files in and below it, hidden ones left out. "
            f"Received: {pattern}, which has none. Check that it is the right one."
        )
    if not files:
        raise DataError(
            f"No file matches {pattern!r}. The nearest folder that exists is "
            f"{_nearest_folder(pattern)}. Check the spelling, and that the quotes "
            "keep the shell from changing the pattern."
        )
    return files


def _files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [pathlib.Path(root, n) for n in sorted(names) if n[0] != "."]
    return files


def _nearest_folder(pattern: str) -> pathlib.Path:
    folder = pathlib.Path(pattern).absolute()
    while glob.has_magic(str(folder)) or not folder.is_dir():
        folder = folder.parent
    return folder


def total_bytes(files: Iterable[pathlib.Path]) -> int:
    """Returns the size on disk of all files, `.gz` ones as packed."""
    return sum(path.stat().st_size for path in files)


def text_blocks(path: pathlib.Path, config: TextConfig) -> Iterator[bytes]:
    """Yields a file's text as valid UTF-8, in blocks of about a MiB.

    `.gz` files are unpacked, a leading byte order mark is dropped, and no block
    ends inside a character.

    Raises:
        DataError: The file cannot be read, is not text, or unpacks to too much.
    """
    blocks = _raw_blocks(path, config.max_unpacked_bytes)
    replace = config.invalid_utf8 == "replace"
    carry, offset, replaced = b"", 0, 0
    for block in itertools.chain(blocks, [b""]):  # The empty one flushes the carry.
        data = carry + block
        if offset == 0 and data.startswith(_BYTE_ORDER_MARK):
            data, offset = data[3:], 3
        if b"\0" in block:
            raise _binary(path, f"a NUL byte at offset {offset + data.index(0)}")
        kept = _open_character(data) if block else 0
        carry, data = data[len(data) - kept :], data[: len(data) - kept]
        if replace:
            text = data.decode("utf-8", "replace").encode()
            replaced += text.count(b"\xef\xbf\xbd") - data.count(b"\xef\xbf\xbd")
            if replaced > _BINARY_SHARE * (offset + len(data)) and len(data) > 64:
                raise _binary(
                    path,
                    f"{replaced} sequences that are not UTF-8 in its first "
                    f"{offset + len(data)} bytes",
                )
        else:
            text = _checked(path, data, offset)
        offset += len(data)
        if text:
            yield text


def _raw_blocks(path: pathlib.Path, max_unpacked_bytes: int) -> Iterator[bytes]:
    packed = path.suffix == ".gz"
    total = 0
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                total += len(block)
                if packed and not total <= max_unpacked_bytes:
                    raise DataError(
                        f"One .gz file may unpack to {max_unpacked_bytes:,} bytes at "
                        f"most, so that a bomb cannot fill the disk. Received: {path}, "
                        f"{path.stat().st_size:,} bytes packed. Raise "
                        "`max_unpacked_bytes` if the file can be trusted."
                    )
                yield block
    except (OSError, EOFError, zlib.error) as error:
        # gzip says EOFError for a file that is cut and BadGzipFile for another kind.
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"Cannot read {path} after {total:,} bytes: {reason}. "
            "Check its permissions and that it was copied whole."
        ) from error


def _open_character(data: bytes) -> int:
    """Returns the length of an unfinished UTF-8 character at the end of `data`."""
    for length in range(1, min(3, len(data)) + 1):
        byte = data[-length]
        if byte & 0xC0 != 0x80:
            wanted = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return length if wanted > length else 0
    return 0


def _checked(path: pathlib.Path, data: bytes, offset: int) -> bytes:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Text must be UTF-8. Received: {path} with byte 0x{data[error.start]:02x} "
            f"at offset {offset + error.start} ({error.reason}). Convert the file, or "
            "pass invalid_utf8=replace to read U+FFFD there."
        ) from None
    return data


def _binary(path: pathlib.Path, sign: str) -> DataError:
    remedy = (
        "Leave it out of the pattern, or convert it first (UTF-16: `iconv -f utf-16 "
        "-t utf-8`)."
    )
    if path.suffix == ".tfrecord":
        remedy = (
            "Training and evaluation take a prepared corpus by its folder, alone; "
            "anything else takes the text that it was made of."
        )
    return DataError(f"{path} is not UTF-8 text: it has {sign}. {remedy}")
