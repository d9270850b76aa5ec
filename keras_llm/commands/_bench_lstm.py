"""Times the LSTM layer beside Keras' own: forward and backward, one process."""

import statistics
import time
from typing import Any

# (batch, steps, units): the target's size first, then down to the smallest.
SIZES = (
    (64, 128, 1_024),
    (16, 64, 512),
    (32, 64, 256),
    (64, 64, 128),
    (8, 256, 128),
    (16, 32, 32),
    (1, 64, 64),
    (1, 8, 32),
)


def benchmark_lstm(
    sizes=SIZES, rounds: int = 7, jit: bool = False, masked: bool = False, dtype=None
) -> list[dict[str, Any]]:
    """Measures forward plus backward of both layers, turn and turn about.

    Args:
        sizes: (batch, steps, units) of each case; inputs are as wide as the units.
        rounds: Timed runs of each layer per case, after one that compiles. Short
            cases repeat within a round.
        jit: Whether both run under XLA.
        masked: Whether both are given right-padded rows.
        dtype: Policy of both layers; None for Keras' global policy.

    Returns:
        One dict per size: the case; the median milliseconds of each and the median
        over the rounds of Keras' time divided by ours; and the same of each one's
        best round, which other work on the machine disturbs less.
    """
    return [_case(size, rounds, jit, masked, dtype) for size in sizes]


def _case(size, rounds, jit, masked, dtype):
    import keras

    from keras_llm.layers import LSTM

    batch, steps, units = size
    theirs = keras.layers.LSTM(units, return_sequences=True, dtype=dtype)
    ours = LSTM(units, return_sequences=True, dtype=dtype)
    runs = {
        "keras": _forward_backward(theirs, size, jit, masked),
        "keras_llm": _forward_backward(ours, size, jit, masked),
    }
    ours.set_weights(theirs.get_weights())
    first = min(_seconds(run, 1) for run in runs.values())  # Traced already.
    repeats = max(1, int(0.05 / first))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in sorted(runs, reverse=bool(turn % 2)):
            times[name].append(_seconds(runs[name], repeats))
    theirs_s, ours_s = times["keras"], times["keras_llm"]
    return {
        "batch": batch,
        "steps": steps,
        "units": units,
        "jit": jit,
        "masked": masked,
        "keras_ms": 1e3 * statistics.median(theirs_s),
        "keras_llm_ms": 1e3 * statistics.median(ours_s),
        "ratio": statistics.median(
            a / b for a, b in zip(theirs_s, ours_s, strict=True)
        ),
        "best_keras_ms": 1e3 * min(theirs_s),
        "best_keras_llm_ms": 1e3 * min(ours_s),
        "best_ratio": min(theirs_s) / min(ours_s),
    }


def _forward_backward(layer, size, jit, masked):
    """Returns a function that runs the layer and its gradients once."""
    import numpy as np
    import tensorflow as tf

    batch, steps, units = size
    rng = np.random.default_rng(0)
    shape = (batch, steps, units)
    x = tf.constant(rng.normal(size=shape).astype("float32"))
    upstream = tf.constant(rng.normal(size=shape).astype("float32"))
    lengths = rng.integers(1, steps + 1, size=(batch, 1))
    mask = tf.constant(np.arange(steps)[None] < lengths) if masked else None
    layer.build(shape)
    weights = [weight.value for weight in layer.trainable_variables]

    @tf.function(jit_compile=jit, autograph=False)
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, mask=mask, training=True), "float32")
            loss = tf.reduce_sum(y * upstream)
        return tape.gradient(loss, [x, *weights])

    def once():
        return run(x, upstream)[-1].numpy()

    once()
    return once


def _seconds(run, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - begin) / repeats
