r"""Tells what a run will take, before it is begun: memory, arithmetic and time.

Nothing of the model's size is made to find out, so a model of any size can be planned
anywhere. Where a few steps fit and are short they are run as well, to measure the
speed; --nomeasure leaves that out.

Any field of the config can be set by its dotted name, as in `train`.

Example: python scripts/plan.py --config=keras_llm/configs/gpt2_small.py \
    --data.batch_size=4 --data.context=256 --train.accumulation=1
"""

import dataclasses
import json
import pathlib
import resource

from absl import app, flags

from keras_llm.commands import _overrides, _table

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
    "Text of the run, where its task or its vocabulary depends on it.",
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Tokenizer folder, if the run has one."
)
_REPLICAS = flags.DEFINE_integer(
    "replicas", 1, "Devices that share each micro-batch.", lower_bound=1
)
_MEMORY_GIB = flags.DEFINE_float(
    "memory_gib",
    None,
    "Memory of a device, if the run is for another; by default what is free here.",
    lower_bound=0.0,
)
_MEASURE = flags.DEFINE_bool("measure", True, "Run a few steps where they are short.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object.")

# Measured, see docs/training.md: what the pool of memory holds beyond what is in use,
# and what compiled programs and TensorFlow's own tables take once it runs.
_GAPS = 0.35
_PROGRAMS = 370 * 2**20
_SECONDS = 30.0  # The steps that are measured may take so long by the peak.
_STEPS = 5  # Two to compile, three to time.


def main(argv: list[str]) -> None:
    """Plans the run and prints what came out."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    from keras_llm import tokenizers, training
    from keras_llm.core import override

    experiment = override(training.load_config(_CONFIG.value), _overrides.given)
    tokenizer = tokenizers.load(_TOKENIZER.value) if _TOKENIZER.value else None
    experiment, batch = training.prepare_plan(experiment, _TRAIN_TEXT.value, tokenizer)
    plan = training.plan(experiment, batch, _REPLICAS.value)
    figures = {**dataclasses.asdict(plan), "total_bytes": plan.total_bytes}
    figures |= _memory(plan)
    figures |= _time(plan, experiment, batch, figures["fits"])
    if not figures["fits"] and not experiment.train.gradient_checkpointing:
        train = experiment.train.replace(gradient_checkpointing=True)
        less = training.plan(experiment.replace(train=train), batch, _REPLICAS.value)
        figures["with_gradient_checkpointing"] = _memory(less)["needed_bytes"]
    print(json.dumps(figures) if _JSON.value else _described(figures, experiment))


def _memory(plan) -> dict:
    """Returns what the run needs of a device, and what there is."""
    import tensorflow as tf

    runtime = _own_bytes() + _PROGRAMS
    needed = round(runtime + (1 + _GAPS) * plan.total_bytes)
    if not tf.config.list_physical_devices("GPU"):  # Else the host has room for it.
        needed += plan.checkpoint_bytes
    there = _free_bytes()
    if _MEMORY_GIB.value is not None:
        there = round(_MEMORY_GIB.value * 2**30)
    return {
        "runtime_bytes": runtime,
        "needed_bytes": needed,
        "free_bytes": there,
        "fits": needed <= there,
    }


def _free_bytes() -> int:
    """Returns the bytes that processes can have, and this one has."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.split()
        if name == "MemAvailable:":
            free = int(value) * 1024
    free += _own_bytes()
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()))
    return free


def _own_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _time(plan, experiment, batch, fits: bool) -> dict:
    """Returns how long a step takes: at least, and as measured if that was short."""
    from keras_llm import training

    peak = training.measure_peak_flops(experiment.train.dtype)
    least = plan.tokens_per_step * plan.flops_per_token / peak
    figures = {"peak_flops": peak, "least_seconds_per_step": least}
    short = _STEPS * least < _SECONDS
    if _MEASURE.value and short and fits and _REPLICAS.value == 1:
        seconds = training.measure_step(experiment, batch, _STEPS - 2)
        figures["seconds_per_step"] = seconds
        figures["tokens_per_second"] = plan.tokens_per_step / seconds
    return figures


def _described(figures: dict, experiment) -> str:
    train, data = experiment.train, experiment.data
    memory = {
        "weights": figures["weight_bytes"],
        f"{train.optimizer}'s slots": figures["slot_bytes"],
        "gradients": figures["gradient_bytes"],
        "their sums over micro-batches": figures["sum_bytes"],
        "activations": figures["activation_bytes"],
        "all of these": figures["total_bytes"],
        "TensorFlow itself": figures["runtime_bytes"],
        f"gaps between them, {_GAPS:.0%}": round(_GAPS * figures["total_bytes"]),
        "a copy for a checkpoint": figures["checkpoint_bytes"],
        "needed": figures["needed_bytes"],
        "there is": figures["free_bytes"],
    }
    rows = [
        {"memory": name, "MiB": round(value / 2**20)}
        for name, value in memory.items()
        if value
    ]
    tokens, flops = figures["tokens_per_step"], figures["flops_per_token"]
    lines = [
        f"{experiment.model.architecture}, {figures['parameters']:,} parameters, "
        f"task {experiment.task.kind}, {train.dtype}",
        "",
        _table.table(rows),
        "",
        _fit(figures),
        f"A step: {data.batch_size} rows"
        f"{f', {train.accumulation} times' if train.accumulation > 1 else ''}, "
        f"{tokens:,} tokens; {flops / 1e9:,.3g} GFLOP a token, "
        f"{tokens * flops / 1e12:,.3g} TFLOP a step.",
        f"Products reach {figures['peak_flops'] / 1e9:,.0f} GFLOP/s here: at best "
        f"{tokens / figures['least_seconds_per_step']:,.0f} tokens/s, "
        f"{_duration(train.steps * figures['least_seconds_per_step'])} for all "
        f"{train.steps:,} steps.",
    ]
    if "seconds_per_step" in figures:
        share = figures["least_seconds_per_step"] / figures["seconds_per_step"]
        lines.append(
            f"Measured: {figures['tokens_per_second']:,.0f} tokens/s ({share:.0%} of "
            f"the best), {_duration(train.steps * figures['seconds_per_step'])} for "
            "all steps."
        )
    else:
        lines.append("Not measured: run it where it is to train, or a shorter step.")
    return "\n".join(lines)


def _fit(figures: dict) -> str:
    if figures["fits"]:
        return "It fits."
    short = figures["needed_bytes"] - figures["free_bytes"]
    if short <= figures["checkpoint_bytes"]:
        return "It fits with --train.save_in_background=False alone."
    text = "It does not fit. Fewer rows a micro-batch and more micro-batches need less"
    less = figures.get("with_gradient_checkpointing")
    if less is None:
        return f"{text}."
    return (
        f"{text}; with --train.gradient_checkpointing=True it needs "
        f"{round(less / 2**20):,} MiB."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
