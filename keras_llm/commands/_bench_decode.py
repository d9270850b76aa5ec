"""Times decoding from exported SavedModels."""

import pathlib
import statistics
import tempfile
import time
from typing import Any

from keras_llm.commands import _repository


def benchmark_decode(
    batches: tuple[int, ...] = (1, 8),
    prompt_tokens: int = 32,
    new_tokens: int = 64,
    repeats: int = 5,
    jit: tuple[bool, ...] = (False, True),
    config: Any = None,
) -> list[dict[str, Any]]:
    """Exports a model with random weights, loads the SavedModel and times it.

    What is timed is the signature `generate_ids`, greedy, prompt included, after
    one call that is not counted.

    Args:
        batches: Rows per call.
        prompt_tokens: Tokens of each prompt.
        new_tokens: Tokens generated per row.
        repeats: Calls, of which the median is taken.
        jit: Which exports: stock, compiled by XLA.
        config: A model config, decoded with the byte tokenizer; None for the shape
            of GPT-2 small with the vocabulary of GPT-2.

    Returns:
        One dict per export and batch: `name`, `tokens_per_second`,
        `milliseconds_per_step` and `gigabytes_per_second`, the weights' bytes times
        steps per second.
    """
    import tensorflow as tf

    from keras_llm import export, models, tokenizers

    tokenizer: tokenizers.Tokenizer = tokenizers.ByteTokenizer()
    if config is None:
        tokenizer = tokenizers.ByteBPETokenizer.from_gpt2_files(
            _repository.test_file("gpt2/encoder.json"),
            _repository.test_file("gpt2/vocab.bpe"),
        )
        config = models.GPT2Config(vocab_size=tokenizer.vocab_size)
    model = models.build(config, "float32")
    weight_bytes = 4 * models.count_parameters(model)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for compiled in jit:
            out = pathlib.Path(folder) / str(int(compiled) + 1)
            export.export(model, tokenizer, out, compiled, verify=False)
            served = tf.saved_model.load(out)
            for batch in batches:
                call = _request(served, batch, prompt_tokens, new_tokens)
                seconds = _median_seconds(call, repeats)
                rows.append(
                    {
                        "name": f"decode jit={compiled} batch={batch}",
                        "tokens_per_second": batch * new_tokens / seconds,
                        "milliseconds_per_step": 1e3 * seconds / new_tokens,
                        "gigabytes_per_second": weight_bytes
                        * new_tokens
                        / seconds
                        / 1e9,
                    }
                )
    return rows


def _request(served, batch, prompt_tokens, new_tokens):
    """Returns a function that generates `new_tokens` for every row."""
    import tensorflow as tf

    from keras_llm.generation import parameters as parameters_lib

    knobs = parameters_lib.make(batch, max_new_tokens=new_tokens)._asdict()
    ids = tf.random.stateless_uniform([batch, prompt_tokens], [1, 2], 0, 256, tf.int32)
    lengths = tf.fill([batch], prompt_tokens)

    def call():
        answer = served.signatures["generate_ids"](
            token_ids=ids, lengths=lengths, **knobs
        )
        written = int(tf.reduce_min(answer["num_tokens"]))
        if written != new_tokens:
            raise RuntimeError(
                f"A row ended after {written} of {new_tokens} tokens: the figure "
                "would be wrong. Use another seed."
            )

    return call


def _median_seconds(call, repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
