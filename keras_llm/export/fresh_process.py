"""Runs an export as a stranger would: another process, without this package.

Run as a file: `python -P fresh_process.py < lines`, the folder first, then the cases.
Every import of `keras_llm` fails from here on.
"""

import json
import sys

import numpy as np


class _Refusal:
    """Finds no module, and forbids this package."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "keras_llm":
            raise ImportError(f"{name} must not be needed to serve an export")


def main():
    """Loads the folder of the first line, a string of JSON, once it is named.

    Answers each case [signature, inputs], one a line, when it comes.
    """
    sys.meta_path.insert(0, _Refusal())
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  # Registers the ops that TF Serving links.

    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    loaded = tf.saved_model.load(json.loads(sys.stdin.readline()))
    answers = []
    for line in sys.stdin:
        name, inputs = json.loads(line)
        signature = loaded.signatures[name]
        specs = signature.structured_input_signature[1]
        feed = {
            key: tf.constant(inputs[key], spec.dtype) for key, spec in specs.items()
        }
        outputs = signature(**feed)
        answers.append({key: plain(value.numpy()) for key, value in outputs.items()})
    print("ANSWERS", json.dumps(answers))


def plain(array):
    """Returns nested lists, of texts where the array holds bytes."""
    if array.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(array).tolist()
    return array.tolist()


if __name__ == "__main__":
    main()
