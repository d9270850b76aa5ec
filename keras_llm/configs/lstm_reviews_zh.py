"""An LSTM that tells which label a Chinese review has, after a language model.

--init is the model folder of `lstm_reviews_zh_pretraining.py`: what it has learnt to
read, this one learns to judge. --train_text and --valid_text are JSON lines
{"text": ..., "label": ...}.

13,783 reviews take it 417 s on one core beside other work, after 1,001 s of
pre-training; of 1,756 others it tells 85.9 % right over three seeds, pairs of
characters 85.4 % (docs/results.md).

Example: python scripts/train.py --config=keras_llm/configs/lstm_reviews_zh.py
    --init=runs/reviews_zh_lm/best --train_text=reviews_zh/train.jsonl
    --valid_text=reviews_zh/valid.jsonl --run_dir=runs/reviews_zh_lstm
"""

from keras_llm.configs import lstm_reviews_zh_pretraining
from keras_llm.data import DataConfig
from keras_llm.models import LSTMClassifierConfig
from keras_llm.training import Classification, Experiment, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    pretraining = lstm_reviews_zh_pretraining.get_config()
    return Experiment(
        model=LSTMClassifierConfig(
            embedding_width=256,
            units=512,
            bidirectional=False,
            pooling="max",
            dropout=0.5,
        ),
        task=Classification(),
        tokenizer=pretraining.tokenizer,
        data=DataConfig(context=128, batch_size=32),
        train=TrainConfig(
            steps=1_300,
            learning_rate=1e-3,
            warmup_steps=100,
            weight_decay=0.01,
            label_smoothing=0.05,
            ema_decay=0.98,
            eval_every=100,
            save_every=650,
        ),
    )
