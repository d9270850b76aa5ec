r"""Writes a model folder as a checkpoint folder that Transformers reads.

Example: python scripts/export_weights.py --model=runs/whale/best --out=whale-hf
"""

from absl import app, flags

_MODEL = flags.DEFINE_string("model", None, "Model folder to read.", required=True)
_OUT = flags.DEFINE_string("out", None, "New checkpoint folder.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Of the tensors written."
)


def main(argv: list[str]) -> None:
    """Exports and prints what was written."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    from keras_llm import convert

    written = convert.export_folder(_MODEL.value, _OUT.value, _DTYPE.value)
    tokenizer = "no tokenizer"
    if written.tokenizer is not None:
        tokenizer = f"tokenizer: {written.tokenizer}"
        if not written.tokenizer_written:
            tokenizer += ", NOT written: that kind has no counterpart there"
    print(f"Exported {_OUT.value} (model_type {written.model_type}, {tokenizer}).")
