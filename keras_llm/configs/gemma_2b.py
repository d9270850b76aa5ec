"""The shape of Gemma 2B: 2.51 billion parameters.

The settings of training are those of `llama_160m`, for a start: nobody has trained
this size with them.
"""

from keras_llm.configs import llama_160m
from keras_llm.models import GemmaConfig
from keras_llm.training import Experiment


def get_config() -> Experiment:
    """Returns the experiment."""
    base = llama_160m.get_config()
    return base.replace(
        model=GemmaConfig(
            vocab_size=256_000,
            width=2_048,
            num_layers=18,
            num_heads=8,
            key_value_heads=1,
            head_size=256,
            feed_forward_width=16_384,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=256_000),
    )
