"""A one-layer LSTM that learns from one book in a few minutes on two cores."""

from keras_llm.data import DataConfig
from keras_llm.models import LSTMLMConfig
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LSTMLMConfig(
            embedding_width=256, units=512, num_layers=1, tied=True, dropout=0.2
        ),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=2_048),
        # Row i goes on where row i ended, and so does the recurrent state.
        data=DataConfig(context=64, batch_size=32, sampling="streams", shuffle=False),
        train=TrainConfig(
            steps=500,
            learning_rate=3e-3,
            final_learning_rate=1e-4,
            warmup_steps=30,
            weight_decay=0.01,
            carry_state=True,
            eval_every=250,
            save_every=250,
        ),
    )
