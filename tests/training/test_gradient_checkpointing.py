"""Blocks computed twice give the numbers of blocks computed once, and keep less."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models
from keras_llm.training import TrainConfig, make_step, tasks
from keras_llm.training.gradient_checkpointing import checkpoint_blocks
from keras_llm.training.replicas import Spreader

V, T, ROWS = 17, 11, 6
SIZES = {"vocab_size": V, "width": 12, "num_layers": 2, "dropout": 0.3}
HEADS = {"num_heads": 3, "max_positions": 19}
CONFIGS = {
    "gpt2": models.GPT2Config(**SIZES, **HEADS),
    "llama": models.LlamaConfig(**SIZES, **HEADS, key_value_heads=1, separator_id=0),
    "lstm": models.LSTMLMConfig(vocab_size=V, units=12, num_layers=2, dropout=0.3),
    "t5": models.T5Config(**SIZES, num_heads=3),
}


def batch(seed=3):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, V, (2, 1, ROWS, T)).astype("int32")
    lengths = rng.integers(1, T + 1, (2, 1, ROWS))
    return {
        "token_ids": ids,
        "targets": rng.integers(0, V, ids.shape).astype("int32"),
        "weights": (np.arange(T) < lengths[..., None]).astype("float32"),
        "source_ids": rng.integers(0, V, ids.shape).astype("int32"),
        "source_lengths": lengths.astype("int32"),
    }


def train(config, checkpointing, strategy=None, jit="off"):
    """Returns losses, norms and last weights of two steps."""
    strategy = strategy or tf.distribute.get_strategy()
    task = tasks.LanguageModel()
    given = batch()
    if config.architecture == "t5":
        task = tasks.SequenceToSequence()
    else:
        given = {name: given[name] for name in ("token_ids", "targets", "weights")}
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = models.build(config)
    train_config = TrainConfig(
        jit=jit,
        # Adam would blow up the last bits of a gradient that is all but zero.
        optimizer="sgd",
        learning_rate=0.1,
        gradient_checkpointing=checkpointing,
    )
    step = make_step(model, train_config, strategy, ROWS, task)
    spread = Spreader(strategy, ROWS)
    result = step.run(tf.constant(0, tf.int64), spread(given, axis=2))
    weights = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    return [np.asarray(result.loss), np.asarray(result.gradient_norm), *weights]


def assert_same(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["gpt2", "lstm", "t5"])
def test_two_steps_are_those_of_blocks_computed_once(name):
    once = train(CONFIGS[name], False)
    assert_same(train(CONFIGS[name], True), once)


def test_compiled_steps_are_the_same_and_the_masks_matter():
    config = CONFIGS["gpt2"]
    once = train(config, False, jit="full")
    assert_same(train(config, True, jit="full"), once)
    without = train(config.replace(dropout=0.0), True)
    assert abs(without[0][0] - once[0][0]) > 1e-3


def test_replicas_are_the_same_and_draw_masks_of_their_own(two_replicas):
    config = CONFIGS["llama"]
    found = train(config, True, two_replicas)
    assert_same(found, train(config, False, two_replicas))
    assert abs(found[0][0] - train(config, True)[0][0]) > 1e-4


def test_the_gradient_reads_no_inner_value_of_a_block():
    """What the backward pass takes from the forward one: without, tensors of the
    feed-forward's width of every block."""

    def wide_tensors(checkpointing):
        config = CONFIGS["gpt2"].replace(dropout=0.0)
        model = models.build(config)
        if checkpointing:
            assert checkpoint_blocks(model) == 2
        trunk, _ = models.split_head(model)

        @tf.function
        def gradient(ids):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(trunk(ids, training=True) ** 2)
            boundary = len(tf.compat.v1.get_default_graph().get_operations())
            tape.gradient(loss, model.trainable_variables[0].value)
            return tf.constant(boundary)

        graph = gradient.get_concrete_function(tf.TensorSpec((ROWS, T), tf.int32))
        boundary = int(graph(tf.zeros((ROWS, T), tf.int32)))
        operations = graph.graph.get_operations()
        forward = {op.name for op in operations[:boundary]}
        kept = {
            tensor.name: tensor
            for op in operations[boundary:]
            for tensor in op.inputs
            if tensor.op.name in forward
        }
        wide = 4 * config.width
        return sum(t.shape.rank == 3 and t.shape[-1] == wide for t in kept.values())

    assert wide_tensors(False) >= 2
    assert wide_tensors(True) == 0


def test_a_model_without_blocks_is_refused():
    inputs = keras.Input([3])
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="plain")
    with pytest.raises(ValueError, match="must have some. Received: `plain`"):
        checkpoint_blocks(model)
