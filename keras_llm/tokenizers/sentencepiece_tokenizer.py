"""SentencePiece, unigram and BPE, in the graph."""

import hashlib
import os
import pathlib
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_llm.tokenizers.sentencepiece_model import read_model, with_prefix
from keras_llm.tokenizers.tokenizer import Tokenizer

_MODEL_FILE = "sentencepiece.model"
_LARGEST_FILE = 256 * 2**20


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece's tokenizer: pieces of normalised text, by a trained model.

    Encoding is the op of TensorFlow Text that TF Serving links; the model is part of
    the graph. Ids are those of the `sentencepiece` library. One thing can differ in a
    unigram model: of two divisions that are equally probable up to float32 rounding
    (`l` + `ll` and `ll` + `l`) either may be taken.

    `special_ids` has the roles "unk" and "end", and "pad" and "bos" where the model has
    them. Control symbols never come from text that spells them. The unknown piece is
    the one special id that `encode` gives; it decodes to the model's mark for it,
    ` ⁇ `, as in the library.

    T5's sentinels are in `sentinel_ids`: `<extra_id_0>`, `<extra_id_1>`, … They are
    those of the model file or else `extra_ids` of them behind its pieces, with
    `<extra_id_0>` the last id of all. They enter by id alone, whatever the text
    spells, and `decode` passes over them.

    `decode` gives what the library's does, except that bytes of byte pieces that are
    not UTF-8 come back as they are; `repair_utf8` is for those.

    Args:
        model: The contents of a `.model` file.
        extra_ids: How many sentinels to add behind the pieces.

    Raises:
        ValueError: The model is not whole or not of a kind that is served, or there
            are more sentinels than pieces, or sentinels in the model and more to add.

    Source: Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226; sentinels:
    Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 3.1.4.

    >>> from keras_llm import tokenizers
    >>> texts = ["the white whale, the whale"] * 9
    >>> small = tokenizers.train_sentencepiece(texts, vocab_size=14)
    >>> tokenizer = SentencePieceTokenizer(small.model, extra_ids=2)
    >>> tokenizer.decode(tokenizer.encode("the  whale")).numpy()
    b'the whale'
    >>> tokenizer.vocab_size, tokenizer.sentinel_ids
    (16, (15, 14))
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes, extra_ids: int = 0):
        read = read_model(model)
        num_pieces = len(read.token_bytes)
        _check_extra_ids(extra_ids, num_pieces, read.sentinel_ids)
        super().__init__((*read.token_bytes, *(b"",) * extra_ids), read.special_ids)
        self.model = model
        self.model_type = read.kind
        self.extra_ids = extra_ids
        self.sentinel_ids = read.sentinel_ids or tuple(
            range(self.vocab_size - 1, num_pieces - 1, -1)
        )
        self._proto, self._drops_spaces = read.proto, read.strips == "all"
        # The op finds its model by the node's name: so it is the contents' own.
        self._node_name = f"sentencepiece_{hashlib.sha256(read.proto).hexdigest()}"
        opens = np.zeros(self.vocab_size, bool)
        opens[list(read.opens_with_space)] = read.strips != "none"
        alone = opens & (self.token_bytes == b" ") & (read.strips == "all")
        stripped = [
            token[1:] if opens[number] else token
            for number, token in enumerate(self.token_bytes)
        ]
        with tf.init_scope(), tf.device("CPU:0"):
            # Each token's bytes, and once more as they are where a text begins.
            self._strings_2V = tf.constant([*self.token_bytes, *stripped])
            self._begins_text_V = tf.constant((self.token_bytes != b"") & ~alone)

    @classmethod
    def from_file(cls, model: str | os.PathLike[str], extra_ids: int = 0) -> Self:
        """Reads a `.model` file.

        Args:
            model: The file.
            extra_ids: How many sentinels to add behind the pieces.

        Raises:
            ValueError: As for the class.
        """
        size = os.path.getsize(model)
        if not size <= _LARGEST_FILE:
            raise ValueError(
                f"A model file may hold {_LARGEST_FILE:,} bytes at most. Received: "
                f"{model} with {size:,} bytes."
            )
        try:
            return cls(pathlib.Path(model).read_bytes(), extra_ids)
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from None

    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        return self._tokenize(strings_B, self._proto, self._node_name)

    def _encode_rest(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        def tokenize(strings, prefixed):
            proto = with_prefix(self._proto, prefixed)
            name = f"{self._node_name}_{'spaced' if prefixed else 'rest'}"
            return self._tokenize(strings, proto, name)

        if not self._drops_spaces:
            return tokenize(strings_B, False)
        # A space that comes first goes, and the prefix stands for it.
        with tf.device("CPU:0"):
            spaced_B = tf.strings.regex_full_match(strings_B, r"(?s)[\s\p{Z}].*")
            spaced = tokenize(tf.where(spaced_B, strings_B, ""), True)
            others = tokenize(tf.where(spaced_B, "", strings_B), False)
            return tf.concat([spaced, others], axis=1)  # Of each row one is empty.

    def _tokenize(self, strings_B, proto, node_name):
        import tensorflow_text as tf_text

        with tf.device("CPU:0"):
            # Made while tracing: the model becomes an attribute of a node, which needs
            # no initialiser and is tracked by nobody.
            return tf_text.SentencepieceTokenizer(proto, name=node_name).tokenize(
                strings_B
            )

    def _join_text(
        self, ids_N: tf.Tensor, row_N: tf.Tensor, num_rows: Any
    ) -> tf.Tensor:
        with tf.device("CPU:0"):
            checked_N = self._check_ids(ids_N)
            begins_N = tf.gather(self._begins_text_V, checked_N)
            before_N = tf.cumsum(tf.cast(begins_N, tf.int32), exclusive=True)
            first = tf.math.unsorted_segment_min(before_N, row_N, num_rows)
            opens_N = before_N == tf.gather(first, row_N)
            at_N = checked_N + tf.cast(opens_N, ids_N.dtype) * self.vocab_size
            return tf.strings.unsorted_segment_join(
                tf.gather(self._strings_2V, at_N), row_N, num_rows
            )

    def _description(self) -> dict[str, Any]:
        return {"extra_ids": self.extra_ids}

    def _save_files(self, folder: pathlib.Path) -> None:
        (folder / _MODEL_FILE).write_bytes(self.model)

    @classmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        extra_ids: Any = description.get("extra_ids")
        return cls.from_file(folder / _MODEL_FILE, extra_ids)


def _check_extra_ids(extra_ids, num_pieces: int, sentinels: tuple[int, ...]) -> None:
    if type(extra_ids) is not int or not 0 <= extra_ids <= num_pieces:
        raise ValueError(
            f"`extra_ids` must be a whole number from 0 to {num_pieces}, the number "
            f"of pieces. Received: extra_ids={extra_ids!r}."
        )
    if extra_ids and sentinels:
        raise ValueError(
            "Sentinels are either in the model or added to it. Received: "
            f"extra_ids={extra_ids}, but the model has {len(sentinels)} of its own. "
            "Leave `extra_ids` out."
        )
