r"""Talks with a chat model: a line of standard input is what the user says next.

The conversation goes on until the input ends (Ctrl-D). An empty line begins a new one.

Example: python scripts/chat.py --model=models/smol --max_new_tokens=128
"""

import sys

from absl import app, flags

_MODEL = flags.DEFINE_string("model", None, "Model folder.", required=True)
_SYSTEM = flags.DEFINE_string(
    "system", None, "Message of the system; by default the model's own."
)
_MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens",
    None,
    "Of a reply; by default 256, at most a quarter of the model's positions.",
    1,
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token.")
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Draw among the likeliest tokens of this joint probability; 1 is off."
)
_REPETITION_PENALTY = flags.DEFINE_float("repetition_penalty", 1.0, "1 is off.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed draws the same replies.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16", "float16"], "Of weights and arithmetic."
)


def main(argv: list[str]) -> None:
    """Prints a reply to each line."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    from keras_llm import generation, models, tokenizers

    tokenizer = models.load_tokenizer(_MODEL.value)
    tokenizers.ChatEncoder(tokenizer)  # Refuses at once what cannot chat.
    model = models.load(_MODEL.value, _DTYPE.value)
    generator = generation.Generator(model, tokenizer)
    positions = getattr(model.config, "max_positions", None) or 1_024
    knobs = {
        "max_new_tokens": _MAX_NEW_TOKENS.value or min(256, max(1, positions // 4)),
        "temperature": _TEMPERATURE.value,
        "top_p": _TOP_P.value,
        "repetition_penalty": _REPETITION_PENALTY.value,
        "seed": _SEED.value,
    }
    start = [] if _SYSTEM.value is None else [_message("system", _SYSTEM.value)]
    conversation = [*start]
    while (line := _next_line()) is not None:
        if not line:
            conversation = [*start]
            continue
        conversation.append(_message("user", line))
        reply = generator.chat([conversation], **knobs)[0].text
        conversation.append(_message("assistant", reply))
        print(reply, flush=True)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _next_line() -> str | None:
    """Returns the next line of standard input, None at its end."""
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
