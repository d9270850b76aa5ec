"""The tokenizer's files beside a checkpoint of Transformers.

Only what a tokenizer of this package repeats id by id is read; all else is refused by
its name there. Text never turns into a special token here, and none is put around a
text: what a file says of that is not read.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from keras_llm.convert import byte_bpe_files, wordpiece_files
from keras_llm.convert.chat_templates import adopt_template
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.safetensors_folder import plain_file
from keras_llm.core import CorruptFolderError, read_json, write_json
from keras_llm.tokenizers import (
    ByteBPETokenizer,
    ByteTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)

_FAST, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_SENTENCEPIECE = ("spiece.model", "tokenizer.model")
_WORDPIECE = "vocab.txt"
_TEMPLATE = "chat_template.jinja"
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_CLASSES = {
    _WORDPIECE: ("BertTokenizer", "ElectraTokenizer"),
    _VOCABULARY: ("GPT2Tokenizer",),
}


def read_tokenizer(folder: pathlib.Path, config: Mapping[str, Any]) -> Tokenizer | None:
    """Returns the tokenizer whose files lie beside a checkpoint, None without any.

    A SentencePiece model comes first, since what else is there was made from it.

    Args:
        folder: The checkpoint's folder.
        config: The model's config there, which may name the end by its id.

    Raises:
        UnsupportedModelError: It does what no tokenizer of this package does.
        core.CorruptFolderError: A file is malformed or contradicts another.
        ValueError: What the tokenizer itself refuses.
    """
    try:
        tokenizer = _read(folder, config)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise CorruptFolderError(
            f"The tokenizer's files in {folder} are malformed: "
            f"{type(error).__name__} {error}."
        ) from error
    if tokenizer is not None:
        adopt_template(tokenizer, _template(folder), folder)
    return tokenizer


def _template(folder: pathlib.Path) -> Any:
    """Returns the chat template beside a tokenizer, or None."""
    if _is_there(folder, _TEMPLATE):
        return plain_file(folder, _TEMPLATE).read_text("utf-8")
    return _settings(folder).get("chat_template")


def checked_tokenizer(
    folder: pathlib.Path, config: Mapping[str, Any], vocab_size: int
) -> Tokenizer | None:
    """Returns the tokenizer as `read_tokenizer` does, if the model has all its ids.

    Raises:
        core.CorruptFolderError: It has more ids than the model.
    """
    tokenizer = read_tokenizer(folder, config)
    if tokenizer is not None:
        check_ids(tokenizer, vocab_size, folder)
    return tokenizer


def check_ids(tokenizer: Tokenizer, vocab_size: int, folder: pathlib.Path) -> None:
    """Raises CorruptFolderError if a tokenizer has more ids than its model."""
    if not tokenizer.vocab_size <= vocab_size:
        raise CorruptFolderError(
            "The tokenizer may have no more ids than the model. Received: "
            f"{tokenizer.vocab_size} and {vocab_size} in {folder}."
        )


def _read(folder: pathlib.Path, config: Mapping[str, Any]) -> Tokenizer | None:
    settings = _settings(folder)
    for name in _SENTENCEPIECE:
        if _is_there(folder, name):
            return _sentencepiece(plain_file(folder, name), settings)
    names = _special_names(settings, config)
    if _is_there(folder, _FAST):
        path = plain_file(folder, _FAST)
        values = read_json(path)
        if values["model"].get("type") == "WordPiece":
            return wordpiece_files.from_fast(path, values)
        return byte_bpe_files.from_fast(path, values, names)
    for name, classes in _CLASSES.items():
        if not _is_there(folder, name):
            continue
        given = settings.get("tokenizer_class", classes[0]).removesuffix("Fast")
        if given not in classes:
            raise UnsupportedModelError(
                f"{name} without {_FAST} is read as the vocabulary of a "
                f"{' or '.join(classes)}. Received: tokenizer_class={given!r} in "
                f"{folder}. Import the model without its tokenizer."
            )
        path = plain_file(folder, name)
        if name == _WORDPIECE:
            return wordpiece_files.from_vocabulary(path, settings)
        merges = plain_file(folder, _MERGES)
        return byte_bpe_files.from_two_files(path, merges, names)
    return None


def _sentencepiece(
    path: pathlib.Path, settings: Mapping[str, Any]
) -> SentencePieceTokenizer:
    """Reads a SentencePiece model, with T5's sentinels where the settings have them."""
    extra_ids = settings.get("extra_ids", 0)
    tokenizer = SentencePieceTokenizer.from_file(path, extra_ids)
    added = settings.get("added_tokens_decoder", {})
    beyond = [n for n in added if not int(n) < tokenizer.vocab_size]
    if beyond:
        raise UnsupportedModelError(
            f"Tokens added behind the {tokenizer.vocab_size} pieces of a SentencePiece "
            f"model are not read. Received: {[added[n]['content'] for n in beyond]} "
            f"beside {path}. Import the model without its tokenizer."
        )
    return tokenizer


def _special_names(
    settings: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns role to spelling, or else to id, of the end and the beginning."""
    names = {}
    for role, field in (("end", "eos_token"), ("bos", "bos_token")):
        token = settings.get(field)
        if token is None:
            token = config.get(f"{field}_id")  # A chat model has several: the first.
            token = token[0] if isinstance(token, list) else token
        token = token["content"] if isinstance(token, dict) else token
        if token is not None:
            names[role] = token
    return names


def _settings(folder: pathlib.Path) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, empty where there is none."""
    if not _is_there(folder, _SETTINGS):
        return {}
    settings = read_json(plain_file(folder, _SETTINGS))
    if not isinstance(settings, dict):
        raise CorruptFolderError(f"{folder / _SETTINGS} must hold a JSON object.")
    return settings


def _is_there(folder: pathlib.Path, name: str) -> bool:
    path = folder / name
    return path.is_symlink() or path.exists()


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer) -> bool:
    """Writes the files of a tokenizer, where there is a counterpart.

    Args:
        folder: An existing folder.
        tokenizer: Of bytes, byte-level BPE, WordPiece or SentencePiece.

    Returns:
        Whether it has a counterpart; else nothing is written.
    """
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if isinstance(tokenizer, (ByteBPETokenizer, ByteTokenizer)):
        names = byte_bpe_files.special_names(tokenizer)
        write_json(folder / _FAST, byte_bpe_files.to_fast(tokenizer))
        settings["eos_token"] = names["end"]
        settings["bos_token"] = names.get("bos", names["end"])
    elif isinstance(tokenizer, WordPieceTokenizer):
        write_json(folder / _FAST, wordpiece_files.to_fast(tokenizer))
        for role in ("pad", "unk", "cls", "sep", "mask"):
            settings[f"{role}_token"] = f"[{role.upper()}]"
    elif isinstance(tokenizer, SentencePieceTokenizer):
        name = _SENTENCEPIECE[0 if tokenizer.sentinel_ids else 1]
        (folder / name).write_bytes(tokenizer.model)
        settings = {"extra_ids": tokenizer.extra_ids}
    else:
        return False
    write_json(folder / _SETTINGS, settings)
    return True
