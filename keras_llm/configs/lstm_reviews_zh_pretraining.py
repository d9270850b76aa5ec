"""An LSTM language model that learns to read from Chinese reviews.

`lstm_reviews_zh.py` goes on from it. The labels of the examples are not read.

On 13,783 reviews it takes 1,001 s on one core beside other work and ends at 5.49 nats a
piece of others.

Example: python scripts/train.py
    --config=keras_llm/configs/lstm_reviews_zh_pretraining.py
    --train_text=reviews_zh/train.jsonl --valid_text=reviews_zh/valid.jsonl
    --run_dir=runs/reviews_zh_lm
"""

from keras_llm.data import DataConfig
from keras_llm.models import LSTMLMConfig
from keras_llm.training import Experiment, LanguageModel, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LSTMLMConfig(
            embedding_width=256, units=512, num_layers=1, tied=True, dropout=0.5
        ),
        task=LanguageModel(),
        tokenizer=TokenizerConfig(kind="unigram", vocab_size=8_000),
        data=DataConfig(context=96, batch_size=32),
        train=TrainConfig(
            steps=3_000,
            learning_rate=4e-3,
            warmup_steps=100,
            weight_decay=0.05,
            eval_every=200,
            save_every=600,
        ),
    )
