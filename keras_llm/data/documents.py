"""Documents out of files, in pieces that a tokenizer may encode one by one."""

import dataclasses
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from keras_llm.data.config import DataError, TextConfig
from keras_llm.data.sources import (
    BLOCK_BYTES,
    Patterns,
    find_files,
    text_blocks,
)

PIECE_BYTES = 2**20
HASHED_BYTES = 2**16  # A sixteenth of a piece; only a document's last is shorter.
MAX_LINE_BYTES = 256 * 2**20  # Of one JSON line, which must be in memory whole.
_BEFORE_SPACE = re.compile(r".*\S(?=\s)", re.DOTALL)
JSON_LINES = (".jsonl", ".ndjson")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of one document; `opens` marks a document's first."""

    text: bytes
    opens: bool


@dataclasses.dataclass
class ReadCounts:
    """What has been read so far."""

    documents: int = 0
    empty_documents: int = 0  # Left out: nothing but ASCII white space.
    num_bytes: int = 0


def read_documents(
    patterns: Patterns, config: TextConfig | None = None
) -> Iterator[bytes]:
    """Yields every document of a corpus as UTF-8 bytes, empty ones left out.

    Args:
        patterns: Files, folders or globs. Lines of `.jsonl` files are documents,
            other files are one each unless `config.document_separator` cuts
            them; a further suffix `.gz` unpacks first.
        config: How to read; the default takes one document a file.

    Raises:
        DataError: No such file, not text, or a line that is not JSON.

    >>> len(next(read_documents("testdata/moby_dick.txt")))
    1204997
    """
    config = config or TextConfig()
    parts: list[bytes] = []
    for piece in read_pieces(find_files(patterns), config, ReadCounts()):
        if piece.opens and parts:
            yield b"".join(parts)
            parts = []
        parts.append(piece.text)
    if parts:
        yield b"".join(parts)


def read_pieces(
    files: Iterable[pathlib.Path], config: TextConfig, counts: ReadCounts
) -> Iterator[Piece]:
    """Yields all documents in pieces of at most about two MiB, and counts them.

    Encoding the pieces one by one gives the tokens of the whole document: see
    `safe_cut`. Memory does not grow with the size of a file.
    """
    for path in files:
        skipped = False  # An opening piece was blank: the next one opens instead.
        for piece in _file_pieces(path, config):
            opens = piece.opens or skipped
            if piece.opens and skipped:
                counts.empty_documents += 1
            skipped = opens and not piece.text.strip()
            if skipped:
                continue
            text = piece.text
            if config.unicode_form == "nfc":
                text = unicodedata.normalize("NFC", text.decode()).encode()
            counts.documents += opens
            counts.num_bytes += len(text)
            yield Piece(text, opens)
        counts.empty_documents += skipped


def safe_cut(text: bytes, limit: int, least: int = 1) -> int:
    r"""Returns where to cut `text` so that both sides encode as the whole would.

    The last place up to `limit` where a line feed follows anything but white
    space; without one, where a space does, or any white space; without that, the
    last place between two characters. A pre-split into words ends a word before
    white space and looks no further back, so the tokens are those of the whole
    text. At the last kind of place the one word that is cut may be encoded
    otherwise: it takes `limit` - `least` bytes without a word's end to get there.

    Args:
        text: UTF-8 bytes, which may end inside a character.
        limit: The largest result wanted, from 1 to len(text).
        least: The smallest place before white space that will do.

    >>> safe_cut(b"two lines\nof text", 16)
    9
    >>> safe_cut(b"two words", 8)
    3
    """
    for mark in (b"\n", b" "):
        cut = text.rfind(mark, least, limit + 1)
        while cut > 0:
            if not _ends_blank(text, cut):
                return cut
            cut = text.rfind(mark, least, cut)
    # What is cut off at the end of `head` is at most an unfinished character.
    head = text[:limit].decode("utf-8", "ignore")
    if found := _BEFORE_SPACE.match(head):
        cut = len(found.group().encode())
        if cut >= least:
            return cut
    cut = limit
    while cut < len(text) and cut > 0 and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut or limit


