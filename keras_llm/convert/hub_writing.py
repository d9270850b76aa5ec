"""Our decoders to backbones of KerasHub, in memory: their presets are one call away.

A backbone is built, described as the checkpoint that it would be (`hub_backbones`), and
filled by the same description read backwards. So no mapping is stated twice.
"""

from collections.abc import Callable
from typing import Any

import keras

from keras_llm import models
from keras_llm.convert.families import family_for
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_backbones import description

# What `LlamaBackbone` and `MistralBackbone` do not write into a preset.
_NEVER_TIED = ("llama", "mistral")


def to_keras_hub(model: keras.Model) -> Any:
    """Returns a backbone of KerasHub with the weights of a decoder of ours.

    KerasHub's `CausalLM` makes the same logits of it, for rows of one document each.
    `backbone.save_to_preset(folder)` writes KerasHub's preset layout. A Llama or a
    Mistral whose head is the table of its tokens gets the table twice, since their
    presets do not say that the two are one.

    Args:
        model: A `gpt2`, a `gemma`, or a `llama` in the shape of Llama 1 to 3, Mistral
            or Qwen 2.

    Returns:
        A `GPT2Backbone`, `GemmaBackbone`, `LlamaBackbone`, `Llama3Backbone`,
        `MistralBackbone` or `QwenBackbone`.

    Raises:
        ImportError: keras_hub is not installed.
        UnsupportedModelError: Another model, a field that the backbone does not have,
            or an adapter that is not merged.

    >>> from keras_llm import models
    >>> config = models.GPT2Config(vocab_size=11, width=8, num_layers=1, num_heads=2)
    >>> type(to_keras_hub(models.build(config))).__name__
    'GPT2Backbone'
    """
    if models.has_adapter(model):
        raise UnsupportedModelError(
            "A backbone is made of a plain model. Received: a model with an adapter. "
            "Give models.merged(model)."
        )
    values = {
        weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights
    }
    config, kind = model.config, family_for(model.config).model_type
    if kind not in _MAKERS:
        raise UnsupportedModelError(
            f"To KerasHub go the kinds {', '.join(_MAKERS)}. Received: a model of the "
            f"kind {kind!r}. Write it for Transformers: convert.export_folder."
        )
    if kind in _NEVER_TIED and config.tied:
        config = config.replace(tied=False)
        values["head/kernel"] = values["token_embedding/embeddings"].T
    family = family_for(config)
    config = family.complete(config)
    if config.feed_forward_width is None:
        config = config.replace(feed_forward_width=config.inner_dim)
    backbone = _MAKERS[kind](config)
    has_table = kind == "gpt2"
    described, tensors = description(backbone)(
        backbone, None if has_table else config.max_positions
    )
    _check_same(config, family.complete(family.read_config(described)), kind)
    for weight in family.weights(config):
        parts = weight.split(values[weight.ours])
        for name, part in zip(weight.theirs, parts, strict=True):
            tensors.write(name, part)
    tensors.check_all_used(backbone.weights)
    return backbone


def _check_same(ours: Any, theirs: Any, kind: str) -> None:
    """Raises UnsupportedModelError for a field that the backbone has otherwise."""
    mine, there = ours.to_dict(), theirs.to_dict()
    differing = {
        name: (value, there[name])
        for name, value in mine.items()
        # Rows of one document each are the same without it.
        if name != "separator_id" and value != there[name]
    }
    if differing:
        listed = ", ".join(
            f"{name}={own!r}, where it has {other!r}"
            for name, (own, other) in differing.items()
        )
        raise UnsupportedModelError(
            f"KerasHub's backbone for {kind!r} must be able to say all that the model "
            f"is. Received: {listed}. Write it for Transformers: convert.export_folder."
        )


def _gpt2(config: Any) -> Any:
    import keras_hub

    return keras_hub.models.GPT2Backbone(
        vocabulary_size=config.vocab_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.width,
        intermediate_dim=config.feed_forward_width,
        dropout=config.dropout,
        max_sequence_length=config.max_positions,
    )


def _grouped(config: Any) -> dict[str, Any]:
    """Returns the arguments that all backbones with grouped queries have."""
    return {
        "vocabulary_size": config.vocab_size,
        "num_layers": config.num_layers,
        "hidden_dim": config.width,
        "intermediate_dim": config.feed_forward_width,
        "num_query_heads": config.num_heads,
        "num_key_value_heads": config.key_value_heads,
        "layer_norm_epsilon": config.epsilon,
        "dropout": config.dropout,
    }


def _llama(config: Any) -> Any:
    import keras_hub

    sizes = {**_grouped(config), "rope_max_wavelength": config.rotary_base}
    if config.rotary_scaling is None:
        return keras_hub.models.LlamaBackbone(**sizes)
    factor, low, high, original = config.rotary_scaling.numbers()
    return keras_hub.models.Llama3Backbone(
        **sizes,
        rope_frequency_adjustment_factor=factor,
        rope_low_freq_factor=low,
        rope_high_freq_factor=high,
        rope_pretraining_sequence_length=original,
    )


def _mistral(config: Any) -> Any:
    import keras_hub

    return keras_hub.models.MistralBackbone(
        **_grouped(config),
        rope_max_wavelength=config.rotary_base,
        sliding_window=config.window,
        head_dim=config.head_size,
    )


def _qwen(config: Any) -> Any:
    import keras_hub

    return keras_hub.models.QwenBackbone(
        **_grouped(config),
        rope_max_wavelength=config.rotary_base,
        tie_word_embeddings=config.tied,
    )


def _gemma(config: Any) -> Any:
    import keras_hub

    # KerasHub counts gate and value together.
    sizes = {**_grouped(config), "intermediate_dim": 2 * config.feed_forward_width}
    by_head = config.score_divisor in (None, config.head_size)
    return keras_hub.models.GemmaBackbone(
        **sizes,
        head_dim=config.head_size,
        query_head_dim_normalize=by_head,
        use_post_ffw_norm=config.post_norm,
        use_post_attention_norm=config.post_norm,
        attention_logit_soft_cap=config.score_soft_cap,
        final_logit_soft_cap=config.logit_soft_cap,
        use_sliding_window_attention=config.window is not None,
        sliding_window_size=config.window or 1,
    )


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen,
    "gemma": _gemma,
    "gemma2": _gemma,
}
