r"""Measures a model on held-out texts or examples, each once, exactly.

What is measured depends on the model. A language model, one that fills masks, and a
text VAE read a text: --text. A classifier, a tagger, a finder of answers and an encoder
that gives vectors read examples, JSON lines such as they learn from: --examples. So
does an encoder-decoder, whose texts are scored too.

Examples: python scripts/evaluate.py --model=runs/whale/best --text='held_out/*.txt'
    python scripts/evaluate.py --model=runs/reviews/best --examples=test.jsonl --json
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from absl import app, flags

from keras_llm.commands import _text_flags

flags.adopt_module_key_flags(_text_flags)

_MODEL = flags.DEFINE_string("model", None, "Model folder.", required=True)
_TEXT = flags.DEFINE_multi_string(
    "text", None, "File, folder, glob or prepared folder; may be repeated."
)
_EXAMPLES = flags.DEFINE_multi_string(
    "examples", None, "File of JSON lines, folder or glob; may be repeated."
)
_CONTEXT = flags.DEFINE_integer(
    "context", None, "Tokens a row; by default the model's positions, at most 1,024.", 1
)
_ADD_SEPARATORS = flags.DEFINE_bool(
    "add_separators",
    None,
    "Open each document with the end token; by default if the model was trained so. "
    "Of language models alone.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "mixed_bfloat16"], "Of the arithmetic."
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    None,
    ["int8"],
    "Round projections and tables of tokens first, as export.py --quantize does.",
)
_SAMPLES = flags.DEFINE_integer(
    "samples", 64, "Latents drawn for each text, of a text VAE alone.", 1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of those latents.", 0)
_JSON = flags.DEFINE_bool(
    "json", False, "Print one JSON object; a perplexity beyond float64 is null."
)
_NUM_BEAMS = flags.DEFINE_integer(
    "num_beams", 1, "Of an encoder-decoder: beams of the search for its texts.", 1
)
_MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", 128, "Of an encoder-decoder: most tokens of a text.", 1
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Of an encoder-decoder: read so many examples alone, the first.", 1
)
_BLEU_TOKENIZER = flags.DEFINE_enum(
    "bleu_tokenizer",
    "13a",
    ["13a", "intl", "char", "zh", "none"],
    "Of an encoder-decoder: how BLEU tells words apart; zh for Chinese.",
)

_OF_PAIRS = (_NUM_BEAMS, _MAX_NEW_TOKENS, _LIMIT, _BLEU_TOKENIZER)
# Flags that say how documents are told apart, which examples are already.
_OF_TEXT = ("json_field", "document_separator")


def main(argv: list[str]) -> None:
    """Prints the figures of the model's kind."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --text='corpus/*.txt'."
        )
    from keras_llm import models
    from keras_llm.models.prompts import refuse_prompt
    from keras_llm.training.metrics import finite_or_none

    model = models.load(_MODEL.value, _DTYPE.value)
    refuse_prompt(
        model,
        "What is evaluated is plain text, before which no learnt prompt stands.",
        "Its figures on conversations are in its run's metrics.jsonl.",
    )
    if _QUANTIZE.value is not None:
        models.quantize(model)
    figures = _measure(model, models.load_tokenizer(_MODEL.value))
    name, loss = next(iter(figures.items()))
    if not math.isfinite(loss):
        raise ValueError(
            f"A finite loss is needed. Received: {name}={loss}: the weights of "
            f"{_MODEL.value} hold NaN or infinity, or overflow on the way. Evaluate "
            "an earlier model."
        )
    if _JSON.value:
        # Perplexity alone can be infinite, which JSON does not have.
        print(json.dumps(finite_or_none(figures), allow_nan=False))
    else:
        print(_described(figures))


def _measure(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Returns a model's figures, the loss first, by what it is made for."""
    from keras_llm import evaluation

    config = model.config
    if config.architecture != "text_vae":
        for drawing in (_SAMPLES, _SEED):
            _refuse(drawing, "only of a text VAE are latents drawn")
    if config.architecture in ("t5", "lstm_seq2seq"):
        writing: dict[str, Any] = {f.name: f.value for f in _OF_PAIRS}
        return evaluation.evaluate_pairs(model, tokenizer, **_examples(), **writing)
    for flag in _OF_PAIRS:
        _refuse(flag, "only an encoder-decoder is measured by the texts it writes")
    match config.architecture, getattr(config, "head", None):
        case (("gemma" | "gpt2" | "llama" | "lstm_lm"), _):
            return _language_model(model, tokenizer)
        case ("bert", "masked_lm") | ("electra", _):
            return evaluation.evaluate_masked(model, tokenizer, **_text())
        case ("bert", "classify") | ("lstm_classifier", _):
            return evaluation.evaluate_labels(model, tokenizer, **_examples())
        case "text_vae", _:
            drawn = {"samples": _SAMPLES.value, "seed": _SEED.value}
            return evaluation.evaluate_latent(model, tokenizer, **drawn, **_text())
        case "bert", "tag":
            return evaluation.evaluate_tags(model, tokenizer, **_examples())
        case "bert", "answer":
            return evaluation.evaluate_answers(model, tokenizer, **_examples())
        case "bert", "embed":
            return evaluation.evaluate_retrieval(model, tokenizer, **_examples())
        case kind:
            raise ValueError(
                "There is nothing to measure such a model by. Received: "
                f"{_MODEL.value}, of the kind {kind[0]!r}"
                f"{f' with the head {kind[1]!r}' if kind[1] else ''}."
            )


def _language_model(model: Any, tokenizer: Any) -> dict[str, Any]:
    from keras_llm import evaluation

    separators = _ADD_SEPARATORS.value
    result = evaluation.evaluate(
        model, tokenizer, add_separators=separators, **_text(separators=True)
    )
    return {
        "nats_per_token": result.nats_per_token,
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
        "num_tokens": result.num_tokens,
        "num_bytes": result.num_bytes,
    }


def _text(separators: bool = False) -> dict[str, Any]:
    """Returns what is read of a text, and how, by argument.

    Args:
        separators: Whether the model is one of those that read --add_separators.
    """
    _refuse(_EXAMPLES, "a model that reads texts is measured on a --text")
    if not _TEXT.value:
        raise ValueError(
            f"A text is needed to measure {_MODEL.value}, which reads texts. Received: "
            "no --text. Give --text=FILE."
        )
    if not separators:
        _refuse(_ADD_SEPARATORS, "documents are told apart for a language model alone")
    return {"text": _TEXT.value, "context": _CONTEXT.value, **_text_flags.given()}


def _examples() -> dict[str, Any]:
    """Returns what is read of examples, and how, by argument."""
    _refuse(_TEXT, "a model that learnt from examples is measured on --examples")
    if not _EXAMPLES.value:
        raise ValueError(
            f"Examples are needed to measure {_MODEL.value}, which learnt from such. "
            "Received: no --examples. Give --examples=FILE.jsonl."
        )
    for flag in (_ADD_SEPARATORS, *(flags.FLAGS[name] for name in _OF_TEXT)):
        _refuse(flag, "every JSON line is an example with members of fixed names")
    reading = _text_flags.given()
    for name in _OF_TEXT:
        del reading[name]
    return {"examples": _EXAMPLES.value, "context": _CONTEXT.value, **reading}


def _refuse(flag: Any, reason: str) -> None:
    """Raises ValueError if a flag was given that would say nothing."""
    if flag.present:
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        given = " ".join(f"--{flag.name}={value}" for value in values)
        raise ValueError(
            f"--{flag.name} must be left out: {reason}. Received: {given}, for "
            f"{_MODEL.value}."
        )


def _described(figures: Mapping[str, Any]) -> str:
    """Returns figures in lines, and tables of those that have parts."""
    tables = {name: v for name, v in figures.items() if isinstance(v, Mapping)}
    lines = [
        f"{name:<15} {_shown(value)}"
        for name, value in figures.items()
        if name not in tables
    ]
    for name, rows in tables.items():
        columns = list(next(iter(rows.values())))
        width = max(map(len, [name, *rows])) + 2
        lines += ["", name.ljust(width) + "".join(f"{c:>14}" for c in columns)]
        lines += [
            row.ljust(width) + "".join(f"{_shown(cell):>14}" for cell in cells.values())
            for row, cells in rows.items()
        ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
