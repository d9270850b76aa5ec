"""Times KerasHub on TensorFlow at the shape of GPT-2 small, to measure beside.

Runs in the project's environment: KerasHub comes with `keras-nlp`. Nothing is
downloaded: weights and tokens are random.

`decode` times the greedy `generate` of `GPT2CausalLM`, prompt included, which stops for
no token; `train` its `train_on_batch` with AdamW, without clipping. Each runs with and
without `jit_compile` (bfloat16 without, where it is faster). Figures are medians of
tokens a second; a first call, or the first three steps, are not counted. Flags change
the sizes.

Example: python benchmarks/peer_keras_hub.py train
"""

import argparse
import os
import statistics
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402


def build(sizes):
    """Returns a GPT-2 with random weights that takes ids."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=sizes.vocabulary,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        hidden_dim=sizes.width,
        intermediate_dim=4 * sizes.width,
        dropout=sizes.dropout,
        max_sequence_length=sizes.positions,
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def median_rate(call, tokens, repeats, uncounted):
    """Returns the median of tokens a second over calls after the first few."""
    seconds = []
    for _ in range(uncounted + repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return tokens / statistics.median(seconds[uncounted:])


def decode(sizes):
    """Prints the rate of greedy decoding, compiled and not, by batch."""
    model = build(sizes)
    length = sizes.prompt_tokens + sizes.new_tokens
    is_prompt = np.arange(length) < sizes.prompt_tokens
    for jit in (True, False):
        model.compile(sampler="greedy", jit_compile=jit)
        for batch in (1, 8):
            request = {
                "token_ids": random_ids(sizes, batch, length),
                "padding_mask": np.tile(is_prompt, (batch, 1)).astype("int32"),
            }

            def generate(request=request):
                model.generate(request, stop_token_ids=None)

            tokens = batch * sizes.new_tokens
            rate = median_rate(generate, tokens, sizes.repeats, uncounted=1)
            print(f"decode jit={jit} batch={batch}: {rate:.1f} tok/s", flush=True)


def train(sizes):
    """Prints the rate of training steps by arithmetic and compilation."""
    ids = random_ids(sizes, sizes.rows, sizes.context)
    targets = random_ids(sizes, sizes.rows, sizes.context)
    rows = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    for policy, jit in (
        ("float32", True),
        ("float32", False),
        ("mixed_bfloat16", False),
    ):
        keras.config.set_dtype_policy(policy)
        model = build(sizes)
        model.compile(
            optimizer=keras.optimizers.AdamW(1e-4),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
        )

        def step(model=model):
            model.train_on_batch(rows, targets)

        rate = median_rate(step, ids.size, sizes.repeats, uncounted=3)
        print(f"train {policy} jit={jit}: {rate:.1f} tok/s", flush=True)


def random_ids(sizes, rows, length):
    """Returns int32 [rows, length]."""
    return np.random.randint(sizes.vocabulary, size=(rows, length), dtype="int32")


def main():
    """Reads the flags and times one subject."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("subject", choices=("decode", "train"))
    flags.add_argument("--vocabulary", type=int, default=50_257)
    flags.add_argument("--positions", type=int, default=1_024)
    flags.add_argument("--width", type=int, default=768)
    flags.add_argument("--layers", type=int, default=12)
    flags.add_argument("--heads", type=int, default=12)
    flags.add_argument("--dropout", type=float, default=0.0)
    flags.add_argument("--prompt_tokens", type=int, default=32)
    flags.add_argument("--new_tokens", type=int, default=64)
    flags.add_argument("--rows", type=int, default=4)
    flags.add_argument("--context", type=int, default=256)
    flags.add_argument("--repeats", type=int, default=5)
    sizes = flags.parse_args()
    {"decode": decode, "train": train}[sizes.subject](sizes)


if __name__ == "__main__":
    main()
