"""What the training engine costs around the step: workers, checkpoints, input.

`workers` trains one config as one process on all cores and as two workers that share
them, in turns, and compares tokens a second; the reduction's part is counted.
`checkpoints` times saves of a model and its optimizer against the steps between two
saves at the default interval: what a save takes where the steps wait for it, and what
it adds to the steps that go on while it is written. `input`
times batches from a prepared folder against the speed at which the fastest shipped
config takes them. Every figure is a median.

Example: python benchmarks/engine.py workers checkpoints input
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

ROOT = pathlib.Path(__file__).parents[1]
TEXT = ROOT / "testdata" / "moby_dick.txt"
CONFIGS = ROOT / "keras_llm" / "configs"
TURNS = 3
SAVES = 5


def train(folder: pathlib.Path, workers: int, *words: str) -> float:
    """Returns the tokens a second of a run, compilation left out."""
    launch = ["launch", f"--workers={workers}", "--"] if workers > 1 else []
    command = [sys.executable, "-m", "keras_llm.commands", *launch, "train"]
    # A short validation text: it is judged once, at the end, and not timed.
    valid = folder.with_name("valid.txt")
    valid.write_text(TEXT.read_text("utf-8")[:4_000])
    command += [f"--train_text={TEXT}", f"--valid_text={valid}", f"--run_dir={folder}"]
    command += ["--noprogress", "--train.eval_every=0", "--train.save_every=0"]
    subprocess.run([*command, *words], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    speeds = [json.loads(line).get("tokens_per_second") for line in lines]
    return statistics.median([speed for speed in speeds if speed][1:])


def workers(scratch: pathlib.Path) -> dict:
    """Compares one process with two workers on the same cores."""
    words = [f"--config={CONFIGS / 'quickstart.py'}", "--train.steps=60"]
    words += ["--train.log_every=5"]
    found: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(TURNS):
        for number, speeds in found.items():
            speeds.append(train(scratch / f"{number}_{turn}", number, *words))
            print(f"  {number} process(es): {speeds[-1]:,.0f} tokens/s", flush=True)
    one, two = (statistics.median(found[number]) for number in (1, 2))
    last = json.loads((scratch / f"2_{TURNS - 1}" / "summary.json").read_text("utf-8"))
    reduction, tokens_a_step = last["reduction"], last["tokens"] / last["step"]
    return {
        "one process": one,
        "two workers": two,
        "share": two / one,
        "MiB reduced a step": reduction["num_bytes"] / 2**20,
        "share of a step": reduction["seconds"] * two / tokens_a_step,
    }


def checkpoints(scratch: pathlib.Path) -> dict:
    """Times saves of GPT-2 small with its optimizer, and the steps between two."""
    import numpy as np
    import tensorflow as tf

    from keras_llm import models, training
    from keras_llm.training.checkpoints import named_arrays
    from keras_llm.training.saver import Saver

    experiment = training.load_config(str(CONFIGS / "gpt2_small.py"))
    config = experiment.train.replace(accumulation=1, dtype="float32")
    data = experiment.data.replace(batch_size=4, context=256)
    experiment = experiment.replace(train=config, data=data)
    experiment, batch = training.prepare_plan(experiment)
    model = models.build(experiment.model)
    step = training.make_step(model, config)
    arrays = named_arrays(model, step.optimizer, step.state)
    batches = {name: tf.constant(value[None, None]) for name, value in batch.items()}
    folder = training.Checkpoints(scratch / "checkpoints", 3)

    def seconds_of(work) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    def take_step() -> None:
        np.asarray(step.run(tf.constant(0, tf.int64), batches).loss)

    def save(saver, number) -> None:
        saver.save(arrays, training.RunState(step=number, validation_sha256=""))

    waiting, beside = Saver(folder, False), Saver(folder, True)
    steps = [seconds_of(take_step) for _ in range(SAVES + 2)][2:]
    a_step = statistics.median(steps)
    stopped, added = [], []
    for i in range(SAVES):
        stopped.append(seconds_of(lambda i=i: save(waiting, 2 * i)))
        begun, taken = time.perf_counter(), 0
        save(beside, 2 * i + 1)
        while beside.is_writing:
            take_step()
            taken += 1
        added.append(time.perf_counter() - begun - taken * a_step)
        beside.wait()  # It raises what failed.
    stops, adds = statistics.median(stopped), statistics.median(added)
    between = training.TrainConfig().save_every * a_step
    return {
        "seconds a step": a_step,
        "seconds a save, waited for": stops,
        "share, waited for": stops / between,
        "seconds a save adds in the background": adds,
        "share in the background": adds / between,
    }


def input_speed(scratch: pathlib.Path) -> dict:
    """Times batches of a prepared folder, and the training that takes them."""
    from keras_llm import data, tokenizers

    tokenizer = tokenizers.ByteTokenizer()
    data.prepare(TEXT, tokenizer, scratch / "tokens", data.TextConfig())
    config = data.DataConfig(context=64, batch_size=12)
    batches = data.training_batches(scratch / "tokens", tokenizer, config)
    speeds = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(100):
            next(batches)
        speeds.append(100 * 64 * 12 / (time.perf_counter() - begun))
    words = [f"--config={CONFIGS / 'tinyshakespeare.py'}", "--train.steps=400"]
    taken = train(scratch / "taken", 1, *words)
    given = statistics.median(speeds)
    return {"tokens/s given": given, "tokens/s taken": taken, "times": given / taken}


SUBJECTS = {"workers": workers, "checkpoints": checkpoints, "input": input_speed}


def main() -> None:
    """Measures what is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subjects", nargs="+", choices=SUBJECTS)
    for subject in parser.parse_args().subjects:
        with tempfile.TemporaryDirectory() as scratch:
            figures = SUBJECTS[subject](pathlib.Path(scratch))
        print(f"{subject}: {json.dumps({k: round(v, 4) for k, v in figures.items()})}")


if __name__ == "__main__":
    main()
