"""The byte-level BPE that a GGUF file carries."""

import pathlib
from collections.abc import Mapping
from typing import Any

from keras_llm.convert.byte_bpe_files import MARKUP, byte_bpe
from keras_llm.convert.chat_templates import adopt_template
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.core import CorruptFolderError
from keras_llm.tokenizers import ByteBPETokenizer

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
# How llama.cpp names a pre-split, and what it is here.
_SPLITS: dict[str, dict[str, Any]] = {
    "gpt-2": {"split": "gpt2"},
    "smollm": {"split": "smollm"},
    "llama-bpe": {"split": "llama3", "whole_words": True},
    "qwen2": {"split": "qwen2", "unicode_form": "nfc"},
}
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_ROLES = {"end": "eos_token_id", "bos": "bos_token_id"}


def read_tokenizer(
    path: pathlib.Path, settings: Mapping[str, Any]
) -> ByteBPETokenizer | None:
    """Returns the tokenizer of a file, or None where there is none.

    Args:
        path: The file, for messages.
        settings: All of its settings.

    Raises:
        UnsupportedModelError: It is of a kind or a pre-split that ours do not do.
        core.CorruptFolderError: Its lists contradict each other.
    """
    own = {
        name.removeprefix(_PREFIX): value
        for name, value in settings.items()
        if name.startswith(_PREFIX)
    }
    if "model" not in own:
        return None
    for name, choices in (("model", ("gpt2",)), ("pre", tuple(_SPLITS))):
        if own.get(name) not in choices:
            raise UnsupportedModelError(
                f"`{_PREFIX}{name}` must be one of {', '.join(choices)}. Received: "
                f"{own.get(name)!r} in {path}. Import the model without its tokenizer."
            )
    if own.get("add_space_prefix"):
        raise UnsupportedModelError(
            "No space is put before a text here. Received: "
            f"{_PREFIX}add_space_prefix=True in {path}. Import the model without its "
            "tokenizer."
        )
    tokens, kinds, merges = (
        own.get(name, []) for name in ("tokens", "token_type", "merges")
    )
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise CorruptFolderError(
            f"{path} must give each token one type and each its own text. Received: "
            f"{len(tokens)} tokens, {len(set(tokens))} of them different, and "
            f"{len(kinds)} types."
        )
    for token, kind in zip(tokens, kinds, strict=True):
        if kind == _USER_DEFINED and not MARKUP.fullmatch(token):
            raise UnsupportedModelError(
                "Text never turns into an added token here, so each must be special, "
                f"or a mark in angle brackets. Received: {token!r} in {path}. Import "
                "the model without its tokenizer."
            )
    tokenizer = byte_bpe(
        path,
        {role: own.get(name) for role, name in _ROLES.items()},
        {token: number for number, token in enumerate(tokens)},
        [merge.split(" ") for merge in merges],
        {t for t, k in zip(tokens, kinds, strict=True) if k in (_UNKNOWN, _CONTROL)},
        **_SPLITS[own["pre"]],
    )
    adopt_template(tokenizer, settings.get(_TEMPLATE), path)
    return tokenizer
