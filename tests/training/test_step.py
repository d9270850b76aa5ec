import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models
from keras_llm.ops import losses
from keras_llm.training import Optimizer, TrainConfig, TrainStep, objective
from keras_llm.training.objective import training_loss
from keras_llm.training.replicas import Spreader
from tests.eager_functions import op_by_op
from tests.training.conftest import small_model

V, T = 13, 7


def batches(rng, steps, micro_batches, rows):
    """Returns S x K x R x T batches with a different number of real tokens each."""
    shape = (steps, micro_batches, rows, T)
    lengths = rng.integers(1, T + 1, shape[:-1])
    return {
        "token_ids": rng.integers(0, V, shape).astype("int32"),
        "targets": rng.integers(0, V, shape).astype("int32"),
        "weights": (np.arange(T) < lengths[..., None]).astype("float32"),
    }


def run(batch, strategy=None, jit="off", model_seed=0, dropout=0.0, **options):
    """Trains a small model on S steps and returns results and weights."""
    strategy = strategy or tf.distribute.get_strategy()
    steps, micro_batches, rows, _ = batch["weights"].shape
    options = {"steps": 100, "learning_rate": 0.01, "clip_norm": 0.3, **options}
    config = TrainConfig(accumulation=micro_batches, **options)
    with strategy.scope():
        model = small_model(V, model_seed, dropout)
        optimizer = Optimizer(model.trainable_variables, config)
    step = TrainStep(strategy, model, optimizer, config, training_loss(model), jit)
    spread = Spreader(strategy, rows)
    results = step.run(tf.constant(0, tf.int64), spread(batch, axis=2))
    weights = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    return [np.asarray(value) for value in results], weights, step


