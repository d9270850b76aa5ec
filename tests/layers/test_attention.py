"""Attention against float64 loops over single rows, heads and queries."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.layers import MultiHeadAttention
from keras_llm.ops import cache, masks, rotary

RNG = np.random.default_rng(7)
B, T, D = 2, 5, 12


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    """Draws each test's numbers anew, whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state


def made(**options):
    """Returns a built layer with large random weights and biases."""
    layer = MultiHeadAttention(**options)
    layer.build((None, None, D))
    for weight in layer.weights:
        weight.assign(RNG.normal(0, 0.5, weight.shape))
    return layer


def by_loop(layer, x, allowed, positions=None):
    """Returns what attention is, one query at a time; allowed(b, q, k) -> bool."""
    weights = {w.path.split("/", 1)[1]: np.asarray(w, "float64") for w in layer.weights}
    n_heads, k_heads = layer.num_heads, layer.key_value_heads
    size = weights["output/kernel"].shape[0] // n_heads
    scale = size**-0.5 if layer.scale is None else layer.scale
    fused = x.astype("float64") @ weights["query_key_value/kernel"]
    fused += weights.get("query_key_value/bias", 0)
    heads = fused.reshape(*x.shape[:2], -1, size)
    turned = n_heads + k_heads
    if layer.query_key_norm is not None:
        power = (heads[:, :, :turned] ** 2).mean(-1, keepdims=True)
        heads[:, :, :turned] /= np.sqrt(power + layer.query_key_norm)
        heads[:, :, :n_heads] *= weights["query_norm/scale"]
        heads[:, :, n_heads:turned] *= weights["key_norm/scale"]
    if layer.rotary_base:
        half = size // 2
        where = np.arange(x.shape[1])[None] if positions is None else positions
        frequencies = rotary.frequencies(size, layer.rotary_base, layer.rotary_scaling)
        angle = where[..., None] * np.array(frequencies)
        z = heads[:, :, :turned, :half] + 1j * heads[:, :, :turned, half:]
        z = z * np.exp(1j * angle)[:, :, None]
        heads[:, :, :turned] = np.concatenate([z.real, z.imag], -1)
    out = np.zeros((*x.shape[:2], n_heads, size))
    for b, q, n in np.ndindex(*x.shape[:2], n_heads):
        shared = n // (n_heads // k_heads)
        seen = [k for k in range(x.shape[1]) if allowed(b, q, k)]
        keys = heads[b, seen, n_heads + shared]
        values = heads[b, seen, n_heads + k_heads + shared]
        score = keys @ heads[b, q, n] * scale
        if layer.soft_cap is not None:
            score = layer.soft_cap * np.tanh(score / layer.soft_cap)
        score = np.exp(score)
        out[b, q, n] = score @ values / score.sum()
    y = out.reshape(*x.shape[:2], -1) @ weights["output/kernel"]
    return y + weights.get("output/bias", 0)


def some(*shape):
    return RNG.normal(size=shape).astype("float32")


