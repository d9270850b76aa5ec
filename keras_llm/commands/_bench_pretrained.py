"""Times an exported pretrained model as a server sees it: strings apart, ids in."""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from keras_llm.commands import _repository

# The process that is measured imports TensorFlow alone, as a server holds no Keras.
_SERVED = """
import json, re, statistics, sys, time
import tensorflow as tf

given = json.loads(sys.argv[1])
start = time.perf_counter()
served = tf.saved_model.load(given["folder"])
load_seconds = time.perf_counter() - start
generate = served.signatures["generate_ids"]
specs = generate.structured_input_signature[1]


def seconds(rows, tokens):
    knobs = {**given["knobs"], "max_new_tokens": tokens}
    knobs |= {"lengths": len(rows[0])}
    inputs = {
        name: tf.fill([len(rows)], tf.cast(value, specs[name].dtype))
        for name, value in knobs.items()
    }
    inputs["token_ids"] = tf.constant(rows)
    taken = []
    for _ in range(1 + given["repeats"]):
        start = time.perf_counter()
        written = generate(**inputs)["num_tokens"].numpy()
        taken.append(time.perf_counter() - start)
        if min(written) != tokens:
            raise SystemExit(f"A row ended after {min(written)} of {tokens} tokens.")
    return statistics.median(taken[1:])


answer = {"load_seconds": load_seconds, "prompt": seconds([given["prompt"]], 1)}
for batch, rows in given["rows"].items():
    answer[batch] = seconds(rows, given["new_tokens"])
# Not from getrusage, which counts what the parent held when it forked.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
answer["peak_mebibytes"] = int(peak[1]) / 1024
print(json.dumps(answer))
"""


WAYS: tuple[dict[str, Any], ...] = (
    {"dtype": "float32"},
    {"dtype": "float32", "jit": True},
    {"dtype": "float32", "quantize": "int8"},
    {"dtype": "bfloat16"},
)


def benchmark_pretrained(
    model_folder: str,
    batches: tuple[int, ...] = (1, 8),
    prompt_tokens: int = 32,
    long_prompt_tokens: int = 512,
    new_tokens: int = 64,
    repeats: int = 5,
    ways: tuple[dict[str, Any], ...] = WAYS,
) -> list[dict[str, Any]]:
    """Exports a model folder in several ways and times each in a process of its own.

    Greedy `generate_ids` after stretches of Moby-Dick, prompt included, and the first
    token after a long prompt. One call of each kind is not counted.

    Args:
        model_folder: A language model with its tokenizer.
        batches: Rows per call.
        prompt_tokens: Tokens of each prompt.
        long_prompt_tokens: Tokens of the long one.
        new_tokens: Tokens generated per row.
        repeats: Calls, of which the median is taken.
        ways: The exports, each by its arguments of `export.from_model_folder`.

    Returns:
        One dict an export: `name`, `megabytes` of its weights, tokens a second by
        batch, `prompt_tokens_per_second` and `first_token_milliseconds` of the long
        prompt, `load_seconds`, and `peak_mebibytes` of the process.

    Raises:
        RuntimeError: A row ended early, so that the figure would be wrong.
    """
    from keras_llm import export, models
    from keras_llm.generation import parameters

    tokenizer = models.load_tokenizer(model_folder)
    text = _repository.test_file("moby_dick.txt").read_text("utf-8")
    ids = tokenizer.encode(text).numpy().tolist()
    request = {
        "knobs": parameters.DEFAULTS,
        "prompt": ids[:long_prompt_tokens],
        "rows": {
            batch: [ids[900 * i :][:prompt_tokens] for i in range(batch)]
            for batch in batches
        },
        "new_tokens": new_tokens,
        "repeats": repeats,
    }
    rows = []
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "1"
            export.from_model_folder(model_folder, out, verify=False, **way)
            size = sum(path.stat().st_size for path in out.rglob("*.data-*"))
            answer = _served({**request, "folder": str(out)})
        names = ["jit" if value is True else str(value) for value in way.values()]
        row: dict[str, Any] = {"name": " ".join(names)}
        row["megabytes"] = size / 1e6
        for batch in batches:
            rate = batch * new_tokens / answer[str(batch)]
            row[f"tokens_per_second_batch_{batch}"] = rate
        row["prompt_tokens_per_second"] = long_prompt_tokens / answer["prompt"]
        row["first_token_milliseconds"] = 1e3 * answer["prompt"]
        row["load_seconds"] = answer["load_seconds"]
        row["peak_mebibytes"] = answer["peak_mebibytes"]
        rows.append(row)
    return rows


def _served(request: dict[str, Any]) -> dict[str, float]:
    """Returns what the measured process printed."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVED, json.dumps(request)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"The measured process failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
