r"""Trains a language model from text.

Everything goes into the run folder: checkpoints, metrics.jsonl, TensorBoard events
and the model folders `best` and `last`. Ended by SIGTERM or Ctrl-C it saves first;
`--resume` goes on exactly where the newest checkpoint stands.

Any field of the config can be set by its dotted name: --train.steps=100,
--model.width=256, --data.batch_size=8.

Example: python scripts/train.py --config=keras_llm/configs/quickstart.py \
    --train_text=testdata/moby_dick.txt --run_dir=runs/whale
"""

import json
import sys

from absl import app, flags

from keras_llm.commands import _overrides

parse_flags = _overrides.parse_flags

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Python file whose get_config() returns an Experiment.",
    required=True,
)
_TRAIN_TEXT = flags.DEFINE_multi_string(
    "train_text",
    None,
    "File, folder, glob or prepared folder to learn from; may be repeated.",
    required=True,
)
_VALID_TEXT = flags.DEFINE_multi_string(
    "valid_text", None, "Text to validate on; by default a share of --train_text."
)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Run folder.", required=True)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    None,
    "Tokenizer folder. By default a prepared folder brings its own, and one is trained "
    "from other text.",
)
_INIT = flags.DEFINE_string(
    "init",
    None,
    "Model folder to start from: its tokenizer and, wherever they fit, its weights.",
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on with the run in --run_dir; begin it if there is none."
)
_STRATEGY = flags.DEFINE_string(
    "strategy",
    "auto",
    "auto, one, mirrored, multi_worker or tpu; auto takes what the machine, TF_CONFIG, "
    "Slurm, TPU_NAME or --worker_hosts say.",
)
_CPU_REPLICAS = flags.DEFINE_integer(
    "cpu_replicas", 1, "Split the CPU into so many devices, to try replicas."
)
_WORKER_HOSTS = flags.DEFINE_list(
    "worker_hosts", [], "host:port of every worker, the same list at each."
)
_TASK_INDEX = flags.DEFINE_integer(
    "task_index", None, "This worker's place in --worker_hosts, from 0."
)
_START_TIMEOUT_S = flags.DEFINE_float(
    "start_timeout_s", 600.0, "How long the other workers are waited for.", 1.0
)
_PROGRESS = flags.DEFINE_bool("progress", True, "Draw a progress bar.")
_JSON = flags.DEFINE_bool("json", False, "Print the summary as JSON.")


def main(argv: list[str]) -> None:
    """Trains, then prints how it went."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --train_text='corpus/*'."
        )
    from keras_llm import tokenizers, training
    from keras_llm.core import override

    try:
        # Before anything else of TensorFlow: it fixes the devices.
        strategy = training.choose_strategy(
            _STRATEGY.value,
            _CPU_REPLICAS.value,
            _WORKER_HOSTS.value,
            _TASK_INDEX.value,
            start_timeout_s=_START_TIMEOUT_S.value,
        )
        experiment = override(training.load_config(_CONFIG.value), _overrides.given)
        tokenizer = tokenizers.load(_TOKENIZER.value) if _TOKENIZER.value else None
        summary = training.train(
            experiment,
            _TRAIN_TEXT.value,
            _VALID_TEXT.value,
            _RUN_DIR.value,
            resume=_RESUME.value,
            tokenizer=tokenizer,
            progress=_PROGRESS.value,
            strategy=strategy,
            init=_INIT.value,
        )
    except training.Preempted as error:
        print(error, file=sys.stderr)
        sys.exit(training.EXIT_CODE)
    except training.LostWorkerError as error:
        print(error, file=sys.stderr)
        sys.exit(training.LOST_WORKER)
    except KeyboardInterrupt as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(130)
    except training.NonFiniteError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if not training.workers(strategy).is_chief:
        return  # Of one run there is one summary.
    print(
        json.dumps(summary.to_dict(), allow_nan=False)
        if _JSON.value
        else _described(summary)
    )


def _described(summary) -> str:
    lines = [
        f"{summary.step:,} steps, {summary.tokens:,} tokens, "
        f"{summary.parameters:,} parameters, {summary.seconds:.0f} s with compiling, "
        "evaluations and checkpoints"
    ]
    if summary.tokens_per_second:  # Not where nothing was left to train.
        lines[0] += f"; {summary.tokens_per_second:,.0f} tokens/s without"
    if summary.stopped_by == "patience":
        lines[0] += "; stopped early: no new best for long enough"
    if summary.utilisation is not None:
        lines.append(
            f"utilisation: {summary.utilisation:.0%} of the measured peak; "
            f"{summary.bound_by}-bound: making batches took {summary.input_share:.1%} "
            "of the time"
        )
    if summary.reduction is not None:
        lines.append(f"reduction: {summary.reduction.describe()}")
    if summary.validation is not None:
        lines.append(f"validation: {summary.validation.describe()}")
    if summary.best_loss is not None:
        lines.append(
            f"best: loss {summary.best_loss:.4f} after step "
            f"{summary.best_step:,}, in {_RUN_DIR.value}/best"
        )
    if summary.bad_steps:
        lines.append(f"{summary.bad_steps} step(s) left out: NaN or infinity")
    return "\n".join([*lines, *summary.notes])
