"""One file per architecture: config, functional builder, decoder."""

from keras_llm.models.adapter_folder import load_adapter, save_adapter
from keras_llm.models.adapters import (
    AdapterConfig,
    adapter_weights,
    add_adapter,
    has_adapter,
)
from keras_llm.models.architectures import (
    ARCHITECTURES,
    build,
    count_parameters,
    decoder,
    flops_per_token,
    skeleton,
    split_head,
)
from keras_llm.models.bert import BertConfig, build_bert
from keras_llm.models.electra import ElectraConfig, build_electra, discriminator
from keras_llm.models.folder import (
    has_tokenizer,
    load,
    load_config,
    load_tokenizer,
    load_weights,
    merged,
    open_values,
    save,
    save_values,
)
from keras_llm.models.gemma import GemmaConfig, GemmaDecoder, build_gemma
from keras_llm.models.gpt2 import GPT2Config, GPT2Decoder, build_gpt2
from keras_llm.models.llama import LlamaConfig, LlamaDecoder, RotaryScaling, build_llama
from keras_llm.models.lstm_classifier import LSTMClassifierConfig, build_lstm_classifier
from keras_llm.models.lstm_lm import LSTMLMConfig, LSTMLMDecoder, build_lstm_lm
from keras_llm.models.lstm_seq2seq import (
    LSTMSeq2SeqConfig,
    LSTMSeq2SeqDecoder,
    build_lstm_seq2seq,
)
from keras_llm.models.prompts import PromptConfig, prompted_tokenizer
from keras_llm.models.quantized import quantize, quantized_weights
from keras_llm.models.several_adapters import add_adapters, several_adapters
from keras_llm.models.sharding import layout_map
from keras_llm.models.t5 import T5Config, T5Decoder, build_t5
from keras_llm.models.text_vae import TextVAEConfig, build_text_vae
from keras_llm.models.text_vae_decoder import TextVAEDecoder
from keras_llm.models.transfer import transfer_weights

__all__ = [
    "ARCHITECTURES",
    "AdapterConfig",
    "BertConfig",
    "ElectraConfig",
    "GPT2Config",
    "GPT2Decoder",
    "GemmaConfig",
    "GemmaDecoder",
    "LSTMClassifierConfig",
    "LSTMLMConfig",
    "LSTMLMDecoder",
    "LSTMSeq2SeqConfig",
    "LSTMSeq2SeqDecoder",
    "LlamaConfig",
    "LlamaDecoder",
    "PromptConfig",
    "RotaryScaling",
    "T5Config",
    "T5Decoder",
    "TextVAEConfig",
    "TextVAEDecoder",
    "adapter_weights",
    "add_adapter",
    "add_adapters",
    "build",
    "build_bert",
    "build_electra",
    "build_gemma",
    "build_gpt2",
    "build_llama",
    "build_lstm_classifier",
    "build_lstm_lm",
    "build_lstm_seq2seq",
    "build_t5",
    "build_text_vae",
    "count_parameters",
    "decoder",
    "discriminator",
    "flops_per_token",
    "has_adapter",
    "has_tokenizer",
    "layout_map",
    "load",
    "load_adapter",
    "load_config",
    "load_tokenizer",
    "load_weights",
    "merged",
    "open_values",
    "prompted_tokenizer",
    "quantize",
    "quantized_weights",
    "save",
    "save_adapter",
    "save_values",
    "several_adapters",
    "skeleton",
    "split_head",
    "transfer_weights",
]
