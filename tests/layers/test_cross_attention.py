"""Attention to a memory against float64 loops over single rows, heads and queries."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.layers import (
    AdditiveAttention,
    CrossAttention,
    DecoderBlock,
    MultiplicativeAttention,
)
from keras_llm.ops import cache, masks

RNG = np.random.default_rng(43)
B, T, D, S, M = 2, 5, 12, 7, 4
LENGTHS = np.array([7, 3])
REAL = np.arange(S)[None] < LENGTHS[:, None]


def some(*shape):
    return RNG.normal(size=shape).astype("float32")


X, MEMORY = some(B, T, D), some(B, S, M)


def filled(layer):
    """Returns the built layer with large random weights."""
    layer(X, MEMORY)
    for weight in layer.weights:
        weight.assign(RNG.normal(0, 0.5, weight.shape))
    return layer


def weights_of(layer):
    return {w.path.split("/", 1)[1]: np.asarray(w, "float64") for w in layer.weights}


def weighted_mean(score, values):
    odds = np.exp(score - score.max())
    return odds @ values / odds.sum()


def cross(layer, w):
    """Returns y [B, T, D] of CrossAttention, one row, head and query at a time."""
    size = w["query/kernel"].shape[1] // layer.num_heads
    scale = size**-0.5 if layer.scale is None else layer.scale
    query = X.astype("float64") @ w["query/kernel"] + w.get("query/bias", 0)
    both = MEMORY.astype("float64") @ w["key_value/kernel"] + w.get("key_value/bias", 0)
    keys, values = np.split(both, 2, axis=-1)
    inner = np.zeros_like(query)
    for b, t, n in np.ndindex(B, T, layer.num_heads):
        seen, head = slice(0, LENGTHS[b]), slice(n * size, (n + 1) * size)
        score = keys[b, seen, head] @ query[b, t, head] * scale
        inner[b, t, head] = weighted_mean(score, values[b, seen, head])
    return inner @ w["output/kernel"] + w.get("output/bias", 0)


def multiplicative(layer, w):
    y = np.zeros((B, T, M))
    for b, t in np.ndindex(B, T):
        memory = MEMORY[b, : LENGTHS[b]].astype("float64")
        y[b, t] = weighted_mean(memory @ w["key/kernel"] @ X[b, t], memory)
    return y


def additive(layer, w):
    y = np.zeros((B, T, M))
    for b, t in np.ndindex(B, T):
        memory = MEMORY[b, : LENGTHS[b]].astype("float64")
        inner = np.tanh(X[b, t] @ w["query/kernel"] + memory @ w["key/kernel"])
        y[b, t] = weighted_mean(inner @ w["score"], memory)
    return y


SUBJECTS = {
    "cross": (lambda **kw: CrossAttention(3, **kw), cross),
    "cross, no scale or bias": (
        lambda **kw: CrossAttention(5, 3, False, scale=1.0, **kw),
        cross,
    ),
    "multiplicative": (MultiplicativeAttention, multiplicative),
    "additive": (lambda **kw: AdditiveAttention(11, **kw), additive),
}


@pytest.fixture(params=SUBJECTS)
def subject(request):
    return SUBJECTS[request.param]


def test_formula(subject):
    make, expected = subject
    layer = filled(make())
    y = layer(X, MEMORY, memory_mask=REAL)
    np.testing.assert_allclose(y, expected(layer, weights_of(layer)), atol=2e-5)


def test_one_token_against_a_memory_that_was_read(subject):
    layer = filled(subject[0]())
    whole = np.asarray(layer(X, MEMORY, memory_mask=REAL))
    keys, values = layer.read(MEMORY)
    for t in range(T):
        y = layer.attend(X[:, t], keys, values, REAL)
        np.testing.assert_allclose(y, whole[:, t], atol=1e-5)


def test_the_memorys_padding_changes_nothing(subject):
    layer = filled(subject[0]())
    other = np.where(REAL[:, :, None], MEMORY, 100.0).astype("float32")
    one, two = (layer(X, m, memory_mask=REAL) for m in (MEMORY, other))
    np.testing.assert_allclose(one, two, atol=1e-6)
    alone = layer(X[1:], MEMORY[1:, :3])
    np.testing.assert_allclose(alone[0], one[1], atol=1e-5)


def test_a_keras_mask_is_taken_from_the_memory(subject):
    layer = filled(subject[0]())
    embedding = keras.layers.Embedding(6, M, mask_zero=True)
    ids = np.array([[3, 4, 0], [2, 0, 0]])
    expected = layer(X, np.asarray(embedding(ids)), memory_mask=ids > 0)
    np.testing.assert_allclose(layer(X, embedding(ids)), expected, atol=1e-6)


def test_a_memory_without_anything_real_gives_finite_values(subject):
    layer = filled(subject[0]())
    y = layer(X, MEMORY, memory_mask=np.zeros((B, S), bool))
    assert np.isfinite(np.asarray(y)).all()


def test_low_precision_stays_near_float32(subject):
    exact, rounded = filled(subject[0]()), filled(subject[0](dtype="bfloat16"))
    rounded.set_weights(exact.get_weights())
    y = ops.cast(rounded(X, MEMORY), "float32")
    np.testing.assert_allclose(y, exact(X, MEMORY), atol=0.2)


def test_dropout_acts_on_weights_while_training_only():
    layer = filled(CrossAttention(3, dropout=0.5, seed=3))
    quiet = np.asarray(layer(X, MEMORY))
    np.testing.assert_array_equal(layer(X, MEMORY, training=False), quiet)
    assert np.abs(np.asarray(layer(X, MEMORY, training=True)) - quiet).max() > 1e-3


def test_the_first_scores_do_not_depend_on_the_scale():
    def first(scale):
        keras.utils.set_random_seed(3)
        layer = CrossAttention(3, 4, scale=scale)
        y = layer(X, MEMORY)
        return np.asarray(y)

    np.testing.assert_allclose(first(None), first(1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossAttention(0), "num_heads"),
        (lambda: CrossAttention(5), "multiple of `num_heads`"),
        (lambda: CrossAttention(3, head_size=0), "head_size=0"),
        (lambda: CrossAttention(3, scale=0.0), "scale=0.0"),
        (lambda: CrossAttention(3, dropout=1.0), "rate"),
        (lambda: AdditiveAttention(0), "units=0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()(X, MEMORY)


def block():
    layer = DecoderBlock(3, 7, cross_attention=True)
    layer(X, memory=MEMORY)
    for weight in layer.weights:
        weight.assign(RNG.normal(0, 0.5, weight.shape))
    return layer


def test_a_block_adds_the_look_into_the_memory_between_the_others():
    layer = block()
    a = X + layer.attention(layer.attention_norm(X))
    a = a + layer.cross_attention(layer.cross_attention_norm(a), MEMORY, REAL)
    expected = a + layer.feed_forward(layer.feed_forward_norm(a))
    y = layer(X, memory=MEMORY, memory_mask=REAL)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_a_blocks_step_is_one_column_of_the_whole():
    layer = block()
    whole = np.asarray(layer(X, memory=MEMORY, memory_mask=REAL))
    memory = layer.cross_attention.read(MEMORY)
    keys = values = np.zeros((B, 3, T, D // 3), "float32")
    for t in range(T):
        position = np.full(B, t)
        y, keys, values = layer.step(
            X[:, t],
            keys,
            values,
            cache.slots(position, 3),
            masks.as_bias(masks.cached(position, T)),
            memory=memory,
            memory_mask=REAL,
        )
        np.testing.assert_allclose(y, whole[:, t], atol=1e-4)


def test_a_memory_is_given_where_it_is_used_and_only_there():
    with pytest.raises(ValueError, match="memory missing, cross_attention=True"):
        DecoderBlock(3, 7, cross_attention=True)(X)
    with pytest.raises(ValueError, match="memory given, cross_attention=False"):
        DecoderBlock(3, 7)(X, memory=MEMORY)
