r"""Measures a model's loss over a text: exactly, every token once.

Example: python scripts/evaluate.py --model=runs/whale/best --text='held_out/*.txt'
"""

import json
import math

from absl import app, flags

from keras_llm.commands import _text_flags

flags.adopt_module_key_flags(_text_flags)

_MODEL = flags.DEFINE_string("model", None, "Model folder.", required=True)
_TEXT = flags.DEFINE_multi_string(
    "text",
    None,
    "File, folder, glob or prepared folder; may be repeated.",
    required=True,
)
_CONTEXT = flags.DEFINE_integer(
    "context", None, "Tokens a row; by default the model's positions, at most 1,024.", 1
)
_ADD_SEPARATORS = flags.DEFINE_bool(
    "add_separators",
    None,
    "Open each document with the end token; by default if the model was trained so.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "mixed_bfloat16"], "Of the arithmetic."
)
_JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object; a perplexity beyond float64 is null."
)


def main(argv: list[str]) -> None:
    """Prints nats per token, perplexity, bits per byte and what they count."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --text='corpus/*.txt'."
        )
    from keras_llm import evaluation, models
    from keras_llm.training.metrics import finite_or_none

    result = evaluation.evaluate(
        models.load(_MODEL.value, _DTYPE.value),
        models.load_tokenizer(_MODEL.value),
        _TEXT.value,
        _CONTEXT.value,
        _ADD_SEPARATORS.value,
        **_text_flags.given(),
    )
    if not math.isfinite(result.nats_per_token):
        raise ValueError(
            "A finite loss is needed. Received: a mean of "
            f"{result.nats_per_token} nats per token: the weights of {_MODEL.value} "
            "hold NaN or infinity, or overflow on the way. Evaluate an earlier model."
        )
    figures = {
        "nats_per_token": result.nats_per_token,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "num_tokens": result.num_tokens,
        "num_bytes": result.num_bytes,
    }
    if _JSON.value:
        # Perplexity alone can be infinite, which JSON does not have.
        print(json.dumps(finite_or_none(figures), allow_nan=False))
        return
    for name, value in figures.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        print(f"{name:<15} {shown}")
