"""A small LSTM translator with attention, from JSON lines of sources and targets.

Command: python scripts/train.py --config=keras_llm/configs/lstm_translation.py
--train_text=pairs.jsonl --run_dir=runs/translation

2.1 million weights, 2,400 steps: 709 s on one shared core of two (AMD EPYC, Zen 5) for
23,408 pairs. What came out is in docs/results.md.
"""

from keras_llm.data import DataConfig
from keras_llm.models import LSTMSeq2SeqConfig
from keras_llm.training import (
    Experiment,
    SequenceToSequence,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LSTMSeq2SeqConfig(
            embedding_width=192, units=320, num_layers=1, tied=True, dropout=0.1
        ),
        task=SequenceToSequence(target_context=40),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4_096),
        data=DataConfig(context=40, batch_size=32),
        train=TrainConfig(
            steps=2_400,
            learning_rate=3e-3,
            final_learning_rate=1e-4,
            warmup_steps=100,
            weight_decay=0.01,
            label_smoothing=0.1,
            dtype="mixed_bfloat16",
            eval_every=400,
            save_every=400,
        ),
    )
