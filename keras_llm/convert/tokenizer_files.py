"""Tokenizer files of Transformers: `tokenizer.json`, or GPT-2's vocabulary and merges.

Only what a tokenizer of this package repeats id by id is read; all else is refused by
its name there.
"""

import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.safetensors_folder import plain_file
from keras_llm.core import CorruptFolderError, read_json, write_json
from keras_llm.tokenizers import (
    ByteBPETokenizer,
    ByteTokenizer,
    Tokenizer,
    gpt2_files,
)
from keras_llm.tokenizers.byte_bpe_tokenizer import END_TOKEN

_FAST = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_OTHERS = ("tokenizer.model", "spiece.model", "spm.model", "vocab.txt")
# What byte-level BPE does here, as `tokenizer.json` writes it. The regular expression
# is that of `tokenizers/splitting.py`.
_SPLIT = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def read_tokenizer(folder: pathlib.Path, config: Mapping[str, Any]) -> Tokenizer | None:
    """Returns the tokenizer whose files lie beside a checkpoint, None without any.

    Args:
        folder: The checkpoint's folder.
        config: The model's config there, which may name the end by its id.

    Raises:
        UnsupportedModelError: It does what no tokenizer of this package does.
        core.CorruptFolderError: A file is malformed or contradicts another.
    """
    try:
        if _is_there(folder, _FAST):
            return _from_fast(folder, config)
        if _is_there(folder, _VOCABULARY) and _is_there(folder, _MERGES):
            return _from_two_files(folder, config)
    except (AttributeError, KeyError, TypeError) as error:
        raise CorruptFolderError(
            f"The tokenizer's files in {folder} are malformed: "
            f"{type(error).__name__} {error}."
        ) from error
    others = [name for name in _OTHERS if _is_there(folder, name)]
    if others:
        raise UnsupportedModelError(
            f"A tokenizer is read from {_FAST}, or from {_VOCABULARY} with {_MERGES}. "
            f"Received: {', '.join(others)} alone in {folder}. Import the model "
            "without its tokenizer."
        )
    return None


def _is_there(folder: pathlib.Path, name: str) -> bool:
    return (folder / name).is_symlink() or (folder / name).exists()


def _from_fast(folder: pathlib.Path, config: Mapping[str, Any]) -> ByteBPETokenizer:
    """Reads `tokenizer.json`."""
    path = plain_file(folder, _FAST)
    values = read_json(path)
    model = {**_MODEL, **values["model"]}
    vocabulary, merges = dict(model.pop("vocab")), model.pop("merges")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        model[name] = model[name] or None  # "" says the same.
    split = {**_SPLIT, **(values.get("pre_tokenizer") or {"type": None})}
    split["trim_offsets"] = True  # It moves offsets alone.
    for name, given, wanted in (
        ("model", model, _MODEL),
        ("normalizer", values.get("normalizer"), None),
        ("pre_tokenizer", split, _SPLIT),
    ):
        if given != wanted:
            raise UnsupportedModelError(
                f"`{name}` must be {wanted}, which is what byte-level BPE does here. "
                f"Received: {given} in {path}. Import the model without its tokenizer."
            )
    specials = set()
    for token in values.get("added_tokens") or ():
        name, number = token["content"], token["id"]
        if not token["special"]:
            raise UnsupportedModelError(
                "Text never turns into an added token here, so each must be special. "
                f"Received: {name!r} in {path}. Import the model without its tokenizer."
            )
        if vocabulary.setdefault(name, number) != number:
            raise CorruptFolderError(f"{path} gives {name!r} two ids.")
        specials.add(name)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    return _byte_bpe(folder, config, vocabulary, pairs, specials)


def _from_two_files(
    folder: pathlib.Path, config: Mapping[str, Any]
) -> ByteBPETokenizer:
    """Reads `vocab.json` and `merges.txt`, which are GPT-2's by their class."""
    kind = _settings(folder).get("tokenizer_class", "GPT2Tokenizer")
    if kind not in ("GPT2Tokenizer", "GPT2TokenizerFast"):
        raise UnsupportedModelError(
            f"{_VOCABULARY} and {_MERGES} alone are read as GPT-2's. Received: "
            f"tokenizer_class={kind!r} in {folder / _SETTINGS}, without {_FAST}. "
            "Import the model without its tokenizer."
        )
    vocabulary = gpt2_files.read_vocabulary(plain_file(folder, _VOCABULARY))
    merges = gpt2_files.read_merges(plain_file(folder, _MERGES))
    pairs = [(gpt2_files.to_text(a), gpt2_files.to_text(b)) for a, b in merges]
    return _byte_bpe(folder, config, vocabulary, pairs, {END_TOKEN} & set(vocabulary))


