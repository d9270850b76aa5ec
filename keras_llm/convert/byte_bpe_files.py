"""Byte-level BPE as Transformers keeps it: `tokenizer.json`, or GPT-2's two files."""

import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.core import CorruptFolderError
from keras_llm.tokenizers import ByteBPETokenizer, ByteTokenizer, gpt2_files
from keras_llm.tokenizers.byte_bpe_tokenizer import END_TOKEN

# What byte-level BPE does here, as `tokenizer.json` writes it. The regular expression
# is that of `tokenizers/splitting.py`.
_SPLIT = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_BY_BYTES = {**_SPLIT, "use_regex": False}
# The regular expressions of `tokenizers/splitting_by_runs.py`.
_RUNS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|{NUMBERS}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {
    "llama3": _RUNS.replace("{NUMBERS}", r"\p{N}{1,3}"),
    "qwen2": _RUNS.replace("{NUMBERS}", r"\p{N}"),
}
_NFC = {"type": "NFC"}
_DIGITS = {"type": "Digits", "individual_digits": True}
# Tokens that are no special ones, such as <think>: they too enter by id alone, but are
# written into a text.
MARKUP = re.compile(r"<[^\s<>]+>")
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


def from_fast(
    path: pathlib.Path, values: Mapping[str, Any], names: Mapping[str, Any]
) -> ByteBPETokenizer:
    """Reads a `tokenizer.json` whose model is "BPE".

    Args:
        path: The file, for messages.
        values: What it holds.
        names: Spelling, or id, of the special tokens "end" and "bos" where known.

    Raises:
        UnsupportedModelError: It does what byte-level BPE does not do here.
        core.CorruptFolderError: Its ids contradict each other.
    """
    model = {**_MODEL, **values["model"]}
    vocabulary, merges = dict(model.pop("vocab")), model.pop("merges")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        model[name] = model[name] or None  # "" says the same.
    whole_words = model["ignore_merges"]
    model["ignore_merges"] = False
    options = {
        "split": _split_of(values.get("pre_tokenizer"), path),
        "unicode_form": "nfc" if values.get("normalizer") == _NFC else "none",
        "whole_words": whole_words is True,
    }
    for name, given, wanted in (
        ("model", model, _MODEL),
        ("normalizer", values.get("normalizer") or _NFC, _NFC),
    ):
        if given != wanted:
            raise _unsupported(name, f"{wanted}", given, path)
    specials = set()
    for token in values.get("added_tokens") or ():
        name, number = token["content"], token["id"]
        if not (token["special"] or MARKUP.fullmatch(name)):
            raise UnsupportedModelError(
                "Text never turns into an added token here, so each must be special, "
                f"or a mark in angle brackets. Received: {name!r} in {path}. Import "
                "the model without its tokenizer."
            )
        if vocabulary.setdefault(name, number) != number:
            raise CorruptFolderError(f"{path} gives {name!r} two ids.")
        if token["special"]:
            specials.add(name)
        elif not name.isascii():
            raise CorruptFolderError(f"{path} has a mark {name!r} beyond ASCII.")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    return byte_bpe(path, names, vocabulary, pairs, specials, **options)


def _split_of(given: Any, path: pathlib.Path) -> str:
    """Returns which of our splits a `pre_tokenizer` is."""
    steps = [given]
    if isinstance(given, dict) and given.get("type") == "Sequence":
        steps = given["pretokenizers"]
    # Offsets alone are trimmed.
    level = {**_SPLIT, **(steps[-1] or {"type": None}), "trim_offsets": True}
    if len(steps) == 1 and level == _SPLIT:
        return "gpt2"
    if len(steps) == 2 and steps[0] == _DIGITS and level == _SPLIT:
        return "smollm"
    if len(steps) == 2 and level == _BY_BYTES:
        for name in _PATTERNS:
            if steps[0] == _by_pattern(name):
                return name
    wanted = (
        f"{_SPLIT}, alone or behind {_DIGITS}, or before {_BY_BYTES} one of "
        f"{list(_PATTERNS.values())}"
    )
    raise _unsupported("pre_tokenizer", wanted, given, path)


def _by_pattern(name: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": _PATTERNS[name]},
        "behavior": "Isolated",
        "invert": False,
    }


def _unsupported(
    name: str, wanted: str, given: Any, path: pathlib.Path
) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"`{name}` must be {wanted}, which is what byte-level BPE does here. "
        f"Received: {given} in {path}. Import the model without its tokenizer."
    )


