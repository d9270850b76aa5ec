"""Times training steps beside the machine's own peak."""

import statistics
import time
from typing import Any


def benchmark_train(
    dtypes: tuple[str, ...] = ("float32", "mixed_bfloat16"),
    rows: int = 4,
    context: int = 256,
    repeats: int = 5,
    jit: str = "auto",
    config: Any = None,
) -> list[dict[str, Any]]:
    """Times whole optimizer steps on random tokens.

    A step is the forward and backward pass, clipping and AdamW; two steps are not
    counted.

    Args:
        dtypes: Which arithmetic, as in `TrainConfig.dtype`.
        rows: Rows of the batch.
        context: Tokens of a row.
        repeats: Steps, of which the median is taken.
        jit: As in `TrainConfig.jit`.
        config: A model config; None for the shape of GPT-2 small.

    Returns:
        One dict per dtype: `name`, `tokens_per_second`, `milliseconds_per_step`,
        `peak_gigaflops` (a square product, measured just before) and `utilisation`,
        the share of it that the model's own operations reach.
    """
    from keras_llm import models, training

    if config is None:
        config = models.GPT2Config(vocab_size=50_257)
    figures = []
    for dtype in dtypes:
        peak = training.measure_peak_flops(dtype)
        train_config = training.TrainConfig(dtype=dtype, jit=jit)
        seconds = _median_seconds(config, train_config, rows, context, repeats)
        rate = rows * context / seconds
        flops = rate * models.flops_per_token(config, context)
        figures.append(
            {
                "name": f"train {dtype} {rows}x{context}",
                "tokens_per_second": rate,
                "milliseconds_per_step": 1e3 * seconds,
                "peak_gigaflops": peak / 1e9,
                "utilisation": flops / peak,
            }
        )
    return figures


def benchmark_train_t5(
    dtypes: tuple[str, ...] = ("float32", "mixed_bfloat16"),
    rows: int = 8,
    source: int = 128,
    target: int = 64,
    repeats: int = 5,
    jit: str = "auto",
    config: Any = None,
) -> list[dict[str, Any]]:
    """Times whole optimizer steps of an encoder-decoder, as `benchmark_train` does.

    Args:
        dtypes: As in `benchmark_train`, and so are `repeats` and `jit`.
        rows: Rows of the batch.
        source: Tokens that the encoder reads of each.
        target: Tokens that the decoder learns of each.
        repeats: Steps, of which the median is taken.
        jit: As in `TrainConfig.jit`.
        config: A `T5Config`; None for the shape of T5 v1.1 small.

    Returns:
        One dict per dtype: `name`, `tokens_per_second` (sources and targets) and
        `milliseconds_per_step`.
    """
    import keras
    import tensorflow as tf

    from keras_llm import models, training

    if config is None:
        config = models.T5Config(vocab_size=32_128)

    def ids(length):
        shape = (1, 1, rows, length)
        return tf.random.uniform(shape, 0, config.vocab_size, tf.int32)

    batch = {
        "source_ids": ids(source),
        "source_lengths": tf.fill((1, 1, rows), source),
        "token_ids": ids(target),
        "targets": ids(target),
        "weights": tf.ones((1, 1, rows, target)),
    }
    figures = []
    for dtype in dtypes:
        keras.utils.set_random_seed(0)
        train_config = training.TrainConfig(dtype=dtype, jit=jit)
        step = training.make_step(
            models.build(config, dtype),
            train_config,
            task=training.SequenceToSequence(),
        )
        seconds = _median_of_steps(step, batch, repeats)
        figures.append(
            {
                "name": f"train_t5 {dtype} {rows}x({source}+{target})",
                "tokens_per_second": rows * (source + target) / seconds,
                "milliseconds_per_step": 1e3 * seconds,
            }
        )
    return figures


def benchmark_adapter(
    dtypes: tuple[str, ...] = ("float32", "mixed_bfloat16"),
    rows: int = 4,
    context: int = 256,
    repeats: int = 5,
    jit: str = "auto",
    config: Any = None,
) -> list[dict[str, Any]]:
    """Times steps that learn an adapter alone: LoRA of rank 8 on every projection.

    Args:
        dtypes: As in `benchmark_train`, and so are the next four.
        rows: Rows of the batch.
        context: Tokens of a row.
        repeats: Steps.
        jit: How they are compiled.
        config: A model config; None for the shape of SmolLM2-135M.

    Returns:
        One dict per dtype: `name`, `tokens_per_second`, `milliseconds_per_step` and
        `peak_mebibytes`, the most that the process has held by then.
    """
    import re

    from keras_llm import models, training
    from keras_llm.configs import smollm2_135m

    if config is None:
        config = smollm2_135m.get_config().model.replace(vocab_size=49_152)
    figures = []
    for dtype in dtypes:
        train_config = training.TrainConfig(dtype=dtype, jit=jit)
        seconds = _median_seconds(
            config,
            train_config,
            rows,
            context,
            repeats,
            adapter=models.AdapterConfig(rank=8),
        )
        with open("/proc/self/status", encoding="ascii") as status:
            held = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        figures.append(
            {
                "name": f"adapter {dtype} {rows}x{context}",
                "tokens_per_second": rows * context / seconds,
                "milliseconds_per_step": 1e3 * seconds,
                "peak_mebibytes": int(held[1]) / 1024 if held else None,
            }
        )
    return figures


def _median_seconds(
    config, train_config, rows: int, context: int, repeats: int, adapter: Any = None
):
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_llm import models, training

    keras.utils.set_random_seed(0)
    model = models.build(config, train_config.dtype)
    if adapter is not None:
        models.add_adapter(model, adapter)
    step = training.make_step(model, train_config)
    ids = np.random.randint(0, config.vocab_size, (1, 1, rows, context + 1), "int32")
    batch = {
        "token_ids": tf.constant(ids[..., :-1]),
        "targets": tf.constant(ids[..., 1:]),
        "weights": tf.ones((1, 1, rows, context)),
    }
    return _median_of_steps(step, batch, repeats)


def _median_of_steps(step, batch, repeats):
    import numpy as np
    import tensorflow as tf

    seconds = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        loss = step.run(tf.constant(i, tf.int64), batch).loss.numpy()
        seconds.append(time.perf_counter() - start)
        if not np.isfinite(loss).all():
            raise RuntimeError(f"The loss of step {i} is {loss}: nothing was trained.")
    return statistics.median(seconds[2:])
