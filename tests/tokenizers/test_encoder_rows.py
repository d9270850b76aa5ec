"""Rows of encoders, against a loop over lists."""

import numpy as np
import pytest
import tensorflow as tf

from keras_llm.tokenizers import ByteTokenizer, EncoderRows, WordPieceTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDPIECE = WordPieceTokenizer([*SPECIAL, *"abcdefg"])
TEXTS = ["a b c d e f g", "", "a b", "c d e f g", "a"]
PAIRS = ["b", "c d e", "", "a b c d e f g", "a b c d e f g"]


def cut_by_one(first, second, room):
    """Takes tokens away one by one, always from the longer; at a tie the second."""
    first, second = list(first), list(second)
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    return first, second


@pytest.mark.parametrize("limit", [4, 5, 8, 11, 99])
@pytest.mark.parametrize("framed", [True, False])
def test_pairs_are_framed_and_the_longer_text_is_cut_first(limit, framed):
    rows = EncoderRows(WORDPIECE, framed)(TEXTS, PAIRS, limit)
    for i, (text, pair) in enumerate(zip(TEXTS, PAIRS, strict=True)):
        whole = [WORDPIECE.encode(x).numpy().tolist() for x in (text, pair)]
        first, second = cut_by_one(*whole, limit - (3 if framed else 1))
        ids = [2, *first, 3, *second, 3] if framed else [*first, 3, *second]
        opened = len(first) + (2 if framed else 1)
        length = rows.lengths[i]
        assert length == len(ids) <= limit
        assert rows.token_ids[i, :length].numpy().tolist() == ids
        assert not rows.token_ids[i, length:].numpy().any()
        segments = [0] * opened + [1] * (len(ids) - opened)
        assert rows.segment_ids[i, :length].numpy().tolist() == segments
        assert not rows.segment_ids[i, length:].numpy().any()
        lost = sum(map(len, whole)) - len(first) - len(second)
        assert rows.left_out[i] == lost


@pytest.mark.parametrize("framed", [True, False])
def test_single_texts_are_cut_at_their_end(framed):
    rows = EncoderRows(WORDPIECE, framed)(TEXTS, limit=5)
    for i, text in enumerate(TEXTS):
        ids = WORDPIECE.encode(text).numpy().tolist()
        ids = [2, *ids[:3], 3] if framed else ids[:5]
        assert rows.token_ids[i, : rows.lengths[i]].numpy().tolist() == ids
    assert not rows.segment_ids.numpy().any()


def test_no_rows_at_all_still_have_a_column():
    for pair in (None, tf.constant([], tf.string)):
        rows = EncoderRows(ByteTokenizer(), framed=False)(
            tf.constant([], tf.string), pair, 3
        )
        assert rows.token_ids.shape[0] == 0 and rows.lengths.shape == [0]
    rows = EncoderRows(ByteTokenizer(), framed=False)([""])
    assert rows.token_ids.shape == [1, 1] and rows.lengths.numpy() == [0]


def test_a_traced_row_is_the_eager_one():
    rows = EncoderRows(WORDPIECE)
    spec = tf.TensorSpec([None], tf.string)
    traced = tf.function(lambda a, b: rows(a, b, 9), input_signature=[spec, spec])
    pairs = zip(traced(TEXTS, PAIRS), rows(TEXTS, PAIRS, 9), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