def assert_same(one, other, tolerance=1e-5):
    for a, b in zip(one[0] + one[1], other[0] + other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_norm_and_clipping_equal_float64_numpy(eagerly):
    rng = np.random.default_rng(0)
    batch = batches(rng, 1, 1, 5)
    # Frequent repeats: an embedding's gradient then comes with rows to be added.
    batch["token_ids"] %= 3
    model = small_model(V, dtype="float64")
    model.set_weights(small_model(V).get_weights())
    start = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    one = {name: value[0, 0] for name, value in batch.items()}
    with tf.GradientTape() as tape:
        each = losses.token_losses(model(one["token_ids"]), one["targets"])
        loss = tf.reduce_sum(each * one["weights"]) / one["weights"].sum()
    gradients = tape.gradient(loss, [w.value for w in model.trainable_variables])
    gradients = [np.array(tf.convert_to_tensor(g)) for g in gradients]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    clip = 0.25 * norm
    # With epsilon far above the gradients, AdamW's first step is rate / epsilon * g.
    (losses_S, norm_S, *_), weights, _ = run(
        batch,
        clip_norm=clip,
        epsilon=1e4,
        weight_decay=0.0,
        learning_rate=1e4,
        schedule="constant",
    )
    assert losses_S[0] == pytest.approx(float(loss), rel=1e-5)
    assert norm_S[0] == pytest.approx(norm, rel=1e-5)
    for before, gradient, after in zip(start, gradients, weights, strict=True):
        wanted = before - gradient * clip / norm
        np.testing.assert_allclose(after, wanted, rtol=1e-4, atol=1e-6)


def test_bounded_logits_are_learnt_from_some_tokens_at_a_time():
    config = models.GemmaConfig(
        vocab_size=V, width=12, num_heads=3, num_layers=1, logit_soft_cap=0.7
    )
    model = models.build(config)
    rows = batches(np.random.default_rng(4), 1, 1, 5)
    batch = {name: value[0, 0] for name, value in rows.items()}
    weights = [weight.value for weight in model.trainable_variables]
    found = []
    for loss in (objective.training_loss(model), objective.logits_loss(model)):
        with tf.GradientTape() as tape:
            value = loss(batch, 0)
        slopes = tape.gradient(value, weights)
        found.append([value, *map(tf.convert_to_tensor, slopes)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def plain():
    """Returns 3 steps on 8 rows at once, and their results, taken op by op."""
    batch = batches(np.random.default_rng(1), 3, 1, 8)
    with op_by_op():
        return batch, run(batch)


@pytest.mark.parametrize("jit", ["off", "parts"])
def test_accumulation_equals_one_large_batch(plain, jit):
    batch, wanted = plain
    split = {n: v.reshape(3, 4, 2, T) for n, v in batch.items()}
    assert_same(run(split, jit=jit), wanted)


def test_two_replicas_equal_one(two_replicas):
    batch = batches(np.random.default_rng(2), 6, 3, 4)
    options = {"ema_decay": 0.9, "label_smoothing": 0.1}
    with op_by_op():
        one = run(batch, **options)
    two = run(batch, two_replicas, **options)
    assert_same(one, two)
    averages = zip(
        one[2].optimizer.slots["average"],
        two[2].optimizer.slots["average"],
        strict=True,
    )
    for a, b in averages:
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


@pytest.mark.parametrize("jit", ["parts", "full"])
def test_compiled_replicas_equal_plain_ones(two_replicas, plain, jit):
    batch, wanted = plain
    assert_same(wanted, run(batch, two_replicas, jit=jit))


def test_whole_compiled_steps_equal_plain_ones(plain):
    batch, wanted = plain
    assert_same(wanted, run(batch, jit="full"))


def test_several_steps_a_call_equal_single_calls():
    batch = batches(np.random.default_rng(5), 4, 1, 3)
    together = run(batch, dropout=0.3)
    config = TrainConfig(steps=100, learning_rate=0.01, clip_norm=0.3)
    model = small_model(V, 0, 0.3)
    optimizer = Optimizer(model.trainable_variables, config)
    step = TrainStep(
        tf.distribute.get_strategy(), model, optimizer, config, training_loss(model)
    )
    singly = []
    for i in range(4):
        one = {n: tf.constant(v[i : i + 1]) for n, v in batch.items()}
        singly.append(float(step.run(tf.constant(i, tf.int64), one).loss[0]))
    np.testing.assert_array_equal(np.float32(singly), together[0][0])


def test_replicas_drop_different_places(two_replicas):
    rng = np.random.default_rng(6)
    batch = batches(rng, 1, 1, 1)
    twice = {n: np.repeat(v, 2, axis=2) for n, v in batch.items()}
    one = run(batch, dropout=0.5)
    two = run(twice, two_replicas, dropout=0.5)
    # Same rows, same dropout would give the very same mean gradient.
    assert abs(one[0][1][0] - two[0][1][0]) > 1e-4


def test_bad_steps_change_nothing_and_are_counted(eagerly):
    rng = np.random.default_rng(7)
    batch = batches(rng, 3, 1, 2)
    batch["weights"][1, 0, 0, 0] = np.nan
    skipped = run(batch, clip_norm=None, schedule="constant")
    kept = {n: v[[0, 2]] for n, v in batch.items()}
    without = run(kept, clip_norm=None, schedule="constant")
    assert skipped[0][4].tolist() == [True, False, True]
    for a, b in zip(skipped[1], without[1], strict=True):
        assert a.tobytes() == b.tobytes()
    assert int(skipped[2].optimizer.updates) == 2
    assert int(skipped[2].bad_in_a_row) == 0


def test_nothing_is_accepted_after_too_many_bad_steps():
    batch = batches(np.random.default_rng(8), 5, 1, 2)
    batch["weights"][1:3] = np.inf
    results, _, step = run(batch, max_bad_steps=2)
    assert results[4].tolist() == [True, False, False, False, False]
    assert int(step.bad_in_a_row) >= 2


def test_a_step_without_real_tokens_is_harmless(eagerly):
    batch = batches(np.random.default_rng(9), 1, 1, 2)
    batch["weights"][:] = 0
    results, weights, _ = run(batch, weight_decay=0.0)
    assert results[0][0] == 0 and results[4][0]
    for weight in weights:
        assert np.isfinite(weight).all()


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_trace_serves_any_number_of_steps(two_replicas, replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    config = TrainConfig()
    with strategy.scope():
        model = small_model(V)
        optimizer = Optimizer(model.trainable_variables, config)
    loss, traces = training_loss(model), []

    def counted(batch, step):
        traces.append(batch)
        return loss(batch, step)

    step = TrainStep(strategy, model, optimizer, config, counted)
    spread, rng = Spreader(strategy, 4), np.random.default_rng(10)
    for steps in (1, 3, 2, 1):
        batch = spread(batches(rng, steps, 1, 4), axis=2)
        assert step.run(tf.constant(0, tf.int64), batch).loss.shape == (steps,)
    assert len(traces) == replicas


def test_what_runs_op_by_op_is_not_traced_beside(eagerly):
    model, config, steps = small_model(V), TrainConfig(jit="off"), []
    loss, strategy = training_loss(model), tf.distribute.get_strategy()

    def counted(batch, step):
        steps.append(int(step))
        return loss(batch, step)

    optimizer = Optimizer(model.trainable_variables, config)
    step = TrainStep(strategy, model, optimizer, config, counted)
    batch = batches(np.random.default_rng(11), 2, 1, 4)
    step.run(tf.constant(5, tf.int64), Spreader(strategy, 4)(batch, axis=2))
    assert steps == [5, 6]
