"""Unicode characters as tokens."""

import pathlib
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_llm.core import read_json, write_json
from keras_llm.tokenizers.tokenizer import Tokenizer
from keras_llm.tokenizers.utf8 import find_in_pages, share_pages

_CHARACTERS_FILE = "characters.json"
_REPLACEMENT = "\ufffd"


class CharacterTokenizer(Tokenizer):
    """One token per Unicode character (code point) of a known set.

    Ids follow the characters' code points in ascending order; then come the unknown
    character and the end. A character outside the set, and each piece of invalid
    UTF-8, becomes `unknown_id`, which decodes to U+FFFD: this kind is lossless only
    on text made of its own characters.

    Args:
        characters: The known characters; order and repeats do not matter.

    Raises:
        ValueError: `characters` is empty or holds a surrogate.

    >>> tokenizer = CharacterTokenizer("abc床")
    >>> tokenizer.encode("a床!").numpy()
    array([0, 3, 4], dtype=int32)
    >>> tokenizer.decode([0, 3, 4]).numpy().decode()
    'a床�'
    """

    kind = "character"

    def __init__(self, characters: str):
        self.characters = "".join(sorted(set(characters)))
        if not self.characters:
            raise ValueError(
                "A character tokenizer needs at least one character. Received: none. "
                "Train it on text that is not empty."
            )
        code_points = np.array([ord(character) for character in self.characters])
        if ((code_points >= 0xD800) & (code_points <= 0xDFFF)).any():
            raise ValueError(
                "A surrogate (U+D800 to U+DFFF) is no character and has no UTF-8 form. "
                f"Received: {self.characters!r}."
            )
        tokens = [*self.characters, _REPLACEMENT]
        super().__init__(
            [*(token.encode() for token in tokens), b""], {"end": len(tokens)}
        )
        ids = np.full(0x110000, self.unknown_id, np.int32)
        ids[code_points] = np.arange(len(code_points))
        pages, page_start = share_pages(ids)
        with tf.init_scope(), tf.device("CPU:0"):
            self._ids = tf.constant(pages)
            self._page_start = tf.constant(page_start)

    @property
    def unknown_id(self) -> int:
        """The id of every character outside the set; it decodes to U+FFFD."""
        return len(self.characters)

    @classmethod
    def train(cls, texts: Iterable[str | bytes]) -> Self:
        """Returns the tokenizer of all characters that occur in `texts`.

        Invalid UTF-8 adds nothing.
        """
        seen: set[str] = set()
        for text in texts:
            if isinstance(text, bytes):
                text = text.decode("utf-8", errors="ignore")
            seen.update(text)
        return cls("".join(seen))

    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        with tf.device("CPU:0"):
            code_points = tf.strings.unicode_decode(strings_B, "UTF-8")
            code_N = code_points.values
            return code_points.with_values(
                find_in_pages(self._ids, self._page_start, code_N)
            )

    def _save_files(self, folder: pathlib.Path) -> None:
        write_json(folder / _CHARACTERS_FILE, self.characters)

    @classmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        characters = read_json(folder / _CHARACTERS_FILE)
        if not isinstance(characters, str):
            raise ValueError(
                f"{folder / _CHARACTERS_FILE} must hold one string of characters. "
                f"Received: {type(characters).__name__}."
            )
        return cls(characters)
