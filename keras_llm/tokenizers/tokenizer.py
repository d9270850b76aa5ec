"""The interface that every tokenizer shares."""

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from keras_llm.core import read_json, write_json
from keras_llm.tokenizers.chat_format import ChatFormat

FORMAT = 1
FILE_NAME = "tokenizer.json"


class Tokenizer(tf.Module, abc.ABC):
    """Text to token ids and back, inside the graph.

    All state is constants, so that `encode` and `decode` run eagerly, in
    `tf.data.Dataset.map`, in a `tf.function` and in a SavedModel by the very same
    graph. Text never turns into a special token: the special ids enter a sequence
    by number alone, whatever the text spells.

    Args:
        token_bytes: The bytes that each id stands for, [V]; b"" for special ids.
        special_ids: Role to id. The role "end" is always there: the separator that
            opens a document and ends a generated text.

    Raises:
        ValueError: A special id lies outside the vocabulary, or "end" is missing.
    """

    kind: ClassVar[str]

    def __init__(self, token_bytes: Sequence[bytes], special_ids: Mapping[str, int]):
        super().__init__(name=self.kind)
        self._special_ids = tuple(sorted(special_ids.items()))
        self.token_bytes = np.empty(len(token_bytes), object)
        self.token_bytes[:] = token_bytes
        self.vocab_size = len(token_bytes)
        self._chat: ChatFormat | None = None
        if "end" not in special_ids:
            raise ValueError(
                'A tokenizer needs a special id for the role "end", which separates '
                f"documents. Received: special_ids={dict(special_ids)}."
            )
        for role, special in self._special_ids:
            if not 0 <= special < self.vocab_size:
                raise ValueError(
                    f"A special id must lie below the vocabulary size "
                    f"{self.vocab_size}. Received: {role}={special}."
                )
        with tf.init_scope(), tf.device("CPU:0"):
            self._strings_V = tf.constant(self.token_bytes)
        self._encode = tf.function(
            self._encode_rows,
            input_signature=[tf.TensorSpec([None], tf.string)],
            autograph=False,
        )

    @property
    def special_ids(self) -> dict[str, int]:
        """Role to id of every special token; "end" is always among them."""
        return dict(self._special_ids)

    @property
    def end_id(self) -> int:
        """The id that separates documents and ends a generated text."""
        return self.special_ids["end"]

    @property
    def chat(self) -> ChatFormat | None:
        """How a chat model reads conversations; None for other models."""
        return self._chat

    def use_chat(self, chat: ChatFormat) -> None:
        """Takes a chat model's template, which is saved with the tokenizer.

        `begin_ids` may lie beyond the vocabulary: a model may have learnt vectors that
        stand before every conversation, and that no text turns into.

        Raises:
            ValueError: One of its ids is not special, or the end is not what closes a
                message, so that a reply would not end.
        """
        learnt = {number for number in chat.begin_ids if number >= self.vocab_size}
        special = {*self.special_ids.values(), *learnt}
        wrong = [number for number in chat.special_ids if number not in special]
        wrong += [number for number in chat.reply_ids if not number < self.vocab_size]
        if wrong or chat.close_ids != (self.end_id,):
            raise ValueError(
                "A template's ids must be special ones, and the end of a text must "
                f"close a message. Received: the ids {wrong} that are not special, "
                f"close_ids={chat.close_ids}, end={self.end_id}."
            )
        self._chat = chat

    def encode(
        self, strings: Any, continues: bool = False
    ) -> tf.RaggedTensor | tf.Tensor:
        """Turns text into ids; never yields a special id.

        Args:
            strings: Bytes or UTF-8 text: a string tensor [B] or a scalar, or what
                converts to one. At most 2 GiB in one call.
            continues: Whether the texts go on after something that is there already. A
                kind that begins each text like a word then does so only if a space
                comes first; for other kinds it is all one.

        Returns:
            int32 RaggedTensor [B, (N)]; for a scalar a tensor [N].

        Raises:
            ValueError: `strings` has another rank.
        """
        strings_B, is_scalar = as_rows(strings)
        ids = self._encode_rest(strings_B) if continues else self._encode(strings_B)
        return ids.values if is_scalar else ids

    def _encode_rest(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        """Does what `encode` does, for texts that go on after something."""
        return self._encode(strings_B)

    @abc.abstractmethod
    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        """Traced once: strings [B] to int32 ids [B, (N)]."""

    def decode(self, ids: Any, continues: bool = False) -> tf.Tensor:
        """Joins the bytes of the tokens of each row.

        The result is raw bytes: a row that ends inside a character is not valid
        UTF-8. Pass it through `repair_utf8` before a client sees it.

        Args:
            ids: Integer RaggedTensor [B, (N)], tensor [B, N] or vector [N]. Negative
                ids are padding and special ids are silent: both give no bytes.
            continues: Whether the rows go on with a text that is there already. A kind
                whose words begin with a space then keeps the first one, which it drops
                where a text begins; for other kinds it is all one.

        Returns:
            String tensor [B], or a scalar for a vector.

        Raises:
            InvalidArgumentError: An id is not below the vocabulary size.
            ValueError: `ids` has another rank.
        """
        join = self._join if continues else self._join_text
        if isinstance(ids, (list, tuple)) and any(np.ndim(row) for row in ids):
            ids = tf.ragged.constant(ids, dtype=tf.int32, ragged_rank=1)
        if isinstance(ids, tf.RaggedTensor):
            if ids.ragged_rank != 1 or ids.values.shape.rank != 1:
                raise ValueError(f"`decode` takes [B, (N)]. Received: {ids.shape}.")
            return join(ids.values, rows_of_values(ids), tf.cast(ids.nrows(), tf.int32))
        if isinstance(ids, (list, tuple)) and not len(ids):
            ids = np.zeros(0, np.int32)
        ids = tf.convert_to_tensor(ids)
        if ids.shape.rank == 1:
            return join(ids, tf.zeros_like(ids, tf.int32), 1)[0]
        if ids.shape.rank != 2:
            raise ValueError(f"`decode` takes [N] or [B, N]. Received: {ids.shape}.")
        shape = tf.shape(ids)
        rows = tf.repeat(tf.range(shape[0]), tf.fill([shape[0]], shape[1]))
        return join(tf.reshape(ids, [-1]), rows, shape[0])

    def _join(self, ids_N: tf.Tensor, row_N: tf.Tensor, num_rows: Any) -> tf.Tensor:
        """Concatenates the tokens' bytes; rows are in ascending order."""
        with tf.device("CPU:0"):
            pieces_N = tf.gather(self._strings_V, self._check_ids(ids_N))
            return tf.strings.unsorted_segment_join(pieces_N, row_N, num_rows)

    def _join_text(
        self, ids_N: tf.Tensor, row_N: tf.Tensor, num_rows: Any
    ) -> tf.Tensor:
        """Does the same for rows that begin a text."""
        return self._join(ids_N, row_N, num_rows)

    def _check_ids(self, ids_N: tf.Tensor) -> tf.Tensor:
        """Returns ids with a silent one for padding, once all are in the vocabulary."""
        known = tf.reduce_all(ids_N < self.vocab_size)
        message = f"Token ids must be below {self.vocab_size}. Received:"
        with tf.control_dependencies([tf.Assert(known, [message, ids_N])]):
            return tf.where(ids_N < 0, tf.constant(self.end_id, ids_N.dtype), ids_N)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the tokenizer's files into `folder`, which is made if need be."""
        root = pathlib.Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        self._save_files(root)
        write_json(
            root / FILE_NAME,
            {
                "format": FORMAT,
                "kind": self.kind,
                "vocab_size": self.vocab_size,
                "special_ids": self.special_ids,
                **({"chat": self.chat.to_dict()} if self.chat else {}),
                **self._description(),
            },
        )

    def _description(self) -> dict[str, Any]:
        """Returns what this kind keeps in tokenizer.json beside the common part."""
        return {}

    def _save_files(self, folder: pathlib.Path) -> None:
        """Writes this kind's other files."""

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: There is no tokenizer in `folder`.
            ValueError: The files are malformed, contradict one another, or hold
                another kind of tokenizer.
        """
        root = pathlib.Path(folder)
        description = read_description(root)
        if description["kind"] != cls.kind:
            raise ValueError(
                f"{root / FILE_NAME} holds a tokenizer of kind "
                f"{description['kind']!r}, not {cls.kind!r}. Use tokenizers.load."
            )
        tokenizer = cls._from_files(root, description)
        for name in ("vocab_size", "special_ids"):
            if getattr(tokenizer, name) != description.get(name):
                raise ValueError(
                    f"{root / FILE_NAME} contradicts the vocabulary beside it: "
                    f"{name} is {description.get(name)!r} there, but the vocabulary "
                    f"gives {getattr(tokenizer, name)!r}."
                )
        if "chat" in description:
            tokenizer.use_chat(ChatFormat.from_dict(description["chat"]))
        return tokenizer

    @classmethod
    @abc.abstractmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        """Rebuilds the tokenizer from a checked description."""


def as_rows(strings: Any) -> tuple[tf.Tensor, bool]:
    """Returns strings [B], and whether they were one string instead.

    Raises:
        ValueError: `strings` has another rank.
    """
    strings = tf.convert_to_tensor(strings, tf.string)
    if strings.shape.rank == 0:
        return strings[tf.newaxis], True
    if strings.shape.rank != 1:
        raise ValueError(
            "A tokenizer takes one string or a vector of strings. Received: shape "
            f"{strings.shape}. Flatten it first."
        )
    return strings, False


def rows_of_values(ragged: tf.RaggedTensor) -> tf.Tensor:
    """Returns the row of each value, int32 [N].

    `value_rowids` would lay out a matrix of all rows as long as the longest.
    """
    position_N = tf.range(tf.size(ragged.values, ragged.row_splits.dtype))
    return tf.searchsorted(ragged.row_splits, position_N, side="right") - 1


def read_description(folder: pathlib.Path) -> dict[str, Any]:
    """Returns tokenizer.json after checking what all kinds share."""
    path = folder / FILE_NAME
    if not path.is_file():
        inner = folder / "tokenizer"  # Of a model, a run or a prepared corpus.
        whole = (inner / FILE_NAME).is_file()
        remedy = f"Give {inner}." if whole else "Check the path."
        raise FileNotFoundError(
            f"A tokenizer's folder is needed, with its {FILE_NAME}. Received: "
            f"{folder}, which has none. {remedy}"
        )
    description = read_json(path)
    if not isinstance(description, dict) or "kind" not in description:
        raise ValueError(
            f"{path} is not a tokenizer of this package: it has no field `kind`."
        )
    if description.get("format") != FORMAT:
        raise ValueError(
            f"{path} must have format {FORMAT}. Received: "
            f"format={description.get('format')!r}. It was written by another version."
        )
    return description
