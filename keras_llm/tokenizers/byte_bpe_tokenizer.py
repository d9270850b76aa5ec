"""Byte-level byte-pair encoding, as GPT-2 has it, in the graph."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from keras_llm.core import checks
from keras_llm.tokenizers import gpt2_files
from keras_llm.tokenizers.merge_rules import MergeRules
from keras_llm.tokenizers.splitting import Words, split_words
from keras_llm.tokenizers.splitting_by_runs import split_by_runs
from keras_llm.tokenizers.tokenizer import Tokenizer
from keras_llm.tokenizers.word_table import LongWordTable, WordTable

_VOCABULARY_FILE = "vocab.json"
_MERGES_FILE = "merges.txt"
END_TOKEN = "<|endoftext|>"
_NO_TOKEN = -1  # Of a byte that the vocabulary lacks.
SPLITS = ("gpt2", "llama3", "qwen2", "smollm")
UNICODE_FORMS = ("none", "nfc")
_DEFAULTS = {
    "split": "gpt2",
    "unicode_form": "none",
    "whole_words": False,
    "lacks_bytes": False,
}


class ByteBPETokenizer(Tokenizer):
    """GPT-2's tokenizer and its heirs: words split by a pattern, bytes merged by rank.

    Lossless on any bytes unless `unicode_form` is "nfc", which composes letters and
    accents, or the vocabulary `lacks_bytes`; ill-formed UTF-8 is kept byte by byte.
    Ids are those of the `tokenizers` and `tiktoken` libraries with special tokens
    disabled: text that spells `<|endoftext|>` is encoded as any other text.

    Args:
        token_bytes: The bytes of each id, [V]; b"" for special ids. All 256 single
            bytes are among them.
        merges: Pairs of tokens in the order of rank.
        special_ids: Role to id; "end" is required.
        special_names: Role to how the special token is written in files; None for
            `<|endoftext|>` and `<|ROLE|>`.
        split: How text becomes words: "gpt2"; "llama3", which takes numbers three by
            three, and a sign before letters with them; "qwen2", the same with numbers
            one by one; or "smollm", GPT-2's between digits that stand alone.
        unicode_form: "nfc" brings text into that form first. Accents that Unicode has
            had since version 12 keep their order, where there are several on a letter.
        whole_words: Whether a word that is a token is that token, even where merging
            its bytes gives others.
        lacks_bytes: Whether bytes may have no token, as control characters in
            SmolLM2's vocabulary: a text is then encoded as if it had none of them.

    Raises:
        ValueError: A byte or a merge's token is not in the vocabulary, two ids have
            the same bytes, a merge is listed twice, or a choice is none of those.

    Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; Radford et al.
    2019, "Language Models are Unsupervised Multitask Learners", section 2.2.

    >>> alphabet = [bytes([b]) for b in range(256)]
    >>> tokenizer = ByteBPETokenizer(
    ...     [*alphabet, b"ho", b"hoy", b""], [(b"h", b"o"), (b"ho", b"y")], {"end": 258}
    ... )
    >>> tokenizer.encode("Ahoy hoho").numpy()
    array([ 65, 257,  32, 256, 256], dtype=int32)
    >>> tokenizer.decode([65, 257]).numpy()
    b'Ahoy'
    """

    kind = "byte_bpe"

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        merges: Sequence[tuple[bytes, bytes]],
        special_ids: Mapping[str, int],
        special_names: Mapping[str, str] | None = None,
        split: str = "gpt2",
        unicode_form: str = "none",
        whole_words: bool = False,
        lacks_bytes: bool = False,
    ):
        super().__init__(token_bytes, special_ids)
        checks.check_choice("split", split, SPLITS)
        checks.check_choice("unicode_form", unicode_form, UNICODE_FORMS)
        self.split, self.unicode_form = split, unicode_form
        self.whole_words = whole_words
        self.lacks_bytes = lacks_bytes
        self._special_names = dict(special_names or {})
        self._pairs = tuple((bytes(left), bytes(right)) for left, right in merges)
        ids = _ids_of_bytes(token_bytes, set(special_ids.values()), lacks_bytes)
        self._rules = MergeRules(_merge_ids(self._pairs, ids), self.vocab_size)
        lengths = [len(token) for token in token_bytes]
        with tf.init_scope(), tf.device("CPU:0"):
            self._byte_ids = tf.constant(
                [ids.get(bytes([b]), _NO_TOKEN) for b in range(256)]
            )
            # A separator takes one place, which makes lengths add up to positions.
            self._lengths = tf.constant([*lengths, 1], tf.int32)
        self._words = WordTable(
            ids if whole_words else self._tokens_that_stay_whole(ids)
        )
        self._long_words = LongWordTable(ids if whole_words else {})

    @property
    def special_names(self) -> dict[str, str]:
        """Role to how the special token is written in files."""
        return {
            role: self._special_names.get(
                role, END_TOKEN if role == "end" else f"<|{role}|>"
            )
            for role in self.special_ids
        }

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """Pairs of tokens in the order of rank."""
        return list(self._pairs)

    @classmethod
    def from_gpt2_files(
        cls,
        encoder_json: str | os.PathLike[str],
        vocab_bpe: str | os.PathLike[str],
        end_token: str = END_TOKEN,
    ) -> Self:
        """Reads a vocabulary and merges in the two-file format of GPT-2.

        Args:
            encoder_json: JSON object from token to id (`encoder.json`, `vocab.json`).
            vocab_bpe: Merges, one a line (`vocab.bpe`, `merges.txt`).
            end_token: The special token in `encoder_json` that ends a document.

        Raises:
            ValueError: The files are malformed or contradict one another.
        """
        vocabulary = gpt2_files.read_vocabulary(encoder_json)
        if end_token not in vocabulary:
            raise ValueError(
                f"The end token must be in the vocabulary {encoder_json}. Received: "
                f"end_token={end_token!r}."
            )
        return cls._from_vocabulary(
            vocabulary, gpt2_files.read_merges(vocab_bpe), {"end": end_token}
        )

    @classmethod
    def _from_vocabulary(cls, vocabulary, merges, special_tokens, **options):
        token_bytes = np.empty(len(vocabulary), object)
        names = set(special_tokens.values())
        for token, number in vocabulary.items():
            silent = token in names
            token_bytes[number] = b"" if silent else gpt2_files.to_bytes(token)
        special_ids = {role: vocabulary[name] for role, name in special_tokens.items()}
        return cls(token_bytes.tolist(), merges, special_ids, special_tokens, **options)

    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        with tf.device("CPU:0"):
            words = self._split_words(strings_B)
            id_W = self._words.find(words.blocks, words.start_W, words.length_W)
            if self._long_words.longest:
                long = self._long_words.find(
                    words.bytes_P, words.start_W, words.length_W
                )
                id_W = tf.maximum(id_W, long)
            rest = tf.where(id_W < 0)[:, 0]
            at_R, id_R = self._encode_words(
                words.bytes_P,
                tf.gather(words.start_W, rest),
                tf.gather(words.length_W, rest),
            )
            id_P = tf.tensor_scatter_nd_update(
                tf.fill(tf.shape(words.bytes_P), -1),
                tf.concat([words.start_W, at_R], axis=0)[:, tf.newaxis],
                tf.concat([id_W, id_R], axis=0),
            )
            at_N = tf.where(id_P >= 0)[:, 0]
            row_splits = tf.searchsorted(
                at_N, tf.cast(words.separator_B, tf.int64), out_type=tf.int64
            )
            return tf.RaggedTensor.from_row_splits(
                tf.gather(id_P, at_N), row_splits, validate=False
            )

    def _split_words(self, strings_B: tf.Tensor) -> Words:
        if self.unicode_form == "nfc":
            strings_B = tf_text.normalize_utf8(strings_B, "NFC")
        if self.split in ("gpt2", "smollm"):
            return split_words(strings_B, single_digits=self.split == "smollm")
        return split_by_runs(strings_B, digits=3 if self.split == "llama3" else 1)

    def _encode_words(self, bytes_P, start_W, length_W):
        """Encodes words by merging; returns where each token starts, and its id."""
        # One place more than the word has bytes, for the separator behind it.
        flat = tf.ragged.range(start_W, start_W + length_W + 1)
        units = tf.gather(
            self._byte_ids, tf.cast(tf.gather(bytes_P, flat.values), tf.int32)
        )
        separators = flat.row_splits[1:] - 1
        units = tf.tensor_scatter_nd_update(
            units,
            separators[:, tf.newaxis],
            tf.fill(tf.shape(separators), self._rules.separator),
        )
        places = flat.values
        if self.lacks_bytes:
            known = tf.where(units != _NO_TOKEN)[:, 0]
            units, places = tf.gather(units, known), tf.gather(places, known)
        units = self._rules.apply(units)
        place = tf.cumsum(tf.gather(self._lengths, units), exclusive=True)
        tokens = tf.where(units != self._rules.separator)[:, 0]
        at = tf.gather(places, tf.gather(place, tokens))
        return at, tf.gather(units, tokens)

    def _tokens_that_stay_whole(self, ids: Mapping[bytes, int]) -> dict[bytes, int]:
        """Returns the tokens whose own bytes are encoded as that token alone."""
        tokens = list(ids)
        lengths = np.array([len(token) for token in tokens], np.int32)
        start = np.cumsum(lengths, dtype=np.int32) - lengths
        # One byte more: a word is read with the place of its separator.
        text = np.frombuffer(b"".join(tokens) + b"\0", np.uint8)
        with tf.init_scope(), tf.device("CPU:0"):
            at, found = self._encode_words(*map(tf.constant, (text, start, lengths)))
        first_id = np.full(lengths.sum() + 1, -1)
        first_id[at.numpy()] = found.numpy()
        return {
            token: ids[token]
            for token, position in zip(tokens, start, strict=True)
            if first_id[position] == ids[token]
        }

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = {"special_tokens": self.special_names}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:  # Earlier versions know GPT-2's way alone.
                description[name] = value
        return description

    def _save_files(self, folder: pathlib.Path) -> None:
        tokens = [gpt2_files.to_text(token) for token in self.token_bytes]
        for role, name in self.special_names.items():
            tokens[self.special_ids[role]] = name
        gpt2_files.write_vocabulary(folder / _VOCABULARY_FILE, tokens)
        gpt2_files.write_merges(folder / _MERGES_FILE, self._pairs)

    @classmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        special_tokens = description.get("special_tokens")
        vocabulary = gpt2_files.read_vocabulary(folder / _VOCABULARY_FILE)
        if not isinstance(special_tokens, dict) or not all(
            isinstance(name, str) and name in vocabulary
            for name in special_tokens.values()
        ):
            raise ValueError(
                "`special_tokens` must map each role to a token of the vocabulary. "
                f"Received: {special_tokens!r} in {folder}."
            )
        merges = gpt2_files.read_merges(folder / _MERGES_FILE)
        options = {n: description.get(n, value) for n, value in _DEFAULTS.items()}
        return cls._from_vocabulary(vocabulary, merges, special_tokens, **options)


def _ids_of_bytes(
    token_bytes: Sequence[bytes], special_ids: set[int], lacks_bytes: bool
) -> dict[bytes, int]:
    """Returns the ids of all ordinary tokens after checking them."""
    ids: dict[bytes, int] = {}
    for number, token in enumerate(token_bytes):
        if number in special_ids:
            continue
        if not token or token in ids:
            raise ValueError(
                "Ordinary tokens must have bytes, and each its own. Received: token "
                f"{number} is {bytes(token)!r}"
                + (f", as token {ids[token]} is." if token else ".")
            )
        ids[bytes(token)] = number
    missing = [byte for byte in range(256) if bytes([byte]) not in ids]
    if missing and not lacks_bytes:
        raise ValueError(
            "Byte-level BPE needs a token for each of the 256 bytes, so that any text "
            f"can be encoded. Received: a vocabulary of {len(token_bytes)} without "
            f"{len(missing)} of them, the first being {missing[0]:#04x}. With "
            "lacks_bytes=True they are left out of every text."
        )
    return ids


def _merge_ids(
    merges: Sequence[tuple[bytes, bytes]], ids: Mapping[bytes, int]
) -> list[tuple[int, int, int]]:
    """Returns the merges as (left id, right id, merged id)."""
    numbered = []
    for rank, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in ids:
                raise ValueError(
                    "A merge joins two tokens of the vocabulary into a third. "
                    f"Received: merge {rank}, {left!r} + {right!r}, but {token!r} is "
                    "not in the vocabulary."
                )
        numbered.append((ids[left], ids[right], ids[left + right]))
    return numbered
