"""GPT-2's two vocabulary files: tokens with their ids, and merges by rank.

Tokens are byte strings, but JSON and text files hold characters. So each byte is
written as one printable character: the 188 printable bytes of Latin-1 stand for
themselves, the other 68 for U+0100 and up, in order. A space is written `Ġ`.
"""

import os
import pathlib

from keras_llm.core import read_json, write_json, write_text

_HEADER = "#version: 0.2"
_LARGEST_FILE = 256 * 2**20
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHARACTER_OF = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + index) for index, byte in enumerate(_HIDDEN)
}
_BYTE_OF = {character: byte for byte, character in _CHARACTER_OF.items()}


def to_text(token: bytes) -> str:
    r"""Writes a token's bytes as printable characters.

    >>> to_text(b" caf\xc3\xa9")
    'ĠcafÃ©'
    """
    return "".join(_CHARACTER_OF[byte] for byte in token)


def to_bytes(text: str) -> bytes:
    """Reads what `to_text` wrote.

    Raises:
        ValueError: A character stands for no byte.
    """
    try:
        return bytes([_BYTE_OF[character] for character in text])
    except KeyError as error:
        raise ValueError(
            "A token is written with one printable character for each byte. "
            f"Received: {text!r}, where {error} stands for no byte. If it is a special "
            "token, name it as such."
        ) from None


def read_vocabulary(path: str | os.PathLike[str]) -> dict[str, int]:
    """Reads a JSON object from token to id, whose ids are 0 to V - 1.

    Raises:
        ValueError: Not such an object, or ids are missing, repeated or out of range.
    """
    vocabulary = read_json(path)
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ValueError(f"{path} must hold a JSON object from token to id.")
    seen: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < len(vocabulary):
            raise ValueError(
                f"The ids of {len(vocabulary)} tokens must be whole numbers from 0 to "
                f"{len(vocabulary) - 1}. Received: {token!r} has id {number!r} in "
                f"{path}."
            )
        if number in seen:
            raise ValueError(
                f"An id must belong to one token. Received: {seen[number]!r} and "
                f"{token!r} both have id {number} in {path}."
            )
        seen[number] = token
    return vocabulary


def read_merges(path: str | os.PathLike[str]) -> list[tuple[bytes, bytes]]:
    """Reads merges, one pair of tokens a line, in the order of rank.

    Raises:
        ValueError: The file is not UTF-8, or a line does not hold two tokens.
    """
    size = os.path.getsize(path)
    if not size <= _LARGEST_FILE:
        raise ValueError(
            f"A file of merges may hold {_LARGEST_FILE:,} bytes at most. Received: "
            f"{path} with {size:,} bytes."
        )
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"A file of merges must be UTF-8: {path} ({error}).") from None
    merges = []
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(
                "A merge is two tokens with one space between them. Received: "
                f"{line!r} in line {number} of {path}."
            )
        merges.append((to_bytes(parts[0]), to_bytes(parts[1])))
    return merges


def write_vocabulary(path: str | os.PathLike[str], tokens: list[str]) -> None:
    """Writes tokens, in the order of their ids, as a JSON object from token to id."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError(
            "Every token must be written differently. Received: "
            f"{len(tokens) - len(vocabulary)} repeats. Is a token spelt as a special "
            "token is?"
        )
    write_json(path, vocabulary)


def write_merges(
    path: str | os.PathLike[str], merges: tuple[tuple[bytes, bytes], ...]
) -> None:
    """Writes merges, one pair a line."""
    lines = [f"{to_text(first)} {to_text(second)}" for first, second in merges]
    write_text(path, "\n".join([_HEADER, *lines]) + "\n")
