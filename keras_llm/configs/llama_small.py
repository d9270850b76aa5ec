"""A small Llama that learns from one book on two cores.

Eight query heads share two key/value heads, so its cache is a quarter of a GPT's.
"""

from keras_llm.data import DataConfig
from keras_llm.models import LlamaConfig
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LlamaConfig(
            width=256,
            num_layers=6,
            num_heads=8,
            key_value_heads=2,
            max_positions=256,
            tied=True,
            dropout=0.1,
        ),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4_096),
        data=DataConfig(context=128, batch_size=16, sampling="windows"),
        train=TrainConfig(
            steps=1_000,
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            warmup_steps=100,
            eval_every=250,
            save_every=250,
        ),
    )
