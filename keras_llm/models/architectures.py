"""The architectures that the package knows, by the name in their config."""

import concurrent.futures
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_llm.core import Config, checks
from keras_llm.models import (
    bert,
    electra,
    gemma,
    gpt2,
    heads,
    llama,
    lstm_classifier,
    lstm_lm,
    lstm_seq2seq,
    t5,
    text_vae,
    text_vae_decoder,
    transformer,
)


class Architecture(NamedTuple):
    """What an architecture's file offers."""

    config: type[Config]
    build: Callable[..., keras.Model]
    decoder: Callable[[keras.Model, bool], Any] | None  # None: it writes no text.
    # (config, context) -> per token; an encoder-decoder's takes `target_context` too.
    forward_flops: Callable[..., float]


ARCHITECTURES = {
    "bert": Architecture(bert.BertConfig, bert.build_bert, None, bert.forward_flops),
    "electra": Architecture(
        electra.ElectraConfig, electra.build_electra, None, electra.forward_flops
    ),
    "gemma": Architecture(
        gemma.GemmaConfig,
        gemma.build_gemma,
        gemma.GemmaDecoder,
        transformer.forward_flops,
    ),
    "gpt2": Architecture(
        gpt2.GPT2Config, gpt2.build_gpt2, gpt2.GPT2Decoder, transformer.forward_flops
    ),
    "llama": Architecture(
        llama.LlamaConfig,
        llama.build_llama,
        llama.LlamaDecoder,
        transformer.forward_flops,
    ),
    "lstm_classifier": Architecture(
        lstm_classifier.LSTMClassifierConfig,
        lstm_classifier.build_lstm_classifier,
        None,
        lstm_classifier.forward_flops,
    ),
    "lstm_lm": Architecture(
        lstm_lm.LSTMLMConfig,
        lstm_lm.build_lstm_lm,
        lstm_lm.LSTMLMDecoder,
        lstm_lm.forward_flops,
    ),
    "lstm_seq2seq": Architecture(
        lstm_seq2seq.LSTMSeq2SeqConfig,
        lstm_seq2seq.build_lstm_seq2seq,
        lstm_seq2seq.LSTMSeq2SeqDecoder,
        lstm_seq2seq.forward_flops,
    ),
    "t5": Architecture(t5.T5Config, t5.build_t5, t5.T5Decoder, t5.forward_flops),
    "text_vae": Architecture(
        text_vae.TextVAEConfig,
        text_vae.build_text_vae,
        text_vae_decoder.TextVAEDecoder,
        text_vae.forward_flops,
    ),
}


def architecture(name: str) -> Architecture:
    """Returns the architecture called `name`.

    Raises:
        ValueError: There is none of that name.
    """
    checks.check_choice("architecture", name, tuple(ARCHITECTURES))
    return ARCHITECTURES[name]


def build(config: Any, dtype: Any = None) -> keras.Model:
    """Returns a freshly initialised model; its `config` attribute is `config`.

    Args:
        config: The config of any architecture, with `vocab_size` filled in.
        dtype: A dtype or policy for every layer; None for Keras' global policy.

    >>> config = gpt2.GPT2Config(vocab_size=11, width=8, num_layers=2, num_heads=2)
    >>> build(config).config.architecture
    'gpt2'
    """
    return architecture(config.architecture).build(config, dtype)


def skeleton(config: Any) -> keras.Model:
    """Returns the model of a config without values: paths and shapes of its weights.

    It takes no memory to speak of, whatever the sizes, and cannot be called.

    >>> config = gpt2.GPT2Config(vocab_size=1_000_000, width=60_000, num_layers=1)
    >>> table = skeleton(config).get_layer("token_embedding").weights[0]
    >>> table.path, tuple(table.shape)
    ('token_embedding/embeddings', (1000000, 60000))
    """

    def build_without_values():
        with keras.StatelessScope(initialize_variables=False):
            return build(config)

    # Keras keeps a list, one a thread, of weights without values, and fills all of
    # them in when the next scope ends. A thread of its own takes the list with it.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as threads:
        return threads.submit(build_without_values).result()


def decoder(model: keras.Model, jit: bool = False) -> Any:
    """Returns the decoder (`prefill` and `step`) over a built model's layers.

    Args:
        model: A model from `build` or `load`.
        jit: Whether the caller compiles `step` with XLA.

    Raises:
        ValueError: The architecture reads text and writes none.
    """
    make = architecture(model.config.architecture).decoder
    if make is None:
        writers = [name for name, known in ARCHITECTURES.items() if known.decoder]
        raise ValueError(
            "Only a model that predicts the next token can write text. Received: "
            f"architecture={model.config.architecture!r}. Those that can: {writers}."
        )
    return make(model, jit)


def split_head(model: keras.Model) -> tuple[keras.Model, Callable[[Any], Any]]:
    """Splits a model before its output projection.

    Returns:
        The trunk, from the model's inputs to hidden states [B, T, D], and the
        function from hidden states [..., D] to float32 logits [..., V]. A loss can
        so project a piece of the sequence at a time, or its masked tokens alone.

    Raises:
        ValueError: A BERT whose head is not "masked_lm", or an ELECTRA, which runs
            its head over masked tokens as it is.
    """
    names = [layer.name for layer in model.layers]
    last = "final_dropout" if "final_dropout" in names else "final_norm"
    trunk = keras.Model(model.input, model.get_layer(last).output)
    if model.config.architecture in ("bert", "electra"):
        return trunk, heads.built_masked_lm_head(model)
    return trunk, transformer.output_head(model)


def count_parameters(model: keras.Model) -> int:
    """Returns the number of trainable values; a tied table counts once."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def flops_per_token(
    config: Any, context: int | None = None, target_context: int | None = None
) -> float:
    """Returns the floating-point operations that training takes per token.

    Three times the forward pass, whose products each cost two operations: the
    backward pass takes a product for the inputs and one for the weights. This is
    6 N plus the attention over `context` tokens.

    Args:
        config: The config of any architecture.
        context: Tokens per row; None for the config's `max_positions`.
        target_context: Of an encoder-decoder, tokens per target row, with `context`
            those of the source; None for as many. The figure is the mean over both.

    >>> round(flops_per_token(gpt2.GPT2Config(vocab_size=50_257)) / 1e9, 3)
    0.854
    """
    context = context or getattr(config, "max_positions", 0) or 0
    target = {} if target_context is None else {"target_context": target_context}
    forward_flops = architecture(config.architecture).forward_flops
    return 3 * forward_flops(config, context, **target)