def _ends_blank(text: bytes, end: int) -> bool:
    start = end - 1
    while start > 0 and text[start] & 0xC0 == 0x80:
        start -= 1
    return text[start:end].decode("utf-8", "replace").isspace()


def _file_pieces(path: pathlib.Path, config: TextConfig) -> Iterator[Piece]:
    blocks = text_blocks(path, config)
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes and suffixes[-1] in JSON_LINES:
        for number, line in read_lines(path, blocks):
            if line.strip():
                text = _json_text(path, number, line, config)
                yield from _split(_slices(text), None)
    else:
        separator = config.document_separator
        yield from _split(blocks, separator.encode() if separator else None)


def _split(blocks: Iterable[bytes], separator: bytes | None) -> Iterator[Piece]:
    """Yields the documents between separators, long ones in pieces.

    Equal documents get equal pieces, however the blocks happen to lie.
    """
    # A separator may have begun in a buffer's last bytes: leave those together.
    limit = PIECE_BYTES - len(separator or b"")
    least = max(1, PIECE_BYTES // 16)
    buffer, opens, found = b"", True, False
    for block in blocks:
        buffer += block
        if separator:
            *finished, buffer = buffer.split(separator)
            for text in finished:
                yield from _whole(text, opens, limit, least)
                opens = found = True
        while len(buffer) > PIECE_BYTES:
            cut = safe_cut(buffer, limit, least)
            yield Piece(buffer[:cut], opens)
            buffer, opens = buffer[cut:], False
    # A separator at the end of a file closes a document and opens none.
    if buffer or not found:
        yield from _whole(buffer, opens, limit, least)


def _whole(text: bytes, opens: bool, limit: int, least: int) -> Iterator[Piece]:
    """Yields the pieces of what is left of one document."""
    while len(text) > limit:
        cut = safe_cut(text, limit, least)
        yield Piece(text[:cut], opens)
        text, opens = text[cut:], False
    if text or opens:
        yield Piece(text, opens)


def _slices(text: bytes) -> Iterator[bytes]:
    return (text[i : i + BLOCK_BYTES] for i in range(0, len(text), BLOCK_BYTES))


def read_lines(
    path: pathlib.Path, blocks: Iterable[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line), however long the blocks are."""
    number, length = 1, 0
    parts: list[bytes] = []
    for block in blocks:
        for i, part in enumerate(block.split(b"\n")):
            if i:
                yield number, b"".join(parts)
                number, parts, length = number + 1, [], 0
            parts.append(part)
            length += len(part)
            if not length <= MAX_LINE_BYTES:
                raise DataError(
                    f"A JSON line may hold {MAX_LINE_BYTES:,} bytes at most. Received: "
                    f"a longer one at {path}:{number}. Split its text over several."
                )
    yield number, b"".join(parts)


def parse_line(path: pathlib.Path, number: int, line: bytes) -> Any:
    """Returns the value of one JSON line.

    Raises:
        DataError: It is not JSON; the message names file and line.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"Every line of a .jsonl file must be JSON. Received at {path}:{number}: "
            f"{error}. Repair or remove the line."
        ) from None


def _json_text(
    path: pathlib.Path, number: int, line: bytes, config: TextConfig
) -> bytes:
    where, value = f"{path}:{number}", parse_line(path, number, line)
    if not isinstance(value, dict) or not isinstance(value.get(config.json_field), str):
        shown = line[:100].decode("utf-8", "replace").strip()
        if isinstance(value, dict) and config.json_field not in value:
            shown = f"members {', '.join(map(repr, value))[:200] or 'none'}"
        raise DataError(
            f"Every line must be an object with text under {config.json_field!r}. "
            f"Received at {where}: {shown}. Repair or remove the line, or choose "
            "another member with `json_field`."
        )
    text: str = value[config.json_field]
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        if config.invalid_utf8 == "replace":
            return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
        raise DataError(
            f"Text must be valid Unicode. Received at {where}: half a surrogate pair "
            f"at character {error.start}. Repair the line, or pass "
            "invalid_utf8=replace to read U+FFFD there."
        ) from None
