"""Times the forward pass of an encoder, as an export runs it."""

import statistics
import time
from typing import Any


def benchmark_encode(
    dtypes: tuple[str, ...] = ("float32", "mixed_bfloat16"),
    rows: int = 8,
    context: int = 128,
    repeats: int = 9,
    config: Any = None,
) -> list[dict[str, Any]]:
    """Times the hidden states of a batch of full rows, without XLA.

    Args:
        dtypes: Which arithmetic.
        rows: Rows of the batch.
        context: Tokens of a row.
        repeats: Calls, of which the median is taken; two more are not counted.
        config: A `BertConfig`; None for the shape of BERT base.

    Returns:
        One dict per dtype: `name`, `tokens_per_second`, `milliseconds`.
    """
    import tensorflow as tf

    from keras_llm import models

    if config is None:
        config = models.BertConfig(vocab_size=30_522)
    ids = tf.random.uniform([rows, context], 0, config.vocab_size, tf.int32)
    inputs = {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "lengths": tf.fill([rows], context),
    }
    figures = []
    for dtype in dtypes:
        trunk, _ = models.split_head(models.build(config, dtype))
        run = tf.function(trunk, autograph=False)
        seconds = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            hidden = run(inputs).numpy()
            seconds.append(time.perf_counter() - start)
        if hidden.shape != (rows, context, config.width):
            raise RuntimeError(f"Hidden states of {hidden.shape}: nothing was timed.")
        middle = statistics.median(seconds[2:])
        figures.append(
            {
                "name": f"encode {dtype} {rows}x{context}",
                "tokens_per_second": rows * context / middle,
                "milliseconds": 1e3 * middle,
            }
        )
    return figures
