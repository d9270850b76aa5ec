"""The shape of Qwen2.5 0.5B: 494 million parameters.

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
            width=896,
            num_layers=24,
            num_heads=14,
            key_value_heads=2,
            feed_forward_width=4_864,
            max_positions=32_768,
            rotary_base=1_000_000.0,
            query_key_value_bias=True,
            tied=True,
            epsilon=1e-6,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=151_936),
    )
