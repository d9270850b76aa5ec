"""WordPiece as Transformers keeps it: `tokenizer.json`, or `vocab.txt`."""

import pathlib
from collections.abc import Mapping
from typing import Any

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.core import CorruptFolderError
from keras_llm.tokenizers import WordPieceTokenizer

_MODEL = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
_NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
}
_SPLIT = {"type": "BertPreTokenizer"}
_SETTINGS = {"do_basic_tokenize": True, "tokenize_chinese_chars": True}


def from_fast(path: pathlib.Path, values: Mapping[str, Any]) -> WordPieceTokenizer:
    """Reads a `tokenizer.json` whose model is "WordPiece".

    Raises:
        UnsupportedModelError: It does what WordPiece does not do here.
        core.CorruptFolderError: Its ids are not 0 to V - 1.
    """
    model, normalizer = dict(values["model"]), dict(values["normalizer"] or {})
    vocabulary = model.pop("vocab")
    lower_case = normalizer.pop("lowercase", True)
    strip_accents = normalizer.pop("strip_accents", None)
    for name, given, wanted in (
        ("model", {**_MODEL, **model}, _MODEL),
        ("normalizer", {**_NORMALIZER, **normalizer}, _NORMALIZER),
        ("pre_tokenizer", values["pre_tokenizer"], _SPLIT),
    ):
        if given != wanted:
            raise UnsupportedModelError(
                f"`{name}` must be {wanted}, which is what WordPiece does here. "
                f"Received: {given} in {path}. Import the model without its tokenizer."
            )
    tokens = {number: token for token, number in vocabulary.items()}
    for token in values.get("added_tokens") or ():
        tokens.setdefault(token["id"], token["content"])
    if sorted(tokens) != list(range(len(tokens))):
        raise CorruptFolderError(f"{path} must have the ids 0 to {len(tokens) - 1}.")
    ordered = [tokens[number] for number in range(len(tokens))]
    return WordPieceTokenizer(ordered, lower_case, strip_accents)


def from_vocabulary(
    path: pathlib.Path, settings: Mapping[str, Any]
) -> WordPieceTokenizer:
    """Reads `vocab.txt`.

    Args:
        path: The file.
        settings: Of `tokenizer_config.json`.

    Raises:
        UnsupportedModelError: The settings ask for another way of splitting.
    """
    for name, wanted in _SETTINGS.items():
        if settings.get(name, wanted) != wanted:
            raise UnsupportedModelError(
                f"`{name}` must be {wanted}. Received: {settings[name]!r} beside "
                f"{path}. Import the model without its tokenizer."
            )
    return WordPieceTokenizer.from_file(
        path, settings.get("do_lower_case", True), settings.get("strip_accents")
    )


def to_fast(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """Returns what `tokenizer.json` holds of a tokenizer."""
    added = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": tokenizer.tokens[number], **added}
            for number in sorted(set(tokenizer.special_ids.values()))
        ],
        "normalizer": {
            **_NORMALIZER,
            "lowercase": tokenizer.lower_case,
            "strip_accents": tokenizer.strip_accents,
        },
        "pre_tokenizer": _SPLIT,
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {
            **_MODEL,
            "vocab": {token: number for number, token in enumerate(tokenizer.tokens)},
        },
    }
