"""A bidirectional LSTM that tells which label a review has, on two cores.

--train_text and --valid_text are JSON lines {"text": ..., "label": ...}.

8,437 English film reviews take it 138 s on one core beside other work; of 1,050 others
it tells 79.5 % right, a bag of words 79.3 % (docs/results.md).
Chinese ones do better after a language model: `lstm_reviews_zh.py`.

Example: python scripts/train.py --config=keras_llm/configs/lstm_reviews.py
    --train_text=reviews_en/train.jsonl --valid_text=reviews_en/valid.jsonl
    --run_dir=runs/reviews_en
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