def from_two_files(
    vocabulary_file: pathlib.Path, merges_file: pathlib.Path, names: Mapping[str, Any]
) -> ByteBPETokenizer:
    """Reads GPT-2's `vocab.json` and `merges.txt`; arguments as in `from_fast`."""
    vocabulary = gpt2_files.read_vocabulary(vocabulary_file)
    merges = gpt2_files.read_merges(merges_file)
    pairs = [(gpt2_files.to_text(a), gpt2_files.to_text(b)) for a, b in merges]
    specials = {END_TOKEN, *(n for n in names.values() if isinstance(n, str))}
    return byte_bpe(
        vocabulary_file,
        {"end": END_TOKEN, **names},
        vocabulary,
        pairs,
        specials & set(vocabulary),
    )


def byte_bpe(
    path: pathlib.Path,
    names: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    pairs: Sequence[Sequence[str]],
    specials: Collection[str],
    **options: Any,
) -> ByteBPETokenizer:
    """Returns the tokenizer after checking that its ids are 0 to V - 1."""
    tokens = {number: token for token, number in vocabulary.items()}
    if sorted(tokens) != list(range(len(vocabulary))):
        raise CorruptFolderError(
            f"The ids of {len(vocabulary)} tokens must be 0 to {len(vocabulary) - 1}, "
            f"each once. Received: {len(tokens)} different ones in {path}, the "
            f"largest being {max(tokens, default=None)}."
        )
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise CorruptFolderError(
                f"A merge is a pair of tokens. Received: {pair!r} in {path}."
            )
    roles = _roles(path, names, tokens, specials)
    silent = set(roles.values())
    token_bytes = [
        b"" if tokens[number] in silent else gpt2_files.to_bytes(tokens[number])
        for number in range(len(tokens))
    ]
    merges = [
        (gpt2_files.to_bytes(left), gpt2_files.to_bytes(right)) for left, right in pairs
    ]
    special_ids = {role: vocabulary[name] for role, name in roles.items()}
    known = set(token_bytes)
    lacks_bytes = not all(bytes([byte]) in known for byte in range(256))
    return ByteBPETokenizer(
        token_bytes, merges, special_ids, roles, **options, lacks_bytes=lacks_bytes
    )


def _roles(
    path: pathlib.Path,
    names: Mapping[str, Any],
    tokens: Mapping[int, str],
    specials: Collection[str],
) -> dict[str, str]:
    """Returns role to spelling of every special token."""
    roles: dict[str, str] = {}
    for role, name in names.items():
        token = tokens.get(name) if isinstance(name, int) else name
        if token is not None and token in specials and token not in roles.values():
            roles[role] = token
    if "end" not in roles:
        raise UnsupportedModelError(
            "A tokenizer needs a special token that ends a text: `eos_token` in "
            "tokenizer_config.json, or `eos_token_id` in the model's config. "
            f"Received: {names.get('end')!r}, and the special tokens "
            f"{sorted(specials)} in {path}."
        )
    for number, token in tokens.items():
        if token in specials and token not in roles.values():
            role = re.sub(r"\W+", "_", token).strip("_") or f"special_{number}"
            roles[f"special_{number}" if role in roles else role] = token
    return roles


def to_fast(tokenizer: ByteBPETokenizer | ByteTokenizer) -> dict[str, Any]:
    """Returns what `tokenizer.json` holds of a tokenizer; bytes are BPE unmerged."""
    merges: list[tuple[bytes, bytes]] = []
    split, normalizer, whole_words = _SPLIT, None, False
    if isinstance(tokenizer, ByteBPETokenizer):
        merges, whole_words = tokenizer.merges, tokenizer.whole_words
        normalizer = _NFC if tokenizer.unicode_form == "nfc" else None
        if tokenizer.split in _PATTERNS:
            steps = [_by_pattern(tokenizer.split), _BY_BYTES]
            split = {"type": "Sequence", "pretokenizers": steps}
        if tokenizer.split == "smollm":
            split = {"type": "Sequence", "pretokenizers": [_DIGITS, _SPLIT]}
    tokens = [gpt2_files.to_text(token) for token in tokenizer.token_bytes]
    for role, name in special_names(tokenizer).items():
        tokens[tokenizer.special_ids[role]] = name
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
            {"id": number, "content": tokens[number], **added}
            for number in sorted(tokenizer.special_ids.values())
        ],
        "normalizer": normalizer,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": _SPLIT,
        "model": {
            **_MODEL,
            "ignore_merges": whole_words,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [[*map(gpt2_files.to_text, pair)] for pair in merges],
        },
    }


def special_names(tokenizer: ByteBPETokenizer | ByteTokenizer) -> dict[str, str]:
    """Returns role to spelling of every special token."""
    if isinstance(tokenizer, ByteBPETokenizer):
        return tokenizer.special_names
    return {"end": END_TOKEN}
