"""Each trainer feature apart, on one device, two replicas and two workers.

A small GPT-2 is trained for 50 steps on rows of unlike numbers of real tokens, once
with each feature and on each layout. What is printed is how far losses, gradient norms
and validation losses of the layouts lie from one device's at most, and how far the
feature itself moved the losses, so that one that did nothing shows. Beyond its bound a
row ends the command with status 1. Tests do the features together
(tests/training/test_workers.py).

Example: python benchmarks/equality.py
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm.commands._table import table
from keras_llm.commands.launch import free_addresses, tf_config
from keras_llm.core import read_metrics

STEPS = 50
LAYOUTS = ("one", "replicas", "workers")
BOUND = 1e-5
# A key's bias moves no attention: its gradient is rounding noise, which AdamW's epsilon
# damps and Adafactor, whose own is 1e-30, takes for a signal.
ADAFACTOR_ON_NOISE = "Adafactor, key biases learnt"
# In bfloat16, sums in another order are rounded to eight bits.
LOOSER = {"mixed bfloat16": 2e-2, ADAFACTOR_ON_NOISE: 2e-2}
# Changes of the train config beside the base, by feature; the base is AdamW alone.
FEATURES = {
    "AdamW alone": {},
    "clipping": {"clip_norm": 0.3},
    "accumulation": {"accumulation": 3},
    "averaged weights": {"ema_decay": 0.9},
    "label smoothing": {"label_smoothing": 0.1},
    "warm-up, linear": {"warmup_steps": 5, "schedule": "linear"},
    "inverse square root": {"warmup_steps": 5, "schedule": "inverse_sqrt"},
    "warm-up, stable, decay": {
        "warmup_steps": 5,
        "schedule": "warmup_stable_decay",
        "decay_steps": 20,
    },
    "Adafactor, key biases frozen": {
        "optimizer": "adafactor",
        "freeze": "query_key_value/bias",
    },
    ADAFACTOR_ON_NOISE: {"optimizer": "adafactor"},
    "Lion": {"optimizer": "lion", "learning_rate": 1e-3},
    "SGD, momentum, Nesterov": {
        "optimizer": "sgd",
        "nesterov": True,
        "learning_rate": 0.1,
    },
    "relative rates": {"relative_rate": True, "learning_rate": 0.02},
    "rates by layer": {"layer_decay": 0.7},
    "frozen blocks": {"freeze": r"^block_"},
    "gradient checkpointing": {"gradient_checkpointing": True},
    # A call ends where a line is due: all other rows take one step a call.
    "ten steps a call": {"log_every": 10},
    "XLA between products": {"jit": "parts"},
    "XLA over a step": {"jit": "full"},
    "mixed bfloat16": {"dtype": "mixed_bfloat16"},
}


def train(layout: str, names: list[str], folder: pathlib.Path) -> None:
    """Trains with each feature in turn; the run folders are `folder`/layout/NUMBER."""
    from keras_llm import data, models, training

    cpu_replicas = 2 if layout == "replicas" else 1
    strategy = training.choose_strategy("auto", cpu_replicas)
    base = {"clip_norm": None, "jit": "off", "learning_rate": 1e-2}
    watched = {"log_every": 1, "eval_every": 25, "save_every": 0}
    for name in names:
        experiment = training.Experiment(
            model=models.GPT2Config(
                width=16, num_layers=2, num_heads=2, max_positions=24, dropout=0.0
            ),
            tokenizer=training.TokenizerConfig(kind="character"),
            data=data.DataConfig(context=23, batch_size=4),
            train=training.TrainConfig(
                **{"steps": STEPS, **base, **watched, **FEATURES[name]}
            ),
        )
        training.train(
            experiment,
            folder / "text.txt",
            folder / "text.txt",
            run_folder(folder, layout, name),
            strategy=strategy,
            progress=False,
        )


def run_folder(folder: pathlib.Path, layout: str, name: str) -> pathlib.Path:
    """Returns where a feature's run on a layout lies."""
    return folder / layout / str([*FEATURES].index(name))


def start(layout: str, names: list[str], folder: pathlib.Path) -> None:
    """Runs a layout to its end, in processes of its own.

    Raises:
        subprocess.CalledProcessError: One of them failed.
    """
    hosts = free_addresses(2) if layout == "workers" else [""]
    command = [sys.executable, __file__, f"--layout={layout}", f"--folder={folder}"]
    one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    workers = []
    for place in range(len(hosts)):
        environment = os.environ | one
        if len(hosts) > 1:
            environment["TF_CONFIG"] = tf_config(place, hosts)
        arguments = [*command, "--features", *names]
        workers.append(subprocess.Popen(arguments, env=environment))
    for worker in workers:
        if worker.wait():
            raise subprocess.CalledProcessError(worker.returncode, command)


def compared(folder: pathlib.Path, name: str) -> dict[str, object]:
    """Returns a feature's row: distances of the layouts, and what the feature did."""
    plain, one, *others = (
        lines(run_folder(folder, layout, which))
        for layout, which in (
            ("one", "AdamW alone"),
            *((layout, name) for layout in LAYOUTS),
        )
    )
    row: dict[str, object] = {"feature": name}
    for layout, other in zip(LAYOUTS[1:], others, strict=True):
        row[f"{layout}: loss"] = distance(one, other, "loss")
        row[f"{layout}: validation"] = distance(one, other, "valid_loss")
        row[f"{layout}: norm"] = distance(one, other, "gradient_norm")
    row["moved by"] = max(distance(plain, one, n) for n in ("loss", "valid_loss"))
    row["last"] = one["valid_loss"][STEPS]
    return row


def lines(run_dir: pathlib.Path) -> dict[str, dict[int, float]]:
    """Returns each figure by the steps that it was logged for, the last among them."""
    logged = [*read_metrics(run_dir / "metrics.jsonl")]
    found = {
        name: {line["step"]: line[name] for line in logged if name in line}
        for name in ("loss", "gradient_norm", "valid_loss")
    }
    if not all(STEPS in by_step for by_step in found.values()):
        raise SystemExit(f"{run_dir} has no figures of its last step.")
    return found


def distance(first, second, figure: str) -> float:
    """Returns the largest difference of a figure over the steps that both logged."""
    shared = first[figure].keys() & second[figure].keys()
    return max(abs(first[figure][step] - second[figure][step]) for step in shared)


def main() -> int:
    """Runs the layouts, prints the table; returns 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=[*FEATURES])
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = list(dict.fromkeys(["AdamW alone", *given.features]))
    if given.layout:
        train(given.layout, names, given.folder)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        text = [f"{'tick tock ' * (i % 7)}line {i} of a text\n\n" for i in range(150)]
        (folder / "text.txt").write_text("".join(text))
        for layout in LAYOUTS:
            start(layout, names, folder)
        rows = [compared(folder, feature) for feature in names]
    print(table(rows))
    far = [row["feature"] for row in rows if not is_equal(row)]
    if far:
        print(f"Beyond their bounds: {', '.join(map(str, far))}.")
    return int(bool(far))


def is_equal(row: dict[str, object]) -> bool:
    """Returns whether a row's layouts lie within the feature's bound."""
    bound = LOOSER.get(str(row["feature"]), BOUND)
    far = [value for name, value in row.items() if ": " in name]
    return len(far) == 6 and all(value <= bound for value in far)


if __name__ == "__main__":
    sys.exit(main())
