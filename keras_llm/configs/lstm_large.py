"""A deep LSTM: 10,000 tokens, embeddings of 512, six layers of 1,024 units.

Its 64 million weights want a corpus of some hundred megabytes, and a GPU or a day.
"""

from keras_llm.data import DataConfig
from keras_llm.models import LSTMLMConfig
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LSTMLMConfig(
            vocab_size=10_000,
            embedding_width=512,
            units=1_024,
            num_layers=6,
            # Without a way around them, six recurrent layers hardly learn.
            residual=True,
            pre_norm=True,
            dropout=0.2,
        ),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=10_000),
        # Row i goes on where row i ended, and so does the recurrent state.
        data=DataConfig(context=128, batch_size=64, sampling="streams", shuffle=False),
        train=TrainConfig(
            steps=50_000,
            learning_rate=1e-3,
            final_learning_rate=1e-5,
            warmup_steps=1_000,
            weight_decay=0.01,
            carry_state=True,
            eval_every=1_000,
            save_every=1_000,
        ),
    )
