"""Records what a run came to, as docs/results/NAME.json, from its run folder.

The figures are the run's own: those of its best model on the validation data, out of
metrics.jsonl, or with --metrics those that `scripts/evaluate.py --json` printed. So are
steps, seconds, seed and parameters. What no folder knows is given: the question, where
the data come from, the command, the machine.

Example: python benchmarks/record_result.py --run_dir=runs/whale --name=whale
    --what="What does a small GPT learn from one book?" --data="Moby-Dick, 1.2 MB"
    --config=keras_llm/configs/quickstart.py --machine="2 cores of an AMD EPYC"
    --command="python scripts/train.py --config=... --run_dir=runs/whale"
Then: python docs/make_results.py
"""

import argparse
import json
import math
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm import models
from keras_llm.training import read_metrics

ROOT = pathlib.Path(__file__).parents[1]
_VALID = "valid_"


def arguments(words=None):
    """Returns the command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--run_dir", type=pathlib.Path, required=True, help="What training wrote.")
    add("--name", required=True, help="Of the result; a file name.")
    add("--what", required=True, help="The question; results of one share a table.")
    add("--data", required=True, help="Origin and sizes, the held-out part too.")
    add("--config", required=True, help="Config file, from the repository's root.")
    add("--command", required=True, help="What trained it.")
    add("--machine", required=True, help="And how many of its cores were used.")
    add("--metrics", type=pathlib.Path, help="JSON that evaluate.py printed.")
    add("--baseline", type=pathlib.Path, help="JSON of the metrics of a baseline.")
    add("--baseline_what", help="What the baseline is.")
    add("--note", default="", help="What fell short.")
    add("--out", type=pathlib.Path, default=ROOT / "docs" / "results", help="Folder.")
    given = parser.parse_args(words)
    if not re.fullmatch(r"[a-z0-9_]+", given.name):
        parser.error(
            "--name is a file's name of small letters, digits and underscores. "
            f"Received: {given.name!r}."
        )
    if not (ROOT / given.config).is_file():
        parser.error(f"--config must be a file. Received: {given.config!r}.")
    if (given.baseline is None) != (given.baseline_what is None):
        parser.error("--baseline and --baseline_what are given together, or neither.")
    return given


def result(given):
    """Returns the record of a run."""
    best = models.load(given.run_dir / "best")
    experiment = json.loads((given.run_dir / "config.json").read_text("utf-8"))
    state = newest_state(given.run_dir)
    baseline = given.baseline and {
        "what": given.baseline_what,
        "metrics": numbers(given.baseline),
    }
    return {
        "name": given.name,
        "what": given.what,
        "data": given.data,
        "config": given.config,
        "command": given.command,
        "parameters": models.count_parameters(best),
        "steps": state["step"],
        "seconds": round(state["seconds"], 1),
        "metrics": numbers(given.metrics) if given.metrics else at_best(given.run_dir),
        "baseline": baseline,
        "seed": experiment["train"]["seed"],
        "machine": given.machine,
        "note": given.note,
    }


def newest_state(run_dir):
    """Returns what the last checkpoint says of the run."""
    states = sorted(run_dir.glob("checkpoints/step_*/state.json"))
    if not states:
        raise SystemExit(
            "A run that ended has a checkpoint. Received: "
            f"{run_dir}, which has none. Give a whole run folder."
        )
    return json.loads(states[-1].read_text("utf-8"))


def at_best(run_dir):
    """Returns the validation figures of the step with the lowest validation loss."""
    judged = [
        line
        for line in read_metrics(run_dir / "metrics.jsonl")
        if line.get(f"{_VALID}loss") is not None
    ]
    if not judged:
        raise SystemExit(f"No evaluation of the run is on record in {run_dir}.")
    best = min(judged, key=lambda line: line[f"{_VALID}loss"])
    return {
        name.removeprefix(_VALID): value
        for name, value in best.items()
        if name.startswith(_VALID)
    }


def numbers(path):
    """Returns the finite numbers of a JSON object; what is nested is left out."""
    members = json.loads(path.read_text("utf-8"))
    return {
        name: value
        for name, value in members.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def main():
    """Writes the record in place of the one of that name."""
    given = arguments()
    text = json.dumps(result(given), indent=2, ensure_ascii=False) + "\n"
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{given.name}.json"
    path.write_text(text, "utf-8")
    print(path)


if __name__ == "__main__":
    main()
