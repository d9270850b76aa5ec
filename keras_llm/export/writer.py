"""Writes an export: one version folder that TF Serving loads as it is."""

import contextlib
import os
import pathlib

import tensorflow as tf

import keras_llm
from keras_llm import models
from keras_llm.core import (
    check_absent,
    checks,
    new_folder,
    write_manifest,
    write_text,
)
from keras_llm.core.prediction_log import WARMUP_PATH, write_warmup
from keras_llm.export.arithmetic import (
    TOLERANCES,
    compute_dtype,
    layout,
    weight_kind,
)
from keras_llm.export.card import card
from keras_llm.export.servable import Servable
from keras_llm.export.servables import servable
from keras_llm.export.shared_nodes import share_nodes
from keras_llm.export.verify import FreshProcess
from keras_llm.export.verify import verify as verify_export

DTYPES = tuple(TOLERANCES)
QUANTIZED = ("int8",)

# Sizes to which TF Serving rounds a batch up; the last is the greatest batch.
_BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
pad_variable_length_inputs: true
"""


def export(model, tokenizer, out, jit=False, verify=True) -> pathlib.Path:
    """Writes a model and its tokenizer as one SavedModel version folder.

    Args:
        model: A built model; its dtype is the export's.
        tokenizer: Its tokenizer.
        out: The version folder: a new one, named by a whole number, in the folder
            that TF Serving watches, such as `serving/whale/1`.
        jit: Whether XLA compiles what computes, such as decoding. Stock TF Serving
            refuses such an export unless started with
            `--xla_cpu_compilation_enabled=true`.
        verify: Whether to prove the export in a fresh process before it appears.

    Returns:
        The path of the new folder.

    Raises:
        FileExistsError: `out` exists.
        core.DiskFullError: The disk is full; nothing is left behind.
        ValueError: `out` does not end in a version number, or the model's dtype is
            none of `DTYPES`.
        core.allowed_ops.ForbiddenGraphError: The graph holds an op that TF Serving
            would not load.
        export.VerificationError: The export answers otherwise than the model.
    """
    out = pathlib.Path(out)
    check_version(out)
    check_absent(out)
    checks.check_choice("dtype", compute_dtype(model), DTYPES)
    bytes_each = tf.as_dtype(model.weights[0].dtype).size
    # Room is looked for now rather than after minutes of tracing.
    with (
        new_folder(out, bytes_each * models.count_parameters(model)) as temporary,
        # It imports TensorFlow while the signatures are traced.
        FreshProcess() if verify else contextlib.nullcontext() as stranger,
    ):
        written = temporary / "written"
        with layout(model, jit) as weights:
            subject = servable(model, tokenizer, jit, weights)
            _save(subject, written)
        # From here on nothing lies where it was written.
        for path in list(written.iterdir()):
            os.rename(path, temporary / path.name)
        written.rmdir()
        write_warmup(temporary / WARMUP_PATH, subject.warmup_requests())
        write_text(temporary / "batching_params.pbtxt", _BATCHING)
        compared = 0
        if verify:
            compared = verify_export(temporary, model, tokenizer, jit, stranger)
        write_text(temporary / "README.md", card(subject, out, compared))
        write_manifest(
            temporary,
            format="keras_llm export",
            keras_llm_version=keras_llm.__version__,
            tensorflow_version=tf.__version__,
            architecture=model.config.architecture,
            config=model.config.to_dict(),
            dtype=compute_dtype(model),
            weights=weight_kind(model),
            jit=jit,
            verified_answers=compared,
        )
    return out


def check_version(out: pathlib.Path) -> None:
    """Raises ValueError unless the folder's name is a version number."""
    name = out.name
    if not (name.isascii() and name.isdigit() and int(name) < 2**63):
        raise ValueError(
            "TF Serving serves folders named by a version number, and ignores "
            f"others. Received: {out}. Write to {out / '1'}, say."
        )


def _save(subject: Servable, folder: pathlib.Path) -> None:
    """Writes the signatures, traced now."""
    # Ops that only a debugger reads, and Python call stacks, stay out.
    options = tf.saved_model.SaveOptions(
        save_debug_info=False, experimental_custom_gradients=False
    )
    # All else is constants of the graph: nothing of Keras or of the tokenizer is to be
    # found and walked.
    root = tf.Module()
    root.weights = [weight.value for weight in subject.weights]
    tf.saved_model.save(root, folder, subject.signatures(), options)
    share_nodes(folder)


def from_model_folder(
    folder, out, jit=False, dtype="float32", verify=True, adapters=None, quantize=None
):
    """Reads a model folder and exports it.

    Args:
        folder: A model folder, as training writes it.
        out: The new version folder.
        jit: See `export`.
        dtype: Of weights and arithmetic: "float32", "bfloat16" or "float16".
        verify: See `export`.
        adapters: Name to adapter folder of that model: the export then has the input
            `adapter`, by which each row chooses one, or "" for none.
        quantize: "int8" keeps projections and tables of tokens in eight bits
            (`models.quantize`); None as they are.

    Returns:
        The path of the new folder.

    Raises:
        FileNotFoundError: `folder` does not exist, or holds no tokenizer.
        ValueError: `dtype` is none of `DTYPES`, `quantize` is unknown or meets `jit`;
            and as `export`, as its others.
        core.CorruptFolderError: A file of `folder` differs from its manifest.
    """
    checks.check_choice("dtype", dtype, DTYPES)
    checks.check_choice("quantize", quantize, (None, *QUANTIZED))
    check_version(pathlib.Path(out))
    check_absent(out)
    model = models.load(folder, dtype)
    if adapters:
        models.add_adapters(model, adapters, folder)
    if quantize is not None:
        models.quantize(model)
    return export(model, models.load_tokenizer(folder), out, jit, verify)
