"""Checkpoint folders of Transformers to model folders."""

import os
import pathlib
from collections.abc import Collection
from typing import Any

from keras_llm.convert import (
    electra_pair,
    fitting,
    gguf_llama,
    gguf_tokenizer,
    llama,
    sentence_files,
    tf_bert,
)
from keras_llm.convert.families import family_of
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.gguf_file import open_gguf
from keras_llm.convert.safetensors_folder import open_tensors
from keras_llm.convert.tokenizer_files import checked_tokenizer
from keras_llm.core import check_absent

Path = str | os.PathLike[str]


def import_folder(
    source: Path,
    out: Path,
    ignored_fields: Collection[str] = (),
    with_tokenizer: bool = True,
) -> None:
    """Reads a checkpoint folder of Transformers and writes a model folder.

    Every tensor is accounted for, and every field of the config understood or
    refused. At most one weight is in memory at a time.

    Args:
        source: Holds `config.json`, and `model.safetensors` or its shards with
            `model.safetensors.index.json`. Or two such folders, `generator` and
            `discriminator`, of an ELECTRA. Or BERT's first release: `bert_config.json`
            with a TensorFlow checkpoint. Files that are links are refused.
        out: The model folder; it must not exist.
        ignored_fields: Fields of their config that change nothing, as you know.
        with_tokenizer: Whether to read the tokenizer's files too, if there are any.

    Raises:
        FileNotFoundError: `source` lacks a file.
        FileExistsError: `out` exists.
        UnsupportedModelError: The config or the tokenizer asks for what ours do not
            do.
        core.CorruptFolderError: A file is malformed; a tensor is missing, left over,
            or of another shape than the config says.
        core.DiskFullError: The disk is full.
    """
    check_absent(out)
    root = pathlib.Path(source)
    if not root.is_dir():
        raise FileNotFoundError(f"A checkpoint folder is needed. Received: {source}.")
    if electra_pair.is_pair(root):
        electra_pair.import_pair(root, out, ignored_fields, with_tokenizer)
        return
    if tf_bert.is_tf_bert(root):
        tf_bert.import_tf_bert(root, out, ignored_fields, with_tokenizer)
        return
    values = {**fitting.read_values(root), **sentence_files.read_pooling(root)}
    family = family_of(values)
    config = family.read_config(values, ignored_fields)
    tokenizer = None
    if with_tokenizer:
        tokenizer = checked_tokenizer(root, values, config.vocab_size)
    with open_tensors(root) as tensors:
        fitting.write_model(tensors, family, config, out, tokenizer)


def import_gguf(source: Path, out: Path, with_tokenizer: bool = True) -> None:
    """Reads a GGUF file of a Llama and writes a model folder.

    Quantised weights become float32, which holds what they stand for. Every tensor is
    accounted for, and every setting of the model understood or refused. At most one
    weight is in memory at a time.

    Args:
        source: The file.
        out: The model folder; it must not exist.
        with_tokenizer: Whether to read the tokenizer too, if there is one.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: `out` exists.
        UnsupportedModelError: Another architecture, or a setting or a tokenizer that
            ours do not do.
        core.CorruptFolderError: The file is cut short or contradicts itself; a tensor
            is missing, left over, or of another shape than the settings say.
        core.DiskFullError: The disk is full.
        ModuleNotFoundError: The library `gguf` is not installed.
    """
    check_absent(out)
    path = pathlib.Path(source)
    with open_gguf(path) as file:
        config = llama.LLAMA.read_config(gguf_llama.read_values(file))
        tokenizer = None
        if with_tokenizer:
            tokenizer = gguf_tokenizer.read_tokenizer(path, file.settings)
        if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
            raise UnsupportedModelError(
                "The model must have a row for each token. Received: "
                f"{tokenizer.vocab_size} tokens, {config.vocab_size} rows in {path}."
            )
        full: Any = llama.complete(config)
        tensors = gguf_llama.LlamaTensors(file, full.num_heads, full.key_value_heads)
        fitting.write_model(tensors, llama.LLAMA, config, out, tokenizer)
