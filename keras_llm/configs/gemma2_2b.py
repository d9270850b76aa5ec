"""The shape of Gemma 2 2B: 2.61 billion parameters.

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
            width=2_304,
            num_layers=26,
            num_heads=8,
            key_value_heads=4,
            head_size=256,
            feed_forward_width=9_216,
            post_norm=True,
            score_soft_cap=50.0,
            logit_soft_cap=30.0,
            window=4_096,
            full_every=2,
        ),
        tokenizer=base.tokenizer.replace(vocab_size=256_000),
    )
