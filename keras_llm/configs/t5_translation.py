"""A small T5 translator, from JSON lines of sources and targets.

Command: python scripts/train.py --config=keras_llm/configs/t5_translation.py
--train_text=pairs.jsonl --run_dir=runs/t5_translation

2.3 million weights, about those of lstm_translation. Of English help pages into French:
3.02 nats a token and BLEU 12.1 on held-out pairs, in 29 minutes on one busy core
(docs/results.md); the LSTM gets 28.3 of as many steps.
"""

from keras_llm.data import DataConfig
from keras_llm.models import T5Config
from keras_llm.training import (
    Experiment,
    SequenceToSequence,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=T5Config(
            width=192,
            num_layers=2,
            num_heads=4,
            head_size=32,
            feed_forward_width=384,
            max_positions=64,
            tied=True,
            dropout=0.1,
        ),
        task=SequenceToSequence(target_context=40),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4_096),
        data=DataConfig(context=40, batch_size=32),
        train=TrainConfig(
            steps=2_400,
            # T5's first weights are of unlike sizes, from 1 to 0.01.
            relative_rate=True,
            learning_rate=0.01,
            final_learning_rate=0.0005,
            warmup_steps=100,
            weight_decay=0.01,
            label_smoothing=0.1,
            eval_every=400,
            save_every=400,
        ),
    )
