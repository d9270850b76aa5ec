"""Llamas in GGUF files, told in the terms of their Transformers checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.gguf_file import GGUFFile

ARCHITECTURE = "llama"
_PREFIX = f"{ARCHITECTURE}."

# Their setting, behind the prefix, to the field of a config.json; which must be there.
_FIELDS = {
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
# With the value that says what ours does.
_FIXED = {"expert_count": 0, "expert_used_count": 0, "rope.scaling.type": "none"}
_SIZES_OF_HEADS = (
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
)
_KNOWN = {"vocab_size", *_FIELDS, *_OPTIONAL, *_FIXED, *_SIZES_OF_HEADS}

_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_A_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_values(file: GGUFFile) -> dict[str, Any]:
    """Returns the `config.json` that a file's settings amount to.

    Raises:
        UnsupportedModelError: Another architecture, or a setting that is missing,
            unknown or not what our `llama` does.
    """
    kind = file.settings.get("general.architecture")
    if kind != ARCHITECTURE:
        raise UnsupportedModelError(
            f"GGUF files are read of the architecture {ARCHITECTURE!r}, which Mistral "
            f"and SmolLM2 have too. Received: {kind!r}. Import its Transformers folder."
        )
    own = {
        name.removeprefix(_PREFIX): _plain(value)
        for name, value in file.settings.items()
        if name.startswith(_PREFIX)
    }
    _check(own, file)
    values = {"model_type": "llama", "tie_word_embeddings": True}
    values["tie_word_embeddings"] = "output.weight" not in file.shapes
    for name, field in {**_FIELDS, **_OPTIONAL}.items():
        if name in own:
            values[field] = own[name]
    if "token_embd.weight" in file.shapes:
        values["vocab_size"] = file.shapes["token_embd.weight"][0]
    return values


def _check(own: Mapping[str, Any], file: GGUFFile) -> None:
    """Raises UnsupportedModelError for what our `llama` does not do."""
    missing = sorted(set(_FIELDS) - set(own))
    unknown = {name: value for name, value in own.items() if name not in _KNOWN}
    if missing or unknown:
        raise UnsupportedModelError(
            "A GGUF file of a Llama must hold settings whose meaning is known here, "
            f"and no others. Missing: {missing}; unknown: {unknown}."
        )
    for name, wanted in _FIXED.items():
        if own.get(name, wanted) != wanted:
            raise UnsupportedModelError(
                f"`{_PREFIX}{name}` must be {wanted!r}: our `llama` does nothing else. "
                f"Received: {own[name]!r}."
            )
    if "rope_freqs.weight" in file.shapes:
        raise UnsupportedModelError(
            "A GGUF file keeps Llama 3's scaled rotary positions as numbers without "
            "the settings that they came from. Received: a tensor `rope_freqs.weight`. "
            "Import the Transformers folder of the model."
        )
    heads = own["attention.head_count"]
    sizes = {own[name] for name in _SIZES_OF_HEADS if name in own}
    if isinstance(heads, int) and heads > 0 and "attention.key_length" not in own:
        sizes.add(own["embedding_length"] // heads)
    if len(sizes) > 1:
        raise UnsupportedModelError(
            "Keys, values and rotary positions must be of one size. Received: "
            f"{sorted(sizes)} in {', '.join(_SIZES_OF_HEADS)}."
        )


def _plain(value: Any) -> Any:
    """Returns a setting; of a float32 the shortest number that is it."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value


class LlamaTensors:
    """A file's tensors under the names of Transformers, their rows in its order.

    llama.cpp rotates pairs of neighbouring rows of queries and keys, and its converter
    lays the rows so; here a head's first half pairs with its second.

    Attributes:
        shapes: Name to shape.
    """

    def __init__(self, file: GGUFFile, heads: int, key_value_heads: int):
        self._file = file
        self._heads = {"attn_q.weight": heads, "attn_k.weight": key_value_heads}
        self._names = {_their_name(name): name for name in file.shapes}
        self.shapes = {name: file.shapes[their] for name, their in self._names.items()}

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a tensor is of a type that can be read."""
        self._file.check_readable(self._names[name])

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32."""
        their = self._names[name]
        values = self._file.read(their)
        heads = self._heads.get(their.split(".", 2)[-1])
        return values if heads is None else _halves(values, heads)


def _their_name(name: str) -> str:
    """Returns what Transformers calls a tensor; unchanged if that is not known."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    parts = name.split(".")
    known = len(parts) == 4 and parts[0] == "blk" and parts[2] in _IN_A_BLOCK
    if not known:
        return name
    return f"model.layers.{parts[1]}.{_IN_A_BLOCK[parts[2]]}.{parts[3]}"


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Returns the rows [N * H, D] with pairs of neighbours taken apart.

    >>> _halves(np.arange(8)[:, None], heads=2).ravel()
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
