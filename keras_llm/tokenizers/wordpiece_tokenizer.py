"""WordPiece, as BERT has it, in the graph."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_llm.core import write_text
from keras_llm.tokenizers.bert_splitting import BertSplitter
from keras_llm.tokenizers.longest_match import LongestMatch
from keras_llm.tokenizers.tokenizer import Tokenizer, as_rows, rows_of_values
from keras_llm.tokenizers.word_table import WordTable

SPECIAL_TOKENS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
_CONTINUES = "##"
_MAX_CHARACTERS = 100  # Of a word; a longer one is unknown.
_VOCABULARY_FILE = "vocab.txt"
_LARGEST_FILE = 64 * 2**20


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer: simplified words, cut into the longest pieces known.

    Text is cleaned of control characters; with `lower_case` capitals become small, with
    `strip_accents` accents go. Words end at white space; each punctuation mark and each
    Chinese character is a word of its own. From the front of a word the longest piece
    of the vocabulary is taken, then the longest `##` piece that continues it, and so
    on. A word that cannot be taken apart, or has more than 100 characters, is `[UNK]`
    as a whole. Ids are those of the `tokenizers` library's BERT without its special
    tokens.

    `special_ids` has the roles "pad", "unk", "cls", "sep" and "mask"; "end" is the id
    of `[SEP]`. Text that spells one of them is cut as any other text. `[UNK]` is the
    one special id that `encode` gives.

    Lossy: `decode` puts a space between words and joins what continues one; the special
    tokens are silent. Use `encode_with_offsets` to find tokens in the original text.

    Args:
        tokens: The vocabulary in the order of ids, with the five special tokens.
        lower_case: Whether capitals become small.
        strip_accents: Whether accents are removed; None for as `lower_case`.

    Raises:
        ValueError: A special token is missing, or a token is empty or repeated.

    Source: Schuster and Nakajima 2012, "Japanese and Korean voice search"; Devlin et
    al. 2019, https://arxiv.org/abs/1810.04805, section 3.

    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> tokenizer = WordPieceTokenizer([*special, "the", "whale", "##s", "!"])
    >>> ids = tokenizer.encode("The whales!")
    >>> ids.numpy()
    array([5, 6, 7, 8], dtype=int32)
    >>> tokenizer.decode(ids).numpy()
    b'the whales !'
    >>> _, starts, ends = tokenizer.encode_with_offsets("The whales!")
    >>> starts.numpy().tolist(), ends.numpy().tolist()
    ([0, 4, 9, 10], [3, 9, 10, 11])
    """

    kind = "wordpiece"

    def __init__(
        self,
        tokens: Sequence[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
    ):
        ids = _ids_of_tokens(tokens)
        special_ids = {role: ids[name] for role, name in SPECIAL_TOKENS.items()}
        special_ids["end"] = special_ids["sep"]
        silent = set(special_ids.values())
        super().__init__(
            [
                b"" if number in silent else _spoken(token)
                for number, token in enumerate(tokens)
            ],
            special_ids,
        )
        self.tokens = tuple(tokens)
        # Which ids continue a word, [V]; all others open one.
        self.continues = np.array([_continues(token) for token in self.tokens])
        self.lower_case = lower_case
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        front, inside = _pieces({t: n for t, n in ids.items() if n not in silent})
        self._splitter = BertSplitter(self.lower_case, self.strip_accents)
        self._words = WordTable(front)
        self._longest = LongestMatch(
            front, inside, special_ids["unk"], max_characters=_MAX_CHARACTERS
        )
        self._encode_located = tf.function(
            self._encode_rows_located,
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )

    @classmethod
    def from_file(
        cls,
        vocabulary: str | os.PathLike[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
    ) -> Self:
        """Reads a vocabulary in BERT's format: UTF-8, one token a line, ids from 0.

        Args:
            vocabulary: The file (`vocab.txt`).
            lower_case: Whether capitals become small.
            strip_accents: Whether accents are removed; None for as `lower_case`.

        Raises:
            ValueError: The file is malformed, or a special token is missing.
        """
        return cls(_read_tokens(vocabulary), lower_case, strip_accents)

    def encode_with_offsets(self, strings: Any):
        """Turns text into ids, and tells where in the text each token comes from.

        Args:
            strings: As for `encode`.

        Returns:
            Three int32 RaggedTensors [B, (N)], for a scalar tensors [N]: the ids, the
            position of each token's first byte in its text, and the position behind
            its last byte. A token's stretch goes from its first character to its last;
            pieces of one character (of a Korean syllable, say) share its bytes.

        Raises:
            ValueError: `strings` has another rank.
        """
        strings_B, is_scalar = as_rows(strings)
        located = self._encode_located(strings_B)
        return tuple(each.values for each in located) if is_scalar else located

    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        with tf.device("CPU:0"):
            _, _, id_N, _, rows = self._find_pieces(strings_B)
            return rows(id_N)

    def _encode_rows_located(self, strings_B: tf.Tensor):
        with tf.device("CPU:0"):
            words, at_N, id_N, length_N, rows = self._find_pieces(strings_B)
            start_N, end_N = words.source_spans(at_N, length_N)
            ids = rows(id_N)
            text_start_N = tf.gather(words.texts.separator_B, rows_of_values(ids)) + 1
            return ids, rows(start_N - text_start_N), rows(end_N - text_start_N)

    def _find_pieces(self, strings_B: tf.Tensor):
        """Returns the words; where each piece is, its id, its length; how to row."""
        words = self._splitter.split(strings_B)
        id_W = self._words.find(words.blocks, words.start_W, words.length_W)
        rest = tf.where(id_W < 0)[:, 0]
        pieces = self._longest.divide(
            words.bytes_Q,
            tf.gather(words.start_W, rest),
            tf.gather(words.length_W, rest),
        )
        at = tf.concat([words.start_W, pieces.at_N], axis=0)[:, tf.newaxis]
        nothing_Q = tf.fill(tf.shape(words.bytes_Q), -1)
        id_Q = tf.tensor_scatter_nd_update(
            nothing_Q, at, tf.concat([id_W, pieces.id_N], axis=0)
        )
        length_Q = tf.tensor_scatter_nd_update(
            nothing_Q, at, tf.concat([words.length_W, pieces.length_N], axis=0)
        )
        at_N = tf.where(id_Q >= 0)[:, 0]
        row_splits = tf.searchsorted(
            at_N, tf.cast(words.separator_B, tf.int64), out_type=tf.int64
        )

        def rows(values_N) -> tf.RaggedTensor:
            return tf.RaggedTensor.from_row_splits(values_N, row_splits, validate=False)

        return (
            words,
            tf.cast(at_N, tf.int32),
            tf.gather(id_Q, at_N),
            tf.gather(length_Q, at_N),
            rows,
        )

    def _join_text(
        self, ids_N: tf.Tensor, row_N: tf.Tensor, num_rows: Any
    ) -> tf.Tensor:
        with tf.device("CPU:0"):
            texts = self._join(ids_N, row_N, num_rows)
            return tf.strings.regex_replace(texts, "^ ", "")

    def _description(self) -> dict[str, Any]:
        return {"lower_case": self.lower_case, "strip_accents": self.strip_accents}

    def _save_files(self, folder: pathlib.Path) -> None:
        write_text(folder / _VOCABULARY_FILE, "\n".join(self.tokens) + "\n")

    @classmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        choices: dict[str, Any] = {
            name: description.get(name) for name in ("lower_case", "strip_accents")
        }
        if not all(isinstance(value, bool) for value in choices.values()):
            raise ValueError(
                "`lower_case` and `strip_accents` must be true or false. Received: "
                f"{choices} in {folder}."
            )
        return cls.from_file(folder / _VOCABULARY_FILE, **choices)


def _continues(token: str) -> bool:
    return token.startswith(_CONTINUES) and token != _CONTINUES


def _spoken(token: str) -> bytes:
    if _continues(token):
        return token.removeprefix(_CONTINUES).encode()
    return f" {token}".encode()


def _pieces(ids: Mapping[str, int]) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Returns the pieces that begin a word and those that continue one."""
    front: dict[bytes, int] = {}
    inside: dict[bytes, int] = {}
    for token, number in ids.items():
        if _continues(token):
            inside[token.removeprefix(_CONTINUES).encode()] = number
        else:
            front[token.encode()] = number
    return front, inside


def _ids_of_tokens(tokens: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for number, token in enumerate(tokens):
        # What stands on a line of its own must not be lost, or found twice.
        if not token or "\n" in token or "\r" in token or token in ids:
            raise ValueError(
                "Every token must have characters, none of them a line end, and be "
                f"listed once. Received: token {number} is {token!r}"
                + (f", as token {ids[token]} is." if token in ids else ".")
            )
        ids[token] = number
    missing = [name for name in SPECIAL_TOKENS.values() if name not in ids]
    if missing:
        raise ValueError(
            f"A WordPiece vocabulary holds {', '.join(SPECIAL_TOKENS.values())}. "
            f"Received: {len(tokens):,} tokens without {', '.join(missing)}. Add them."
        )
    return ids


def _read_tokens(path: str | os.PathLike[str]) -> list[str]:
    size = os.path.getsize(path)
    if not size <= _LARGEST_FILE:
        raise ValueError(
            f"A vocabulary may hold {_LARGEST_FILE:,} bytes at most. Received: {path} "
            f"with {size:,} bytes."
        )
    content = pathlib.Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"A vocabulary must be UTF-8: {path} ({error}).") from None
    if "\r" in text:
        raise ValueError(
            "A vocabulary's lines must end in a line feed alone: with a carriage "
            "return before it, no token would be found. Received: a carriage return "
            f"in line {text[: text.index(chr(13))].count(chr(10)) + 1} of {path}. "
            "Convert the file to Unix line ends."
        )
    return text.removesuffix("\n").split("\n")
