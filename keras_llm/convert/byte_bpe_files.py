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
    return _byte_bpe(path, names, vocabulary, pairs, specials)


def from_two_files(
    vocabulary_file: pathlib.Path, merges_file: pathlib.Path, names: Mapping[str, Any]
) -> ByteBPETokenizer:
    """Reads GPT-2's `vocab.json` and `merges.txt`; arguments as in `from_fast`."""
    vocabulary = gpt2_files.read_vocabulary(vocabulary_file)
    merges = gpt2_files.read_merges(merges_file)
    pairs = [(gpt2_files.to_text(a), gpt2_files.to_text(b)) for a, b in merges]
    specials = {END_TOKEN, *(n for n in names.values() if isinstance(n, str))}
    return _byte_bpe(
        vocabulary_file,
        {"end": END_TOKEN, **names},
        vocabulary,
        pairs,
        specials & set(vocabulary),
    )


def _byte_bpe(
    path: pathlib.Path,
    names: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    pairs: Sequence[Sequence[str]],
    specials: Collection[str],
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
    return ByteBPETokenizer(token_bytes, merges, special_ids, roles)


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
    if isinstance(tokenizer, ByteBPETokenizer):
        merges = tokenizer.merges
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


def special_names(tokenizer: ByteBPETokenizer | ByteTokenizer) -> dict[str, str]:
    """Returns role to spelling of every special token."""
    if isinstance(tokenizer, ByteBPETokenizer):
        return tokenizer.special_names
    return {"end": END_TOKEN}
