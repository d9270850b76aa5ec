"""The shape of Llama 3.2 1B: 1.24 billion parameters.

The settings of training are those of `llama_160m`, for a start: nobody has trained
this size with them.
"""

from keras_llm.configs import llama_160m
from keras_llm.models import LlamaConfig, RotaryScaling
from keras_llm.training import Experiment


def get_config() -> Experiment:
    """Returns the experiment."""
    base = llama_160m.get_config()
    return base.replace(
        model=LlamaConfig(
            vocab_size=128_256,
            width=2_048,
            num_layers=16,
            num_heads=32,
            key_value_heads=8,
            feed_forward_width=8_192,
            max_positions=131_072,
            rotary_base=500_000.0,
            rotary_scaling=RotaryScaling(factor=32.0),
            tied=True,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=128_256),
    )
