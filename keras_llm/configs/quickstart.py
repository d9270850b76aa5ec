"""A small GPT that learns from one book in about three minutes on two cores."""

from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=GPT2Config(
            width=192, num_layers=4, num_heads=6, max_positions=256, dropout=0.1
        ),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=2_048),
        data=DataConfig(context=128, batch_size=16, sampling="windows"),
        train=TrainConfig(
            steps=500,
            learning_rate=2e-3,
            final_learning_rate=1e-4,
            warmup_steps=50,
            weight_decay=0.1,
            eval_every=250,
            save_every=250,
        ),
    )
