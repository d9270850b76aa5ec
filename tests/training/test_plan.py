"""What a run takes, from symbols alone, against hand counts and against real steps."""

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models, training
from keras_llm.data import DataConfig
from keras_llm.training.live_bytes import peak_bytes

SIZES = {"vocab_size": 101, "width": 20, "num_layers": 3, "num_heads": 5}


def experiment(**options):
    options = {"optimizer": "adamw", **options}
    return training.Experiment(
        model=models.GPT2Config(**SIZES, max_positions=32),
        data=DataConfig(context=13, batch_size=6),
        train=training.TrainConfig(**options),
    )


def plan(replicas=1, **options):
    return training.plan(*training.prepare_plan(experiment(**options)), replicas)


def test_peak_of_a_chain_is_counted_by_hand():
    """x, y, z of 4 x 6, 4 x 10 and 4 x 2 floats; y and z are the most at a time,
    unless x is read again at the end."""

    def chain(again):
        with tf.Graph().as_default() as graph:
            a = tf.compat.v1.placeholder(tf.float32, (4, 3))
            x = tf.matmul(a, tf.compat.v1.placeholder(tf.float32, (3, 6)))
            y = tf.matmul(x, tf.compat.v1.placeholder(tf.float32, (6, 10)))
            shifted = tf.reshape(tf.tanh(y) * 2.0, (10, 4))  # In place, in place.
            z = tf.matmul(
                shifted, tf.compat.v1.placeholder(tf.float32, (10, 2)), transpose_a=True
            )
            if again:
                tf.matmul(x, z, transpose_a=True)
            made = [op for op in graph.get_operations() if op.type != "Placeholder"]
            return peak_bytes(made)

    x, y, z = 4 * 6 * 4, 4 * 10 * 4, 4 * 2 * 4
    assert chain(again=False) == x + y
    assert chain(again=True) == x + y + z


def test_what_is_kept_lives_to_the_end():
    with tf.Graph().as_default() as graph:
        a = tf.compat.v1.placeholder(tf.float64, (7, 11))
        parts = [tf.matmul(a, a, transpose_b=True) for _ in range(3)]
        made = graph.get_operations()[1:]
    assert peak_bytes(made) == 8 * 7 * 7
    assert peak_bytes(made, parts[:2]) == 8 * 7 * 7 * 3


def test_unknown_shapes_are_refused():
    with tf.Graph().as_default() as graph:
        a = tf.compat.v1.placeholder(tf.float32, (None, 3))
        tf.matmul(a, a, transpose_b=True)
        with pytest.raises(ValueError, match="Give every input its sizes"):
            peak_bytes(graph.get_operations()[1:])


def test_weights_and_slots_are_those_of_a_model_that_was_made():
    model = models.build(experiment().model)
    values = sum(int(np.prod(weight.shape)) for weight in model.weights)
    found = plan()
    assert found.parameters == values
    assert found.weight_bytes == found.gradient_bytes == 4 * values
    assert found.slot_bytes == 8 * values
    assert found.sum_bytes == 0
    assert plan(optimizer="sgd", momentum=0.0).slot_bytes == 0
    assert plan(optimizer="lion", ema_decay=0.9).slot_bytes == 8 * values
    several = plan(accumulation=3)
    assert several.sum_bytes == 4 * values
    assert several.tokens_per_step == 3 * found.tokens_per_step == 3 * 6 * 13


def test_activations_grow_with_rows_and_shrink_by_checkpointing():
    whole, third = plan(), plan(replicas=3)
    beside_gradients = [p.activation_bytes + p.gradient_bytes for p in (whole, third)]
    assert 2.0 < beside_gradients[0] / beside_gradients[1] <= 3.0
    assert plan(gradient_checkpointing=True).activation_bytes < (
        0.6 * whole.activation_bytes
    )


def test_activations_hold_what_the_formula_says():
    """Korthikanti et al. 2022, eq. 1: 34 D + 5 N T bytes a token and layer in 16 bits;
    twice that in float32, here without dropout's masks and with GELU's own values."""
    slope = [
        training.plan(
            *training.prepare_plan(
                experiment().replace(
                    model=models.GPT2Config(
                        **{**SIZES, "num_layers": layers}, max_positions=32
                    )
                )
            )
        ).activation_bytes
        for layers in (4, 12)
    ]
    per_layer = (slope[1] - slope[0]) / 8
    formula = 2 * 6 * 13 * (34 * 20 + 5 * 5 * 13)
    assert 0.6 * formula < per_layer < 1.4 * formula


def test_a_model_far_beyond_memory_is_planned():
    large = experiment().replace(
        model=models.GPT2Config(
            vocab_size=100_000, width=80_000, num_layers=2, num_heads=80
        )
    )
    found = training.plan(*training.prepare_plan(large))
    assert found.parameters > 1.5e11
    assert found.total_bytes > 16 * 1.5e11


def test_measured_steps_are_real_ones():
    made, batch = training.prepare_plan(experiment(accumulation=2, jit="off"))
    assert training.measure_step(made, batch, steps=1) > 0


@pytest.mark.parametrize(
    ("change", "replicas", "reason"),
    [
        ({}, 4, "6, 4 replicas"),
        ({"task": training.MaskedLanguageModel()}, 1, "without any. Give --train_text"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, replicas, reason):
    with pytest.raises(ValueError, match=reason):
        training.plan(*training.prepare_plan(experiment().replace(**change)), replicas)


def test_a_vocabulary_that_text_decides_needs_text(tmp_path):
    made = experiment().replace(
        model=models.GPT2Config(**{**SIZES, "vocab_size": 0}, max_positions=32),
        tokenizer=training.TokenizerConfig(kind="character"),
    )
    with pytest.raises(ValueError, match="Give --train_text"):
        training.prepare_plan(made)
    path = tmp_path / "text.txt"
    path.write_text("abcabd" * 200)
    filled, batch = training.prepare_plan(made, path)
    assert filled.model.vocab_size == 4 + 2  # Unknown and end beside the letters.
    assert batch["token_ids"].shape == (6, 13)
