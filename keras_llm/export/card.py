"""The card beside an export: what it is and how to ask it."""

import pathlib

from keras_llm.export.arithmetic import TOLERANCES, compute_dtype, weight_kind
from keras_llm.export.servable import Servable
from keras_llm.models import count_parameters

# An op that TF Serving links, and a plain TensorFlow does not.
_IN_PYTHON = """In Python `import tensorflow_text` comes before `tf.saved_model.load`.

"""


def card(subject: Servable, out: pathlib.Path, compared: int) -> str:
    """Returns the card in Markdown.

    Args:
        subject: What is exported.
        out: The version folder; its parent's name is the model's name.
        compared: Answers that were compared in a fresh process; 0 for none.
    """
    model = subject.model
    name, dtype = out.absolute().parent.name, compute_dtype(model)
    proof = (
        f"{compared} answers compared with the model in memory, from a moved folder, "
        "in a process without keras_llm: identical text, figures within "
        f"{TOLERANCES[dtype]:g}."
        if compared
        else "Not verified: exported with `--verify=false`."
    )
    in_python = _IN_PYTHON if subject.tokenizer.kind == "sentencepiece" else ""
    start = (
        "Start TF Serving with `--xla_cpu_compilation_enabled=true`."
        if subject.jit
        else "Stock TF Serving runs it as it is."
    )
    return f"""# {name}, version {out.name}

A SavedModel that takes and returns strings. {start}

| | |
| --- | --- |
| architecture | {model.config.architecture} |
| parameters | {count_parameters(model):,} |
| dtype | {dtype} |
| projections and tables of tokens | {weight_kind(model)} |
| length of a request | {subject.limits()} |
| tokenizer | {subject.tokenizer.kind}, {subject.tokenizer.vocab_size:,} ids |
| proof | {proof} |

{in_python}{subject.example().replace("{name}", name)}
Data, intended use and limits: to be written by whoever trained it.
"""
