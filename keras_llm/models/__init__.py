"""One file per architecture: config, functional builder, decoder."""

from keras_llm.models.architectures import (
    ARCHITECTURES,
    build,
    count_parameters,
    decoder,
    flops_per_token,
    skeleton,
    split_head,
)
from keras_llm.models.folder import (
    load,
    load_config,
    load_tokenizer,
    load_weights,
    open_values,
    save,
    save_values,
)
from keras_llm.models.gpt2 import GPT2Config, GPT2Decoder, build_gpt2
from keras_llm.models.llama import LlamaConfig, LlamaDecoder, build_llama
from keras_llm.models.lstm_lm import LSTMLMConfig, LSTMLMDecoder, build_lstm_lm

__all__ = [
    "ARCHITECTURES",
    "GPT2Config",
    "GPT2Decoder",
    "LSTMLMConfig",
    "LSTMLMDecoder",
    "LlamaConfig",
    "LlamaDecoder",
    "build",
    "build_gpt2",
    "build_llama",
    "build_lstm_lm",
    "count_parameters",
    "decoder",
    "flops_per_token",
    "load",
    "load_config",
    "load_tokenizer",
    "load_weights",
    "open_values",
    "save",
    "save_values",
    "skeleton",
    "split_head",
]
