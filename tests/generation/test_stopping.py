"""Stop strings on bytes against Python's own search."""

import numpy as np
import tensorflow as tf

from keras_llm.generation import stopping

PIECES = [b"", b"a", b"ab", b"bc", b"cab", b"\xe6\x96", b"\x87", b"abcabcabc"]


def test_stop_strings_are_found_wherever_they_span_tokens():
    rng = np.random.default_rng(0)
    token_bytes = stopping.TokenBytes(PIECES)
    stop_rows = [[b"abc", b""], [b"\xe6\x96\x87", b"cc"], [b"bca", b"aab"], [b"", b""]]
    stops = stopping.parse(tf.constant(stop_rows))
    advance = tf.function(stopping.advance)
    for _ in range(20):
        tokens = rng.integers(0, len(PIECES), size=(9, 4)).astype("int32")
        tail = stopping.begin(stops)
        texts, found = [b""] * 4, [None] * 4
        for step in range(9):
            tail = advance(tail, token_bytes(tf.constant(tokens[step])), stops)
            for row in range(4):
                texts[row] += PIECES[tokens[step, row]]
                places = [texts[row].find(s) for s in stop_rows[row] if s]
                places = [place for place in places if place >= 0]
                if places and found[row] is None:
                    found[row] = min(places)
                cut = int(tail.cut_B[row])
                assert (None if cut == tf.int32.max else cut) == found[row], texts[row]
            assert tail.num_bytes_B.numpy().tolist() == [len(t) for t in texts]


def test_padding_to_a_bucket_changes_nothing():
    rows = tf.constant([[b"ab"], [b"c"]])
    padded = stopping.parse(rows, bucket=lambda size: tf.maximum(size, 16))
    assert padded.bytes_BSM.shape == (2, 16, 16)
    token_bytes = stopping.TokenBytes(PIECES)
    tail = stopping.begin(padded)
    for token in (1, 3):  # "a" then "bc"
        tail = stopping.advance(tail, token_bytes(tf.constant([token] * 2)), padded)
    assert tail.cut_B.numpy().tolist() == [0, 2]
