r"""Reads a checkpoint folder of Transformers, or a GGUF file, into a model folder.

JSON, safetensors, GGUF and, of BERT's first release, a TensorFlow checkpoint alone are
opened: no pickle, no code, no file outside the folder.
Whatever the model does that ours cannot do is refused by its name.

Example: python scripts/import_weights.py --source=SmolLM2-135M --out=models/smol
"""

from absl import app, flags

from keras_llm.commands import _idle_flags

_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Folder with config.json and model.safetensors, or its shards and their index; or "
    "bert_config.json and a TensorFlow checkpoint; or a file that ends in .gguf.",
    required=True,
)
_OUT = flags.DEFINE_string("out", None, "New model folder.", required=True)
_TOKENIZER = flags.DEFINE_bool(
    "tokenizer", True, "Read the tokenizer's files too, if there are any."
)
_IGNORE = flags.DEFINE_list(
    "ignore_fields", [], "Fields of config.json that you know to change no answer."
)


def main(argv: list[str]) -> None:
    """Imports and prints what was written."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    from keras_llm import convert, models

    if _SOURCE.value.endswith(".gguf"):
        _idle_flags.refuse([_IGNORE], "in what is read of a GGUF file")
        convert.import_gguf(_SOURCE.value, _OUT.value, _TOKENIZER.value)
    else:
        convert.import_folder(
            _SOURCE.value, _OUT.value, _IGNORE.value, _TOKENIZER.value
        )
    config = models.load_config(_OUT.value)
    kind = "no tokenizer"
    if models.has_tokenizer(_OUT.value):
        kind = f"tokenizer: {models.load_tokenizer(_OUT.value).kind}"
    print(f"Imported {_OUT.value} ({config.architecture}, {kind}).")
