"""Times layers and the text VAE by the length of the rows: what grows how fast."""

import statistics
import time
from typing import Any

LENGTHS = (32, 64, 128, 256, 512, 1_024)


def benchmark_length(
    lengths: tuple[int, ...] = LENGTHS,
    rows: int = 4,
    width: int = 256,
    repeats: int = 5,
    plot: str | None = None,
) -> list[dict[str, Any]]:
    """Times forward and backward passes over rows of each length, without XLA.

    Args:
        lengths: Tokens of a row.
        rows: Rows of the batch.
        width: Of every layer, a multiple of 4.
        repeats: Calls, of which the median is taken; two more are not counted.
        plot: A file to draw the milliseconds by length to; None for none.

    Returns:
        One dict per length: `length`, and the milliseconds of each subject.

    Raises:
        RuntimeError: There is something to draw, and matplotlib is not installed.
    """
    subjects = _subjects(width, max(lengths))
    figures = [
        {
            "length": length,
            **{
                f"{name}_ms": _milliseconds(run, rows, length, repeats)
                for name, run in subjects.items()
            },
        }
        for length in lengths
    ]
    if plot is not None:
        _draw(figures, plot)
    return figures


def _subjects(width, longest):
    """Returns, by name, what makes random input of a length, and what runs on it."""
    import keras
    import tensorflow as tf

    from keras_llm import layers, models

    keras.utils.set_random_seed(0)
    whole = {
        "attention": layers.MultiHeadAttention(4),
        "feed_forward": layers.FeedForward(4 * width),
        "mixture_of_experts": layers.MixtureOfExperts(8, 4 * width),
        "lstm": layers.LSTM(width, return_sequences=True),
    }
    sizes = {"vocab_size": 2_048, "latent_dim": 16, "width": width, "num_heads": 4}
    vaes = {
        "vae_lstm": models.TextVAEConfig(**sizes, num_layers=1),
        "vae_transformer": models.TextVAEConfig(
            **sizes,
            num_layers=1,
            encoder="transformer",
            decoder="transformer",
            max_positions=longest,
        ),
    }

    def of_layer(layer):
        def made(rows, length):
            return tf.random.normal([rows, length, width])

        return made, lambda x: layer(x, training=True)

    def of_vae(config):
        model = models.build(config)

        def made(rows, length):
            ids = tf.random.uniform([rows, length], 0, config.vocab_size, tf.int32)
            lengths = tf.fill([rows], length)
            return {"source_ids": ids, "source_lengths": lengths, "token_ids": ids}

        return made, lambda x: model(x, training=True)["logits"]

    return {
        **{name: of_layer(layer) for name, layer in whole.items()},
        **{name: of_vae(config) for name, config in vaes.items()},
    }


def _milliseconds(subject, rows, length, repeats):
    import tensorflow as tf

    make, call = subject
    inputs = make(rows, length)
    call(inputs)  # Makes the weights, before a graph is traced.

    @tf.function(autograph=False)
    def run(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(inputs) ** 2)
        return [
            tf.reduce_sum(tf.convert_to_tensor(gradient))
            for gradient in tape.gradient(loss, tape.watched_variables())
        ]

    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        for value in run(inputs):
            value.numpy()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[2:])


def _draw(figures, plot):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError(
            "A plot needs matplotlib. Received: "
            f"--plot={plot}. Install it: pip install 'keras_llm[plot]'."
        ) from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xlabel="tokens of a row",
        ylabel="milliseconds, forward and backward",
        xscale="log",
        yscale="log",
    )
    lengths = [row["length"] for row in figures]
    for name in figures[0]:
        if name != "length":
            times = [row[name] for row in figures]
            axes.plot(lengths, times, marker="o", label=name.removesuffix("_ms"))
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(plot, dpi=120, format="png")
