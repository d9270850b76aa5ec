r"""Measures speed: `benchmark.py SUBJECT`.

Subjects are adapter, decode, encode, length, lstm, pretrained, tokenize, train and
train_t5.

Figures are medians over repeated runs (of tokenizing, the best pass). A peer can be
measured beside them: --peer='COMMAND' is run before and after, and what it prints is
shown.

Example: python scripts/benchmark.py decode \
    --peer='python benchmarks/peer_transformers.py decode'
"""

import json
import os
import platform
import shlex
import subprocess
import sys

from absl import app, flags

from keras_llm.commands import _table

SUBJECTS = (
    "adapter",
    "decode",
    "encode",
    "length",
    "lstm",
    "pretrained",
    "tokenize",
    "train",
    "train_t5",
)

_PEER = flags.DEFINE_multi_string(
    "peer", [], "Command to run before and after, for comparison; may be repeated."
)
_PLOT = flags.DEFINE_string(
    "plot", None, "Of `length`: file to draw the times to, such as length.png."
)
_MODEL = flags.DEFINE_string(
    "model", None, "Of `pretrained`: the model folder, such as an imported one."
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")


def main(argv: list[str]) -> None:
    """Measures one subject and prints a table."""
    if len(argv) != 2 or argv[1] not in SUBJECTS:
        raise app.UsageError(f"Name one of {', '.join(SUBJECTS)}: {argv[1:]}.")
    if (argv[1] == "pretrained") != (_MODEL.value is not None):
        raise app.UsageError(
            f"--model is for `pretrained`, which needs it: {argv[1]}, {_MODEL.value}."
        )
    before = [_run_peer(command) for command in _PEER.value]
    rows = _measure(argv[1])
    after = [_run_peer(command) for command in _PEER.value]
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    if _JSON.value:
        peers = {
            command: {"before": first, "after": second}
            for command, first, second in zip(_PEER.value, before, after, strict=True)
        }
        print(json.dumps({"machine": machine, "rows": rows, "peers": peers}))
        return
    print(f"{machine['processor']}, {machine['cores']} cores")
    print(_table.table(rows))
    for command, first, second in zip(_PEER.value, before, after, strict=True):
        print(
            f"\n{command}\n  before:\n{_indented(first)}\n  after:\n{_indented(second)}"
        )


def _measure(subject: str) -> list[dict]:
    if subject == "adapter":
        from keras_llm.commands._bench_train import benchmark_adapter

        return benchmark_adapter()
    if subject == "decode":
        from keras_llm.commands._bench_decode import benchmark_decode

        return benchmark_decode()
    if subject == "encode":
        from keras_llm.commands._bench_encode import benchmark_encode

        return benchmark_encode()
    if subject == "length":
        from keras_llm.commands._bench_length import benchmark_length

        return benchmark_length(plot=_PLOT.value)
    if subject == "lstm":
        from keras_llm.commands._bench_lstm import benchmark_lstm

        return benchmark_lstm()
    if subject == "pretrained":
        from keras_llm.commands._bench_pretrained import benchmark_pretrained

        return benchmark_pretrained(str(_MODEL.value))
    if subject == "tokenize":
        from keras_llm.commands._bench_tokenize import benchmark_tokenize

        return benchmark_tokenize()
    from keras_llm.commands._bench_train import benchmark_train, benchmark_train_t5

    return benchmark_train() if subject == "train" else benchmark_train_t5()


def _run_peer(command: str) -> list[str]:
    """Returns what a peer's command printed; its failure is shown, not hidden."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return [*done.stdout.splitlines(), f"(ended with status {done.returncode})"]
    return done.stdout.splitlines()


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line for line in file if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
