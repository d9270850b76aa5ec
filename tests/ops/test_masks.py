"""Masks against loops over single queries and keys."""

import numpy as np
import pytest

from keras_llm.ops import masks

T = 7


def by_loop(allowed, rows=1, queries=T, keys=T):
    """Returns [rows, 1, queries, keys] from a rule over (row, query, key)."""
    mask = np.zeros((rows, 1, queries, keys), bool)
    for b, q, k in np.ndindex(rows, queries, keys):
        mask[b, 0, q, k] = allowed(b, q, k)
    return mask


def test_causal():
    expected = by_loop(lambda b, q, k: k <= q)
    np.testing.assert_array_equal(masks.causal(T), expected)


@pytest.mark.parametrize("window", [1, 3, T, 50])
def test_sliding_window_with_causal(window):
    mask = masks.combine(masks.causal(T), masks.sliding_window(T, window))
    expected = by_loop(lambda b, q, k: q - window < k <= q)
    np.testing.assert_array_equal(mask, expected)


def test_padding_from_lengths():
    lengths = np.array([0, 3, T])
    mask = masks.padding(masks.real_tokens(lengths, T))
    full = masks.combine(mask, np.ones((1, 1, T, T), bool))
    np.testing.assert_array_equal(full, by_loop(lambda b, q, k: k < lengths[b], 3))


def test_segments_and_their_starts():
    ids = np.array([[4, 0, 5, 5, 0, 0, 6], [0, 1, 2, 3, 4, 5, 6], [1] * T])
    document, start = np.zeros_like(ids), np.zeros_like(ids)
    for b, t in np.ndindex(ids.shape):
        opened = [s for s in range(t + 1) if ids[b, s] == 0]
        document[b, t], start[b, t] = len(opened), opened[-1] if opened else 0
    segments = masks.segments(ids, separator_id=0)
    np.testing.assert_array_equal(segments, document)
    np.testing.assert_array_equal(masks.segment_starts(segments), start)
    expected = by_loop(lambda b, q, k: document[b, q] == document[b, k], 3)
    np.testing.assert_array_equal(masks.same_segment(segments), expected)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("start", [None, np.array([0, 2, 4], "int32")])
def test_cached(window, start):
    position = np.array([0, 3, 5], "int32")
    mask = masks.cached(position, 11, window, start)
    expected = by_loop(
        lambda b, q, k: (
            k <= position[b]
            and (window is None or k > position[b] - window)
            and (start is None or k >= start[b])
        ),
        rows=3,
        queries=1,
        keys=11,
    )
    np.testing.assert_array_equal(mask, expected)


def test_combine_skips_what_is_absent():
    assert masks.combine(None, None) is None
    np.testing.assert_array_equal(masks.combine(None, masks.causal(T)), masks.causal(T))


def test_a_masked_score_weighs_exactly_nothing():
    bias = np.asarray(masks.as_bias(np.array([True, False])))
    assert bias.dtype == np.float32 and bias[0] == 0
    assert np.exp(np.float32(80.0) + bias[1]) == 0