OPTIONS = {
    "plain": {"num_heads": 3},
    "grouped": {"num_heads": 6, "key_value_heads": 2, "use_bias": False},
    "one key head": {"num_heads": 5, "key_value_heads": 1, "head_size": 7},
    "rotary": {"num_heads": 6, "key_value_heads": 3, "rotary_base": 100.0},
    "window": {"num_heads": 3, "window": 2},
    "normed heads": {"num_heads": 6, "key_value_heads": 2, "query_key_norm": 0.1},
    "scaled rotation": {
        "num_heads": 3,
        "rotary_base": 100.0,
        "rotary_scaling": (8.0, 1.0, 4.0, 11),
        "query_key_norm": 1e-6,
    },
    "soft cap": {"num_heads": 4, "soft_cap": 1.5},
    "biases inside": {"num_heads": 3, "output_bias": False},
    "no scale": {"num_heads": 5, "head_size": 3, "scale": 1.0, "use_bias": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_causal_attention(options):
    layer, x = made(**options), some(B, T, D)
    reach = options.get("window", T)
    expected = by_loop(layer, x, lambda b, q, k: q - reach < k <= q)
    np.testing.assert_allclose(layer(x), expected, atol=2e-5)


def test_without_causality_every_token_sees_all():
    layer, x = made(num_heads=4, causal=False), some(B, T, D)
    expected = by_loop(layer, x, lambda b, q, k: True)
    np.testing.assert_allclose(layer(x), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["plain", "grouped", "rotary", "no scale"])
def test_the_backend_s_own_attention_agrees_with_the_one_spelt_out(name, monkeypatch):
    calls, own = [], ops.dot_product_attention
    monkeypatch.setattr(
        ops,
        "dot_product_attention",
        lambda *xs, **options: calls.append(1) or own(*xs, **options),
    )
    layer, x = made(**OPTIONS[name], dropout=0.5), some(B, T, D)
    spelt_out = layer(x, bias=masks.as_bias(masks.causal(T)))
    layer(x, training=True)
    assert not calls
    np.testing.assert_allclose(layer(x), spelt_out, atol=1e-5)
    assert len(calls) == (keras.config.backend() == "jax")


def test_padding_mask():
    layer, x = made(num_heads=3, causal=False), some(B, T, D)
    real = np.arange(T)[None] < np.array([[5], [3]])
    expected = by_loop(layer, x, lambda b, q, k: real[b, k])
    np.testing.assert_allclose(layer(x, mask=real), expected, atol=2e-5)


def gradient_of_the_sum(layer, x):
    """Returns d sum(layer(x, mask)) / d x, as a function of the mask."""
    if keras.config.backend() == "jax":
        import jax

        return lambda mask: jax.jit(jax.grad(lambda x: layer(x, mask=mask).sum()))(x)

    def by_tape(mask):
        import tensorflow as tf

        source = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(source)
            total = tf.reduce_sum(layer(source, mask=mask))
        return tape.gradient(total, source)

    return by_tape


@pytest.mark.parametrize(
    ("name", "dtype"), [("grouped", "float32"), ("window", "mixed_float16")]
)
def test_a_row_of_padding_alone_stays_finite(name, dtype):
    layer, x = made(**OPTIONS[name], dtype=dtype), some(B, T, D)
    real = np.arange(T)[None] < np.array([[0], [3]])
    assert np.isfinite(np.asarray(ops.cast(layer(x, mask=real), "float32"))).all()
    slope = np.asarray(gradient_of_the_sum(layer, x)(real))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_a_query_that_may_see_nothing_takes_the_mean_of_all():
    layer, x = made(num_heads=3, causal=False), some(B, T, D)
    value_of = layer.query_key_value(x)[..., -D:]
    expected = layer.output_projection(ops.mean(value_of, axis=1))
    y = layer(x, mask=np.zeros((B, T), bool))
    np.testing.assert_allclose(y[:, 1], expected, atol=2e-5)


def test_a_given_mask_narrows_causality():
    layer, x = made(num_heads=3), some(B, T, D)
    mask = RNG.random((B, 1, T, T)) < 0.6
    mask |= np.eye(T, dtype=bool)
    expected = by_loop(layer, x, lambda b, q, k: mask[b, 0, q, k] and k <= q)
    np.testing.assert_allclose(layer(x, mask=mask), expected, atol=2e-5)


def test_a_keras_mask_is_taken_from_the_input():
    layer, ids = made(num_heads=3, causal=False), np.array([[3, 4, 0, 0]])
    embedding = keras.layers.Embedding(6, D, mask_zero=True)
    x = np.asarray(embedding(ids))
    expected = by_loop(layer, x, lambda b, q, k: k < 2)
    np.testing.assert_allclose(layer(embedding(ids)), expected, atol=2e-5)


def test_given_positions_turn_queries_and_keys():
    layer, x = made(num_heads=3, rotary_base=50.0), some(B, T, D)
    positions = RNG.integers(0, 40, (B, T))
    expected = by_loop(layer, x, lambda b, q, k: k <= q, positions)
    np.testing.assert_allclose(layer(x, positions=positions), expected, atol=2e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_scores_too_large_for_exp_stay_finite(options):
    layer = made(**options)
    y = np.asarray(layer(1e3 * some(B, T, D)))
    assert np.isfinite(y).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
def test_low_precision_stays_near_float32(dtype):
    exact, x = made(num_heads=3, rotary_base=100.0), some(B, T, D)
    rounded = MultiHeadAttention(num_heads=3, rotary_base=100.0, dtype=dtype)
    rounded.build((None, None, D))
    rounded.set_weights(exact.get_weights())
    y = rounded(x)
    assert keras.backend.standardize_dtype(y.dtype) == rounded.compute_dtype
    close = {"bfloat16": 0.15, "mixed_float16": 0.02}[dtype]
    np.testing.assert_allclose(ops.cast(y, "float32"), exact(x), atol=close)


def test_each_head_takes_its_own_bias():
    layer, x = made(num_heads=6, key_value_heads=2), some(B, T, D)
    hidden = RNG.integers(0, T, 6)
    bias = np.zeros((1, 6, T, T), "float32")
    for n, key in enumerate(hidden):
        bias[0, n, :, key] = masks.MASKED
    y = np.asarray(layer(x, bias=bias))
    # Without its own key each head gives its part of the result; they add up.
    kernel, offset = layer.output_projection.get_weights()
    parts = []
    for n, key in enumerate(hidden):
        alone = np.zeros_like(kernel)
        alone[2 * n : 2 * n + 2] = kernel[2 * n : 2 * n + 2]
        layer.output_projection.set_weights([alone, 0 * offset])
        mask = np.ones((1, 1, T, T), bool)
        mask[..., key] = False
        parts.append(np.asarray(layer(x, bias=masks.as_bias(mask))))
    np.testing.assert_allclose(y, sum(parts) + offset, atol=2e-5)


def test_the_first_scores_do_not_depend_on_the_scale():
    x, ys = some(B, T, D), []
    for scale in (None, 1.0):
        keras.utils.set_random_seed(5)
        ys.append(MultiHeadAttention(3, key_value_heads=1, scale=scale)(x))
    np.testing.assert_allclose(*ys, atol=1e-5)


def test_dropout_acts_on_weights_while_training_only():
    layer, x = made(num_heads=3, dropout=0.5, seed=3), some(B, T, D)
    quiet = np.asarray(layer(x))
    np.testing.assert_array_equal(layer(x, training=False), quiet)
    assert np.abs(np.asarray(layer(x, training=True)) - quiet).max() > 1e-3
    # The first token sees itself alone: its weight is either dropped or doubled.
    one_head = made(num_heads=1, dropout=0.5, seed=3)
    bias = np.asarray(one_head.output_projection.bias)
    still = np.asarray(one_head(x))[:, 0] - bias
    drawn = [np.asarray(one_head(x, training=True))[:, 0] - bias for _ in range(8)]
    ratios = {round(float(r), 3) for y in drawn for r in np.ravel(y / still)}
    assert ratios == {0.0, 2.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": 6, "key_value_heads": 4}, "key_value_heads=4"),
        ({"num_heads": 5}, "multiple of `num_heads`"),
        ({"num_heads": 4, "rotary_base": 9.0}, "head_size"),
        ({"num_heads": 4, "head_size": 0}, "head_size=0"),
        ({"num_heads": 4, "head_size": -3}, "head_size=-3"),
        ({"num_heads": 4, "key_value_heads": 0}, "key_value_heads=0"),
        ({"num_heads": 4, "rotary_base": 0.0}, "rotary_base=0.0"),
        ({"num_heads": 4, "scale": -1.0}, "scale=-1.0"),
        ({"num_heads": 4, "soft_cap": 0.0}, "soft_cap=0.0"),
        ({"num_heads": 4, "query_key_norm": -1.0}, "epsilon"),
        ({"num_heads": 3, "rotary_scaling": (8.0, 1.0, 4.0, 11)}, "`rotary_base`"),
        ({"num_heads": 3, "window": 0}, "window"),
        ({"num_heads": 3, "window": 2, "causal": False}, "causal=True"),
        ({"num_heads": 3, "dropout": float("nan")}, "rate"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**options).build((None, None, D))


def test_step_is_one_column_of_the_whole():
    """The cache's own test is on models; here a hand-made cache."""
    layer, x = made(num_heads=6, key_value_heads=2), some(B, T, D)
    whole = np.asarray(layer(x))
    lengths = np.array([4, 2])
    real = np.arange(T)[None] < lengths[:, None]
    _, keys, values = layer.prefill(x, real, 7)
    rows = np.arange(B)
    y, keys, values = layer.step(
        x[rows, lengths],
        keys,
        values,
        cache.slots(lengths, 2),
        masks.as_bias(masks.cached(lengths, 7)),
    )
    np.testing.assert_allclose(y, whole[rows, lengths], atol=1e-5)
    assert tuple(keys.shape) == tuple(values.shape) == (B, 2, 7, 2)
