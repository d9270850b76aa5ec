"""A small T5 that names in a few words what a longer text describes.

Command: python scripts/train.py --config=keras_llm/configs/t5_descriptions.py
--train_text=descriptions.jsonl --run_dir=runs/t5_descriptions

2.6 million weights, one pass over 51,185 pairs; not run to its end yet.
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
        task=SequenceToSequence(target_context=20),
        tokenizer=TokenizerConfig(kind="unigram", vocab_size=6_000),
        # The first sentences say most: what is longer is cut.
        data=DataConfig(context=64, batch_size=32),
        train=TrainConfig(
            steps=1_600,
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
