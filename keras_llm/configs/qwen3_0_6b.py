"""The shape of Qwen3 0.6B: 596 million parameters.

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
            vocab_size=151_936,
            width=1_024,
            num_layers=28,
            num_heads=16,
            key_value_heads=8,
            head_size=128,
            feed_forward_width=3_072,
            max_positions=40_960,
            rotary_base=1_000_000.0,
            query_key_norm=True,
            tied=True,
            epsilon=1e-6,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=151_936),
    )
