"""The shape of Mistral 7B, of its first version: 7.24 billion parameters.

The settings of training are those of `llama_160m`, for a start: nobody has trained
this size with them.
"""

from keras_llm.configs import llama_160m
from keras_llm.models import LlamaConfig
from keras_llm.training import Experiment


def get_config() -> Experiment:
    """Returns the experiment."""
    base = llama_160m.get_config()
    return base.replace(
        model=LlamaConfig(
            vocab_size=32_000,
            width=4_096,
            num_layers=32,
            num_heads=32,
            key_value_heads=8,
            feed_forward_width=14_336,
            max_positions=32_768,
            window=4_096,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=32_000),
    )
