"""The shape of SmolLM2 135M: 135 million parameters.

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
            vocab_size=49_152,
            width=576,
            num_layers=30,
            num_heads=9,
            key_value_heads=3,
            feed_forward_width=1_536,
            max_positions=8_192,
            rotary_base=100_000.0,
            tied=True,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=49_152),
    )
