"""Bytes as tokens."""

import pathlib
from typing import Any, Self

import tensorflow as tf

from keras_llm.tokenizers.tokenizer import Tokenizer


class ByteTokenizer(Tokenizer):
    """One token per byte: ids 0 to 255, and 256 for the end.

    Lossless on any bytes, whatever their encoding.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.encode(["Ahoy", "é"]).to_list()
    [[65, 104, 111, 121], [195, 169]]
    >>> tokenizer.decode([195, 169, tokenizer.end_id]).numpy().decode()
    'é'
    """

    kind = "byte"

    def __init__(self):
        super().__init__([*(bytes([b]) for b in range(256)), b""], {"end": 256})

    def _encode_rows(self, strings_B: tf.Tensor) -> tf.RaggedTensor:
        with tf.device("CPU:0"):
            bytes_N = tf.io.decode_raw(tf.strings.reduce_join(strings_B), tf.uint8)
            return tf.RaggedTensor.from_row_lengths(
                tf.cast(bytes_N, tf.int32),
                tf.cast(tf.strings.length(strings_B), tf.int64),
                validate=False,
            )

    @classmethod
    def _from_files(cls, folder: pathlib.Path, description: dict[str, Any]) -> Self:
        return cls()
