"""A tokenizer of bytes for the data tests."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf


class Bytes:
    """One token a byte, id = byte + 3; ids 0 to 2 are "end" and two unused ones."""

    kind = "byte"
    vocab_size = 259
    special_ids = {"end": 2}
    token_bytes = np.array([b""] * 3 + [bytes([i]) for i in range(256)], object)

    def encode(self, strings):
        ragged = tf.strings.bytes_split(tf.convert_to_tensor(strings))
        codes = tf.io.decode_raw(ragged.values, tf.uint8)[:, 0]
        return ragged.with_values(tf.cast(codes, tf.int32) + 3)

    def save(self, folder):
        pathlib.Path(folder).mkdir()
        pathlib.Path(folder, "tokenizer.json").write_text(json.dumps({"kind": "byte"}))


@pytest.fixture(scope="session")
def tokenizer():
    return Bytes()
