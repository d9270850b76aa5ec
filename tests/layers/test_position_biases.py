"""Position biases against the papers' formulas, pair by pair."""

import math

import numpy as np
import pytest

from keras_llm.layers import ALiBi, DecoderBlock, RelativePositionBias
from keras_llm.ops import masks

RNG = np.random.default_rng(53)


def bucket(distance, buckets, farthest, bidirectional):
    """Returns the bucket of key minus query, by Raffel et al.'s logarithm."""
    offset = 0
    if bidirectional:
        buckets //= 2
        offset = buckets * (distance > 0)
    elif distance > 0:
        distance = 0
    distance, exact = abs(distance), buckets // 2
    if distance < exact:
        return offset + distance
    share = math.log(distance / exact) / math.log(farthest / exact)
    # (A hair above, for where the quotient of two logarithms is an integer.)
    log_bucket = exact + int(share * (buckets - exact) + 1e-9)
    return offset + min(log_bucket, buckets - 1)


@pytest.mark.parametrize(
    "sizes",
    [
        (32, 128, True),
        (32, 128, False),
        (10, 13, True),
        (6, 17, True),
        (7, 13, False),
        (2, 5, False),
        (64, 512, True),
    ],
)
def test_each_pair_reads_the_bucket_of_its_distance(sizes):
    layer = RelativePositionBias(3, *sizes)
    queries, keys = np.array([[0, 5, 140]]), np.arange(-3, 560, 7)[None]
    bias = np.asarray(layer(queries, keys))
    table = np.asarray(layer.embeddings)
    assert bias.shape == (1, 3, 3, keys.size)
    for t, c in np.ndindex(3, keys.size):
        row = bucket(int(keys[0, c] - queries[0, t]), *sizes)
        np.testing.assert_array_equal(bias[0, :, t, c], table[row])


def test_every_bucket_is_reached_but_that_of_distance_0_after_the_query():
    layer = RelativePositionBias(1, 10, 13)
    layer.build((1, 5))
    layer.embeddings.assign(np.arange(10)[:, None])
    assert set(np.unique(layer(np.arange(30)[None]))) == set(range(10)) - {5}


def test_rows_may_stand_at_positions_of_their_own():
    layer = RelativePositionBias(3, 8, 20)
    positions = np.array([[4], [11]])
    both = np.asarray(layer(positions, np.arange(13)[None]))
    assert both.shape == (2, 3, 1, 13)
    for b in range(2):
        alone = layer(positions[b : b + 1], np.arange(13)[None])
        np.testing.assert_array_equal(both[b], np.asarray(alone)[0])


def test_the_bias_is_float32_under_any_policy():
    layer = RelativePositionBias(3, dtype="mixed_bfloat16")
    bias = layer(np.arange(5)[None])
    assert np.asarray(bias).dtype == "float32"
    assert np.abs(np.asarray(bias)).max() > 0


SLOPES = {
    1: [2**-8],
    4: [2**-2, 2**-4, 2**-6, 2**-8],
    8: [2**-i for i in range(1, 9)],
    # The slopes of 4 heads, then the first and third of 8.
    6: [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3],
}


@pytest.mark.parametrize("heads", SLOPES)
def test_alibi_penalises_distance_by_each_heads_slope(heads):
    queries, keys = np.array([[3, 7], [0, 9]]), np.arange(11)[None]
    bias = np.asarray(ALiBi(heads)(queries, keys))
    assert bias.shape == (2, heads, 2, 11)
    for b, n, t, c in np.ndindex(2, heads, 2, 11):
        expected = -SLOPES[heads][n] * abs(c - queries[b, t])
        np.testing.assert_allclose(bias[b, n, t, c], expected, rtol=1e-6)


def test_alibi_in_a_block_is_the_softmax_with_the_penalty_in_each_head():
    x = RNG.normal(size=(2, 5, 12)).astype("float32")
    block = DecoderBlock(3, 7)
    bias = ALiBi(3)(np.arange(5)[None]) + masks.as_bias(masks.causal(5))
    with_alibi = np.asarray(block(x, bias=bias))
    w = {v.path.split("/", 1)[1]: np.asarray(v, "float64") for v in block.weights}
    normed = np.asarray(block.attention_norm(x), "float64")
    fused = normed @ w["attention/query_key_value/kernel"]
    query, key, value = np.split(fused.reshape(2, 5, 9, 4), 3, axis=2)
    y = np.zeros((2, 5, 3, 4))
    slopes = [2**-4, 2**-8, 2**-2]
    for b, t, n in np.ndindex(2, 5, 3):
        score = key[b, : t + 1, n] @ query[b, t, n] / 2 - slopes[n] * np.arange(
            t, -1, -1
        )
        odds = np.exp(score)
        y[b, t, n] = odds @ value[b, : t + 1, n] / odds.sum()
    a = x + y.reshape(2, 5, 12) @ w["attention/output/kernel"]
    expected = a + np.asarray(block.feed_forward(block.feed_forward_norm(a)))
    np.testing.assert_allclose(with_alibi, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RelativePositionBias(0), "num_heads"),
        (lambda: RelativePositionBias(2, 7), "even with `bidirectional`.*=7"),
        (lambda: RelativePositionBias(2, 2), "at least 4.*num_buckets=2"),
        (lambda: RelativePositionBias(2, 1, bidirectional=False), "at least 2"),
        (lambda: RelativePositionBias(2, -8), "num_buckets=-8"),
        (lambda: RelativePositionBias(2, 32, 8), "max_distance=8.*gives 8 of those"),
        (lambda: RelativePositionBias(2, 32, float("nan")), "max_distance=nan"),
        (lambda: ALiBi(0), "num_heads=0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
