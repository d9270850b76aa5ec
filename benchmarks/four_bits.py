"""What four bits a weight would cost in perplexity: the reason why there are none.

The matrices of a model folder are rounded to 16 levels a group, by each way of grouping
without calibration, and what comes out is judged on a text as `evaluate.py` does.

Example: python benchmarks/four_bits.py --model=runs/smollm2 --text=text.txt
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import numpy as np

from keras_llm import models
from keras_llm.layers import Linear, TokenEmbedding
from keras_llm.layers.walking import sublayers

ROOT = pathlib.Path(__file__).parents[1]


def between_extremes(rows, size, shift=0):
    """Rounds [.., D] to 16 levels from the least to the greatest of each group.

    Args:
        rows: Float array; groups lie along its last axis.
        size: Values a group.
        shift: Values by which the groups' borders are moved.
    """
    groups = np.roll(rows, shift, -1).reshape(-1, size)
    least = groups.min(-1, keepdims=True)
    level = (groups.max(-1, keepdims=True) - least) / 15
    rounded = np.rint((groups - least) / np.where(level > 0, level, 1)) * level + least
    return np.roll(rounded.reshape(rows.shape), -shift, -1)


def around_zero(rows, size):
    """Rounds [.., D] to -7 … 7 times a seventh of each group's greatest magnitude."""
    groups = rows.reshape(-1, size)
    level = np.abs(groups).max(-1, keepdims=True) / 7
    return (np.rint(groups / np.where(level > 0, level, 1)) * level).reshape(rows.shape)


WAYS = {
    "floats": lambda rows: rows,
    "between extremes, groups of 32": lambda rows: between_extremes(rows, 32),
    "the same, borders moved by 16": lambda rows: between_extremes(rows, 32, 16),
    "between extremes, groups of 64": lambda rows: between_extremes(rows, 64),
    "around zero, groups of 32": lambda rows: around_zero(rows, 32),
}


def judged(folder: str, text: str, way) -> dict:
    """Returns the figures of a model whose matrices were rounded."""
    model = models.load(folder)
    for layer in sublayers(model):
        if isinstance(layer, Linear) and layer.built:
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            layer.kernel.assign(way(kernel.T).T)
        elif isinstance(layer, TokenEmbedding) and layer.built:
            table = keras.ops.convert_to_numpy(layer.embeddings)
            layer.embeddings.assign(way(table))
    with tempfile.TemporaryDirectory() as scratch:
        rounded = pathlib.Path(scratch) / "model"
        models.save(model, rounded, models.load_tokenizer(folder))
        command = [sys.executable, "-m", "keras_llm.commands", "evaluate", "--json"]
        command += [f"--model={rounded}", f"--text={text}", "--context=256"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Prints the perplexity of each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="A model folder.")
    parser.add_argument("--text", required=True, help="A file to judge it on.")
    given = parser.parse_args()
    for name, way in WAYS.items():
        figures = judged(given.model, str(pathlib.Path(given.text).resolve()), way)
        print(f"{name}: perplexity {figures['perplexity']:.2f}", flush=True)


if __name__ == "__main__":
    main()
