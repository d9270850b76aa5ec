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
            embedding_width=128, units=128, pooling="max", dropout=0.5
        ),
        task=Classification(),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=12_000),
        data=DataConfig(context=64, batch_size=32),
        train=TrainConfig(
            steps=600,
            learning_rate=3e-3,
            warmup_steps=50,
            weight_decay=0.01,
            label_smoothing=0.05,
            ema_decay=0.98,
            eval_every=75,
            save_every=300,
        ),
    )