def _byte_bpe(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    pairs: Sequence[Sequence[str]],
    specials: Collection[str],
) -> ByteBPETokenizer:
    """Returns the tokenizer after checking that its ids are 0 to V - 1."""
    tokens = {number: token for token, number in vocabulary.items()}
    if sorted(tokens) != list(range(len(vocabulary))):
        raise CorruptFolderError(
            f"The ids of {len(vocabulary)} tokens must be 0 to {len(vocabulary) - 1}, "
            f"each once. Received: {len(tokens)} different ones in {folder}, the "
            f"largest being {max(tokens, default=None)}."
        )
    names = _roles(folder, config, tokens, specials)
    silent = set(names.values())
    token_bytes = [
        b"" if tokens[number] in silent else gpt2_files.to_bytes(tokens[number])
        for number in range(len(tokens))
    ]
    merges = [
        (gpt2_files.to_bytes(left), gpt2_files.to_bytes(right)) for left, right in pairs
    ]
    special_ids = {role: vocabulary[name] for role, name in names.items()}
    return ByteBPETokenizer(token_bytes, merges, special_ids, names)


def _roles(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    tokens: Mapping[int, str],
    specials: Collection[str],
) -> dict[str, str]:
    """Returns role to spelling of every special token."""
    settings = _settings(folder)
    roles: dict[str, str] = {}
    for role, name in (("end", "eos_token"), ("bos", "bos_token")):
        token = settings.get(name)
        token = token["content"] if isinstance(token, dict) else token
        if token is None:
            number = config.get(f"{name}_id")
            number = number[0] if isinstance(number, list) else number
            token = None if number is None else tokens.get(number)
        if token is not None and token in specials and token not in roles.values():
            roles[role] = token
    if "end" not in roles:
        raise UnsupportedModelError(
            "A tokenizer needs a special token that ends a text: `eos_token` in "
            f"{_SETTINGS}, or `eos_token_id` in the model's config. Received: none "
            f"among the special tokens {sorted(specials)} in {folder}."
        )
    for number, token in tokens.items():
        if token in specials and token not in roles.values():
            role = re.sub(r"\W+", "_", token).strip("_") or f"special_{number}"
            roles[f"special_{number}" if role in roles else role] = token
    return roles


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, empty where there is none."""
    if not _is_there(folder, _SETTINGS):
        return {}
    settings = read_json(plain_file(folder, _SETTINGS))
    if not isinstance(settings, dict):
        raise CorruptFolderError(f"{folder / _SETTINGS} must hold a JSON object.")
    return settings


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer) -> bool:
    """Writes `tokenizer.json` and its settings, where there is a counterpart.

    Args:
        folder: An existing folder.
        tokenizer: One of bytes or of byte-level BPE has a counterpart.

    Returns:
        Whether it has one; else nothing is written.
    """
    if isinstance(tokenizer, ByteTokenizer):
        merges, names = [], {"end": END_TOKEN}
    elif isinstance(tokenizer, ByteBPETokenizer):
        merges, names = tokenizer.merges, tokenizer.special_names
    else:
        return False
    tokens = [gpt2_files.to_text(token) for token in tokenizer.token_bytes]
    for role, name in names.items():
        tokens[tokenizer.special_ids[role]] = name
    added = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    values = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": tokens[number], **added}
            for number in sorted(tokenizer.special_ids.values())
        ],
        "normalizer": None,
        "pre_tokenizer": _SPLIT,
        "post_processor": None,
        "decoder": _SPLIT,
        "model": {
            **_MODEL,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [[*map(gpt2_files.to_text, pair)] for pair in merges],
        },
    }
    write_json(folder / _FAST, values)
    settings = {"eos_token": names["end"], "bos_token": names.get("bos", names["end"])}
    write_json(
        folder / _SETTINGS,
        {"tokenizer_class": "PreTrainedTokenizerFast", **settings},
    )
    return True
