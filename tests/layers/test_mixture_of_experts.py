"""Experts: against a loop over tokens, with room for all and without."""

import math

import keras
import numpy as np
import pytest

from keras_llm.layers import MixtureOfExperts

B, T, D, E, F = 2, 7, 5, 3, 11
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype("float32")
REAL = np.arange(T) < np.array([[5], [7]])


def make(**options):
    layer = MixtureOfExperts(E, F, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(1)
    layer.set_weights([0.7 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda a: a * (1 + ERF(a / math.sqrt(2))) / 2,
    "relu": lambda a: np.where(a > 0, a, 0),
    "swiglu": lambda a: a[:F] / (1 + np.exp(-a[:F])) * a[F:],
}


def by_token(layer, x, real, capacity=None):
    """Returns outputs and balance in float64, one token after another."""
    w = {v.path.split("/", 1)[1]: np.float64(np.asarray(v)) for v in layer.weights}
    k, activation = layer.top_k, ACTIVATIONS[layer.activation]
    y, falls, odds_sum = np.zeros(x.shape), np.zeros(E), np.zeros(E)
    for b in range(len(x)):
        room = np.full(E, math.inf if capacity is None else capacity)
        for t in range(x.shape[1]):
            if not real[b, t]:
                continue
            scores = np.exp(x[b, t] @ w["router/kernel"])
            odds = scores / scores.sum()
            best = np.argsort(-odds)[:k]
            falls[best] += 1
            odds_sum += odds
            total = odds[best].sum() if k > 1 else 1
            for e in best:
                if room[e] == 0:
                    continue
                room[e] -= 1
                a = x[b, t] @ w["inner_kernel"][e] + w["inner_bias"][e, 0]
                out = activation(a) @ w["output_kernel"][e] + w["output_bias"][e, 0]
                y[b, t] += odds[best][best == e][0] / total * out
    tokens = real.sum()
    return y, E * np.sum(falls / (k * tokens) * odds_sum / tokens)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_with_room_for_all(activation, top_k):
    layer = make(activation=activation, top_k=top_k)
    y, loss = layer(X, mask=REAL, return_loss=True)
    expected, balance = by_token(layer, X, REAL)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    assert float(loss) == pytest.approx(balance, rel=1e-5)
    everything = np.ones((B, T), bool)
    y, loss = layer(X, return_loss=True)
    expected, balance = by_token(layer, X, everything)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    assert float(loss) == pytest.approx(balance, rel=1e-5)


def compiled(function):
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)


@pytest.mark.parametrize(
    ("top_k", "factor", "capacity"), [(1, 0.5, 2), (2, 0.65, 4), (2, 1.0, 5)]
)
def test_with_little_room_later_tokens_are_dropped(top_k, factor, capacity):
    layer = make(top_k=top_k, capacity_factor=factor, activation="swiglu")
    expected, balance = by_token(layer, X, REAL, capacity)
    roomy, _ = by_token(layer, X, REAL)
    assert np.abs(expected - roomy).max() > 0.01, "something is dropped"

    def run(x):
        return layer(x, mask=REAL, return_loss=True, training=True)

    for function in (run, compiled(run)):
        y, loss = function(X)
        np.testing.assert_allclose(y, expected, atol=1e-4)
        assert float(loss) == pytest.approx(balance, rel=1e-5)


def test_capacity_takes_no_part_where_none_is_asked_for():
    layer = make(capacity_factor=None)
    np.testing.assert_allclose(layer(X, training=True), layer(X), atol=1e-5)


def test_what_comes_later_and_other_rows_take_no_room():
    layer = make(capacity_factor=0.5)
    whole = np.asarray(layer(X, training=True))
    later = X.copy()
    later[:, 4:] = later[::-1, 4:]
    np.testing.assert_allclose(
        layer(later, training=True)[:, :4], whole[:, :4], atol=1e-5
    )
    for b in range(B):
        np.testing.assert_allclose(
            layer(X[b : b + 1], training=True)[0], whole[b], atol=1e-5
        )


def test_token_by_token_is_the_row():
    layer = make()
    whole = np.asarray(layer(X))
    for t in range(T):
        np.testing.assert_allclose(layer(X[:, t]), whole[:, t], atol=1e-5)


def test_the_loss_is_one_in_balance_and_e_in_collapse():
    layer = make(top_k=1)
    layer.router.kernel.assign(50 * np.eye(D, E))
    x = np.zeros((1, 6, D), "float32")
    x[0, np.arange(6), np.arange(6) % E] = 1  # Two tokens for each expert.
    assert float(layer(x, return_loss=True)[1]) == pytest.approx(1)
    x[:] = x[:, :1]
    assert float(layer(x, return_loss=True)[1]) == pytest.approx(E)
    nobody = layer(x, mask=np.zeros((1, 6), bool), return_loss=True)
    assert float(nobody[1]) == 0 and not np.asarray(nobody[0]).any()


def gradients(layer, function):
    variables = layer.trainable_variables
    if keras.config.backend() == "jax":
        import jax

        def loss(values):
            with keras.StatelessScope(
                state_mapping=list(zip(variables, values, strict=True))
            ):
                return function()

        return jax.grad(loss)([variable.value for variable in variables])
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = function()
    return tape.gradient(value, [variable.value for variable in variables])


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("of", ["output", "balance"])
def test_gradients_reach_the_router(top_k, of):
    layer = make(top_k=top_k)

    def value():
        y, loss = layer(X, return_loss=True, training=True)
        return loss if of == "balance" else keras.ops.sum(y * X)

    found = gradients(layer, value)
    for weight, gradient in zip(layer.trainable_variables, found, strict=True):
        if of == "output" or "router" in weight.path:
            assert np.asarray(gradient).any(), weight.path


@pytest.mark.parametrize(
    "initializer", ["glorot_uniform", keras.initializers.RandomNormal(seed=5)]
)
def test_experts_start_unlike_and_as_a_matrix_of_their_own(initializer):
    layer = MixtureOfExperts(E, 307, kernel_initializer=initializer)
    layer.build((None, None, 211))
    kernels = np.asarray(layer.inner_kernel)
    alone = np.asarray(keras.initializers.get(initializer)((211, 307))).std()
    for e in range(E):
        assert kernels[e].std() == pytest.approx(alone, rel=0.02)
        assert np.abs(kernels[e] - kernels[e - 1]).max() > alone


def test_weight_names_are_stable():
    layer = MixtureOfExperts(E, F, activation="swiglu", name="experts")
    layer.build((None, None, D))
    assert {weight.path: tuple(weight.shape) for weight in layer.weights} == {
        "experts/router/kernel": (D, E),
        "experts/inner_kernel": (E, D, 2 * F),
        "experts/inner_bias": (E, 1, 2 * F),
        "experts/output_kernel": (E, F, D),
        "experts/output_bias": (E, 1, D),
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_experts": 0}, "`num_experts`"),
        ({"inner_dim": 0}, "`inner_dim`"),
        ({"top_k": 0}, "`top_k`"),
        ({"top_k": 4}, "`top_k` must lie from 1 to 3"),
        ({"capacity_factor": 0.0}, "`capacity_factor`"),
        ({"capacity_factor": float("nan")}, "`capacity_factor`"),
        ({"activation": "selu"}, "`activation` must be one of"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        MixtureOfExperts(**{"num_experts": E, "inner_dim": F, **options})


def test_an_input_of_another_rank_is_refused():
    with pytest.raises(ValueError, match="Experts read"):
        make()(X[0, 0])
