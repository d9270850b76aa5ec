"""Backbones of KerasHub, in memory, to our models.

A backbone is read as the checkpoint that Transformers would keep of it: a config of
theirs, and tensors by their names. So the mapping to our weights is stated once, in the
families' own files.
"""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras

from keras_llm import models
from keras_llm.convert import fitting, hub_bert, hub_gemma, hub_gpt2, hub_llama, hub_t5
from keras_llm.convert.families import family_of
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_tensors import HubTensors
from keras_llm.tokenizers import (
    ByteBPETokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)


def from_keras_hub(backbone: Any, max_positions: int | None = None) -> keras.Model:
    """Returns our model with the weights of a backbone of KerasHub.

    Its logits are those that KerasHub's `CausalLM` or `Seq2SeqLM` makes of the
    backbone; a BERT becomes a `bert` with the head "embed". Save, train and export it
    as any model of ours.

    Args:
        backbone: A built `GPT2Backbone`, `LlamaBackbone` (`Llama3Backbone` too),
            `MistralBackbone`, `QwenBackbone`, `GemmaBackbone` (versions 1 and 2),
            `BertBackbone` or `T5Backbone`.
        max_positions: Longest row, in tokens, where the backbone has no table of
            positions; None for what our config takes by default.

    Returns:
        A model in Keras' global policy.

    Raises:
        UnsupportedModelError: Another class, a choice that our models do not have, or
            weights beside the known ones, such as an adapter's or those of
            quantisation.

    >>> import keras_hub
    >>> backbone = keras_hub.models.GPT2Backbone(
    ...     vocabulary_size=11, num_layers=1, num_heads=2, hidden_dim=8,
    ...     intermediate_dim=12, max_sequence_length=6,
    ... )
    >>> from_keras_hub(backbone)(np.array([[1, 2, 3]])).shape
    TensorShape([1, 3, 11])
    """
    values, tensors = description(backbone)(backbone, max_positions)
    tensors.check_all_used(backbone.weights)
    family = family_of(values)
    config = family.read_config(values)
    model = models.build(config)
    weights = fitting.weights_as_in(tensors, family, config, model)
    by_path = {weight.path: weight for weight in model.weights}
    for path, array in fitting.joined(weights, tensors):
        by_path[path].assign(array)
    return model


def tokenizer_from_keras_hub(tokenizer: Any) -> Tokenizer:
    """Returns our tokenizer with the vocabulary of one of KerasHub.

    Args:
        tokenizer: A `GPT2Tokenizer`, a `BertTokenizer`, or one by SentencePiece, as
            Llama's, Mistral's, Gemma's and T5's.

    Raises:
        UnsupportedModelError: Another class.
    """
    names = {base.__name__ for base in type(tokenizer).__mro__}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if names & {"GPT2Tokenizer", "BertTokenizer", "SentencePieceTokenizer"}:
            tokenizer.save_assets(name)
        if "GPT2Tokenizer" in names:
            return ByteBPETokenizer.from_gpt2_files(
                folder / "vocabulary.json", folder / "merges.txt"
            )
        if "BertTokenizer" in names:
            return WordPieceTokenizer.from_file(
                folder / "vocabulary.txt",
                lower_case=tokenizer.lowercase,
                strip_accents=tokenizer.strip_accents,
            )
        if "SentencePieceTokenizer" in names:
            return SentencePieceTokenizer.from_file(folder / "vocabulary.spm")
    raise UnsupportedModelError(
        "A tokenizer of KerasHub must be GPT-2's, BERT's, or one by SentencePiece. "
        f"Received: {type(tokenizer).__name__}. Read the model's own files instead: "
        "`convert.import_folder`."
    )


_DESCRIPTIONS: dict[str, Callable[[Any, int | None], tuple[dict, HubTensors]]] = {
    "GPT2Backbone": hub_gpt2.gpt2,
    "LlamaBackbone": hub_llama.llama,
    "MistralBackbone": hub_llama.mistral,
    "QwenBackbone": hub_llama.qwen,
    "GemmaBackbone": hub_gemma.gemma,
    "BertBackbone": hub_bert.bert,
    "T5Backbone": hub_t5.t5,
}


def description(backbone: Any) -> Callable[..., tuple[dict, HubTensors]]:
    """Returns the function that describes a backbone of its class."""
    for base in type(backbone).__mro__:
        if base.__module__.startswith("keras_hub.") and base.__name__ in _DESCRIPTIONS:
            return _DESCRIPTIONS[base.__name__]
    inner = type(getattr(backbone, "backbone", None)).__name__
    remedy = " Give its `.backbone`." if inner in _DESCRIPTIONS else ""
    raise UnsupportedModelError(
        f"KerasHub's {', '.join(_DESCRIPTIONS)} are read. Received: "
        f"{type(backbone).__name__}.{remedy}"
    )
