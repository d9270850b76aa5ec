import keras
import numpy as np
import pytest

from keras_llm.ops import losses

N, D, V = 12, 5, 11


def reference(logits, targets, smoothing):
    """Cross-entropy against the smoothed distribution, in float64."""
    logits = np.float64(logits)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = np.full(logits.shape, smoothing / logits.shape[-1])
    wanted[np.arange(len(targets)), targets] += 1 - smoothing
    return -(wanted * log_probs).sum(-1)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {
        "hidden": rng.normal(size=(N, D)).astype("float32"),
        "table": rng.normal(size=(V, D)).astype("float32"),
        "targets": rng.integers(0, V, N).astype("int32"),
        "weights": rng.uniform(0, 2, N).astype("float32") * (np.arange(N) % 3 > 0),
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_losses_equal_the_distribution_form(inputs, smoothing):
    logits = inputs["hidden"] @ inputs["table"].T
    found = losses.token_losses(logits, inputs["targets"], smoothing)
    np.testing.assert_allclose(
        found, reference(logits, inputs["targets"], smoothing), rtol=1e-5
    )


def gradients(function, *values):
    """Returns the value and d function / d each of `values`."""
    if keras.config.backend() == "jax":
        import jax

        value, slopes = jax.value_and_grad(function, argnums=range(len(values)))(
            *values
        )
        return value, [np.asarray(slope) for slope in slopes]
    import tensorflow as tf

    values = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        value = function(*values)
    return value, [np.asarray(slope) for slope in tape.gradient(value, values)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [3, 5, 11, 12, 17, None])
def test_head_loss_has_the_closed_form_s_value_and_gradients(
    inputs, smoothing, tied, chunk
):
    hidden, table, targets, weights = inputs.values()
    logits = np.float64(hidden) @ np.float64(table).T
    wanted = np.full((N, V), smoothing / V)
    wanted[np.arange(N), targets] += 1 - smoothing
    odds = np.exp(logits)
    slope = weights[:, None] * (odds / odds.sum(-1, keepdims=True) - wanted)
    table_slope = slope.T @ hidden

    value, (hidden_found, kernel_found) = gradients(
        lambda hidden, kernel: losses.head_loss(
            hidden, kernel, targets, weights, tied, smoothing, chunk
        ),
        hidden,
        table if tied else table.T,
    )
    np.testing.assert_allclose(
        value, (weights * reference(logits, targets, smoothing)).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(hidden_found, slope @ table, rtol=1e-4, atol=1e-5)
    kernel_slope = table_slope if tied else table_slope.T
    np.testing.assert_allclose(kernel_found, kernel_slope, rtol=1e-4, atol=1e-5)


def test_bounded_logits_have_the_bound_s_value_and_gradients(inputs):
    hidden, table, targets, weights = inputs.values()
    cap = 1.7
    bounded = cap * np.tanh(np.float64(hidden) @ np.float64(table).T / cap)
    odds = np.exp(bounded)
    slope = odds / odds.sum(-1, keepdims=True) - np.eye(V)[targets]
    slope *= weights[:, None] * (1 - (bounded / cap) ** 2)

    value, (hidden_found, kernel_found) = gradients(
        lambda hidden, kernel: losses.head_loss(
            hidden, kernel, targets, weights, chunk=5, soft_cap=cap
        ),
        hidden,
        table,
    )
    exact = (weights * reference(bounded, targets, 0.0)).sum()
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    np.testing.assert_allclose(hidden_found, slope @ table, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel_found, slope.T @ hidden, rtol=1e-4, atol=1e-5)


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, -1e4, 0.0]], "float32")
    assert float(losses.token_losses(logits, [0])[0]) == 0.0
    assert float(losses.token_losses(logits, [1])[0]) == pytest.approx(2e4)


@pytest.mark.parametrize(
    "tokens, vocab", [(1_024, 50_257), (7_919, 50_257), (91, 10**6), (8, 5), (3, 2**26)]
)
def test_chunks_are_few_and_bound_the_logits(tokens, vocab):
    chunk = losses.chunk_tokens(tokens, vocab)
    assert chunk == 1 or chunk * vocab <= 2**25
    chunks = -(-tokens // chunk)
    assert chunks == 1 or chunk == 1 or tokens * vocab > (chunks - 1) * 2**25
    assert 0 < tokens - (chunks - 1) * chunk <= chunk  # What is left for the last.


def test_a_short_last_chunk_costs_what_it_holds(inputs):
    rows = []

    def counted(between):
        def call(logits, targets, weights):
            rows.append(logits.shape[0])
            return between(logits, targets, weights)

        return call

    hidden, table, targets, weights = inputs.values()
    losses.head_loss(hidden, table, targets, weights, chunk=5, fuse=counted)
    assert rows == [5, 5, 2]


@pytest.mark.parametrize("bad", [0, -1])
def test_a_chunk_of_no_tokens_is_refused(inputs, bad):
    with pytest.raises(ValueError, match=f"chunk={bad}"):
        losses.head_loss(*inputs.values(), chunk=bad)


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan")])
def test_label_smoothing_outside_its_range_is_refused(inputs, bad):
    with pytest.raises(ValueError, match="label_smoothing"):
        losses.token_losses(inputs["hidden"], inputs["targets"], bad)
