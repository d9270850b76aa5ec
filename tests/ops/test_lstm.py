"""The recurrence and its hand-written gradient against a differentiated loop."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm.ops import lstm, lstm_gradient

B, D, U = 3, 5, 7
EVERYTHING = ("dropout", "mask", "keep", "norms")
CASES = [(), *((name,) for name in EVERYTHING), EVERYTHING[:3], EVERYTHING]
# With 2 steps a turn of the loop: two turns, one turn, three short turns, one step.
LENGTHS = (4, 2, 3, 1)
SEQUENCES = [
    *((LENGTHS[0], given) for given in CASES),
    *((length, EVERYTHING) for length in LENGTHS[1:]),
]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(lstm_gradient, "_MAX_STEPS_A_TURN", 2)


def problem(length, given, seed=0):
    """Returns the float arguments by name, float32."""
    rng = np.random.default_rng(seed)
    values = {
        "xz": rng.normal(size=(length, B, 4 * U)),
        "recurrent": 0.5 * rng.normal(size=(U, 4 * U)),
        "h": rng.normal(size=(B, U)),
        "c": rng.normal(size=(B, U)),
        "recurrent_scale": 1 + 0.2 * rng.normal(size=4 * U),
        "cell_scale": 1 + 0.2 * rng.normal(size=U),
        "cell_bias": 0.2 * rng.normal(size=U),
        "dropout": 2.0 * (rng.random((B, U)) > 0.5),
        "mask": rng.random((length, B, 1)) > 0.3,
        "keep": rng.random((length, B, 1)) > 0.2,
    }
    names = ["xz", "recurrent", "h", "c"]
    if "norms" in given:
        names += ["recurrent_scale", "cell_scale", "cell_bias"]
    names += [name for name in ("dropout", "mask", "keep") if name in given]
    return {name: values[name].astype("float32") for name in names}


def call(run, v):
    """Calls `lstm.run` or `run_trainable` with a problem's values."""
    norms = None
    if "cell_bias" in v:
        scales = (v["recurrent_scale"], v["cell_scale"], v["cell_bias"])
        norms = lstm.Norms(*scales, 1e-3)
    masks = (v.get("dropout"), v.get("mask"), v.get("keep"))
    return run(v["xz"], (v["h"], v["c"]), v["recurrent"], norms, *masks)


def plain_loop(v, xp=ops):
    """The same by a Python loop of single formulas, one gate at a time.

    `xp` is `keras.ops`, to be differentiated, or NumPy, for float64.
    """

    def norm(a, scale):
        mean = xp.mean(a, -1, keepdims=True)
        variance = xp.mean((a - mean) ** 2, -1, keepdims=True)
        return (a - mean) / xp.sqrt(variance + 1e-3) * scale

    h, c, outputs = v["h"], v["c"], []
    for t in range(v["xz"].shape[0]):
        if "keep" in v:
            h, c = h * v["keep"][t], c * v["keep"][t]
        a = xp.matmul(h * v.get("dropout", 1.0), v["recurrent"])
        if "cell_bias" in v:
            a = norm(a, v["recurrent_scale"])
        z = a + v["xz"][t]
        i, f, g, o = (z[:, n * U : (n + 1) * U] for n in range(4))
        new_c = c / (1 + xp.exp(-f)) + xp.tanh(g) / (1 + xp.exp(-i))
        shown = new_c
        if "cell_bias" in v:
            shown = norm(new_c, v["cell_scale"]) + v["cell_bias"]
        new_h = xp.tanh(shown) / (1 + xp.exp(-o))
        m = v["mask"][t] if "mask" in v else 1.0
        h, c = m * new_h + (1 - m) * h, m * new_c + (1 - m) * c
        outputs.append(h)
    return xp.stack(outputs), h, c


def gradients(function, values, compiled=False):
    """Returns d function / d each of `values`, by the backend's own means."""
    if keras.config.backend() == "jax":
        import jax

        run = jax.grad(function, argnums=range(len(values)))
        run = jax.jit(run)  # Op by op, JAX would compile each op alone.
        return [np.asarray(value) for value in run(*values)]
    import tensorflow as tf

    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = function(*tensors)
        return tape.gradient(loss, tensors)

    if compiled:
        run = tf.function(run, jit_compile=True, autograph=False)
    return [np.asarray(value) for value in run(*map(tf.constant, values))]


def weighted_sum(outputs, seed=1):
    """Returns a scalar in which every output has a weight of its own."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=tuple(out.shape)).astype("float32") for out in outputs]
    return sum(ops.sum(out * w) for out, w in zip(outputs, weights, strict=True))


@pytest.mark.parametrize(("length", "given"), SEQUENCES, ids=str)
@pytest.mark.parametrize("run", [lstm.run, lstm_gradient.run_trainable])
def test_outputs_are_those_of_a_plain_loop(run, length, given):
    v = problem(length, given)
    exact = plain_loop({name: x.astype("float64") for name, x in v.items()}, np)
    for ours, expected in zip(call(run, v), exact, strict=True):
        np.testing.assert_allclose(np.asarray(ours), expected, atol=1e-5)


def check_gradients(length, given, compiled):
    v = problem(length, given)
    wanted = [name for name in v if name not in ("dropout", "mask", "keep")]

    def loss(run):
        def of(*values):
            return weighted_sum(run({**v, **dict(zip(wanted, values, strict=True))}))

        return of

    values = [v[name] for name in wanted]
    expected = gradients(loss(plain_loop), values)
    ours = gradients(
        loss(lambda v: call(lstm_gradient.run_trainable, v)), values, compiled
    )
    for name, a, b in zip(wanted, ours, expected, strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, atol=2e-5 * scale, err_msg=name)


@pytest.mark.parametrize(("length", "given"), SEQUENCES, ids=str)
def test_gradients_are_those_of_a_plain_loop(length, given):
    check_gradients(length, given, compiled=False)


@pytest.mark.parametrize("given", [(), EVERYTHING], ids="+".join)
def test_gradients_compiled(given):
    check_gradients(LENGTHS[0], given, compiled=True)


def test_turns_fit_the_sequence_and_the_cache():
    steps = lstm_gradient._steps_a_turn
    assert [steps(length, 2, 8) for length in (1, 2, 3, 4, 9)] == [1, 2, 1, 2, 1]
    assert steps(6, 64, 2**16) == 1  # A single step's gates fill the cache.
    assert steps(0, 2, 8) == steps(None, 2, 8) == 1


def test_projection_and_its_gradient():
    rng = np.random.default_rng(0)
    shapes = ((11, B, D), (D, 4 * U), (4 * U,))
    values = [rng.normal(size=shape).astype("float32") for shape in shapes]
    x, kernel, bias = values
    ours = np.asarray(lstm_gradient.project(*values))
    np.testing.assert_allclose(ours, np.dot(x, kernel) + bias, atol=1e-5)

    weight = np.random.default_rng(1).normal(size=ours.shape).astype("float32")
    found = gradients(lambda *v: ops.sum(lstm_gradient.project(*v) * weight), values)
    np.testing.assert_allclose(found[0], weight @ kernel.T, atol=1e-5)
    np.testing.assert_allclose(found[1], np.einsum("tbd,tbg->dg", x, weight), atol=1e-4)
    np.testing.assert_allclose(found[2], weight.sum((0, 1)), atol=1e-5)
