r"""Writes a model as one SavedModel that takes and returns strings.

The folder is complete or absent, and by default proven before it appears: in a
process that cannot import this package it gives the same text as in memory.

Example: python scripts/export.py --model=runs/whale/best --out=serving/whale/1
"""

from absl import app, flags

from keras_llm.commands import _idle_flags

_MODEL = flags.DEFINE_string("model", None, "Model folder to export.")
_ADAPTER = flags.DEFINE_multi_string(
    "adapter",
    [],
    "NAME=FOLDER of an adapter of --model, may be repeated: each row of a request "
    'chooses one by its name, "" for none.',
)
_CONFIG = flags.DEFINE_string(
    "config", None, "Config file: export a freshly initialised model of its sizes."
)
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "Tokenizer folder, for --config; by default single bytes."
)
_OUT = flags.DEFINE_string(
    "out", None, "New version folder, such as serving/whale/1.", required=True
)
_JIT = flags.DEFINE_bool(
    "jit",
    False,
    "Compile decoding by XLA; TF Serving then needs "
    "--xla_cpu_compilation_enabled=true.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float16"], "Of weights and arithmetic."
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    None,
    ["int8"],
    "Keep projections and tables of tokens in eight bits: a quarter of the size. Not "
    "with --jit.",
)
_VERIFY = flags.DEFINE_bool("verify", True, "Prove the export before it appears.")
_SEED = flags.DEFINE_integer("seed", 0, "Of fresh weights, for --config.", 0, 2**32 - 1)


def main(argv: list[str]) -> None:
    """Exports and prints what was written."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    if (_MODEL.value is None) == (_CONFIG.value is None):
        raise app.UsageError("Give either --model or --config.")
    if _MODEL.value is not None:
        _idle_flags.refuse(
            [_TOKENIZER, _SEED],
            "with --model, whose folder holds weights and tokenizer: it belongs to "
            "--config",
        )
    else:
        _idle_flags.refuse(
            [_ADAPTER, _QUANTIZE], "with --config: it belongs to --model"
        )
    if _JIT.value and _QUANTIZE.value is not None:
        raise app.UsageError(
            "--quantize is not for --jit: XLA multiplies by eight bits several times "
            "slower than by floats. Leave one of them out."
        )
    import tensorflow as tf

    from keras_llm import export

    # The process that proves the export needs room on the GPU too.
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    if _MODEL.value is not None:
        out = export.from_model_folder(
            _MODEL.value,
            _OUT.value,
            _JIT.value,
            _DTYPE.value,
            _VERIFY.value,
            _adapters(),
            _QUANTIZE.value,
        )
    else:
        model, tokenizer = _fresh()
        out = export.export(model, tokenizer, _OUT.value, _JIT.value, _VERIFY.value)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    proof = "verified in a fresh process" if _VERIFY.value else "not verified"
    print(f"Exported {out} ({size / 1e6:.1f} MB, {proof}).")


def _adapters():
    """Returns name to folder."""
    pairs = [given.partition("=") for given in _ADAPTER.value]
    found = {name: folder for name, _, folder in pairs}
    if len(found) != len(pairs) or not all(
        name and folder for name, _, folder in pairs
    ):
        raise app.UsageError(
            "--adapter takes NAME=FOLDER, each name once. Received: "
            f"{', '.join(_ADAPTER.value)}."
        )
    return found


def _fresh():
    """Returns a model with random weights, and a tokenizer."""
    import keras

    from keras_llm import models, tokenizers, training

    config = training.load_config(_CONFIG.value).model
    if _TOKENIZER.value is None:
        tokenizer = tokenizers.ByteTokenizer()
    else:
        tokenizer = tokenizers.load(_TOKENIZER.value)
    if config.vocab_size == 0:
        config = config.replace(vocab_size=tokenizer.vocab_size)
    keras.utils.set_random_seed(_SEED.value)
    return models.build(config, _DTYPE.value), tokenizer
