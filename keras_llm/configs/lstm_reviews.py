"""A bidirectional LSTM that tells which label a review has, on two cores.

--train_text and --valid_text are JSON lines {"text": ..., "label": ...}.
"""

from keras_llm.data import DataConfig
from keras_llm.models import LSTMClassifierConfig
from keras_llm.training import Classification, Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LSTMClassifierConfig(
            embedding_width=128, units=128, pooling="max", dropout=0.3
        ),
        task=Classification(),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=8_192),
        data=DataConfig(context=256, batch_size=32),
        train=TrainConfig(
            steps=1_000,
            learning_rate=2e-3,
            warmup_steps=50,
            weight_decay=0.01,
            label_smoothing=0.05,
            eval_every=250,
            save_every=250,
            patience=3,
        ),
    )
