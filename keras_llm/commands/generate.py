r"""Continues a text, showing it as it is written.

Example: python scripts/generate.py --model=runs/whale/best --prompt='The whale' \
    --max_new_tokens=64 --temperature=0.8 --seed=7
"""

import json
import os
import sys
from typing import Any

from absl import app, flags

from keras_llm.commands import _idle_flags

_MODEL = flags.DEFINE_string("model", None, "Model folder.", required=True)
_PROMPT = flags.DEFINE_multi_string(
    "prompt", None, "Text to continue; may be repeated. By default standard input."
)
_MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", None, "Tokens at most; by default 64 or the room that is left."
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token.")
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draw among the k likeliest; 0 is off.")
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Draw among the likeliest tokens of this joint probability; 1 is off."
)
_MIN_P = flags.DEFINE_float(
    "min_p", 0.0, "Least probability, as a share of the likeliest token's; 0 is off."
)
_REPETITION_PENALTY = flags.DEFINE_float("repetition_penalty", 1.0, "1 is off.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed draws the same text.")
_STOP = flags.DEFINE_multi_string("stop", [], "End before this text; may be repeated.")
_NUM_BEAMS = flags.DEFINE_integer(
    "num_beams", 1, "Above 1: search for the likeliest text with so many beams."
)
_LENGTH_PENALTY = flags.DEFINE_float(
    "length_penalty", 0.6, "Of beam search: 0 prefers short texts, 1 long ones."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float16"], "Of weights and arithmetic."
)
_JIT = flags.DEFINE_bool("jit", False, "Compile decoding by XLA.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object per prompt.")

_OF_DRAWING = [
    *(_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P, _REPETITION_PENALTY, _SEED, _STOP, _JIT)
]


def main(argv: list[str]) -> None:
    """Prints each prompt with its continuation."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    if _NUM_BEAMS.value == 1:
        _idle_flags.refuse([_LENGTH_PENALTY], "without --num_beams above 1")
    else:
        _idle_flags.refuse(
            _OF_DRAWING, "with --num_beams, which looks for the likeliest text"
        )
    # As bytes: a prompt need not be UTF-8.
    if _PROMPT.value is None:
        prompts = [sys.stdin.buffer.read()]
    else:
        prompts = [os.fsencode(prompt) for prompt in _PROMPT.value]
    from keras_llm import generation, models
    from keras_llm.models.prompts import refuse_prompt

    model = models.load(_MODEL.value, _DTYPE.value)
    refuse_prompt(
        model,
        "A text that is continued has no learnt prompt before it.",
        "Talk with the model, by scripts/chat.py.",
    )
    tokenizer = models.load_tokenizer(_MODEL.value)
    if _NUM_BEAMS.value != 1:
        _print_beams(generation.BeamSearch(model, tokenizer), prompts)
        return
    generator = generation.Generator(model, tokenizer, _JIT.value)
    knobs: dict[str, Any] = {
        "max_new_tokens": _MAX_NEW_TOKENS.value,
        "temperature": _TEMPERATURE.value,
        "top_k": _TOP_K.value,
        "top_p": _TOP_P.value,
        "min_p": _MIN_P.value,
        "repetition_penalty": _REPETITION_PENALTY.value,
        "seed": _SEED.value,
    }
    if len(prompts) == 1 and not _JSON.value and not _JIT.value:
        pieces = generator.stream(prompts[0], _STOP.value, **knobs)
        first = next(pieces, "")  # A refusal comes before anything is printed.
        print(_shown(prompts[0]) + first, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    for prompt, result in zip(
        prompts, generator.generate(prompts, _STOP.value, **knobs), strict=True
    ):
        _print(prompt, result.text, vars(result))


def _print_beams(search, prompts):
    for prompt in prompts:
        beams = search.search(
            prompt, _NUM_BEAMS.value, _MAX_NEW_TOKENS.value, _LENGTH_PENALTY.value
        )
        for beam in beams if _JSON.value else beams[:1]:
            _print(prompt, beam.text, vars(beam))


def _print(prompt, text, values):
    if _JSON.value:
        print(json.dumps({"prompt": _shown(prompt), **values}, ensure_ascii=False))
    else:
        print(_shown(prompt) + text)


def _shown(prompt: bytes) -> str:
    return prompt.decode(errors="replace")
