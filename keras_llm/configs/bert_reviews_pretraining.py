"""A small BERT that learns from the texts of reviews what stands behind masks.

`bert_reviews.py` goes on from it. The labels of the examples are not read.

On 8,437 English film reviews it takes 441 s on one core beside other work and ends at
6.54 nats a masked token of others, 9 % of them found (docs/results.md).

Example: python scripts/train.py --config=keras_llm/configs/bert_reviews_pretraining.py
    --train_text=reviews_en/train.jsonl --valid_text=reviews_en/valid.jsonl
    --run_dir=runs/masks
"""

from keras_llm.data import DataConfig
from keras_llm.models import BertConfig
from keras_llm.training import (
    Experiment,
    MaskedLanguageModel,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=BertConfig(width=128, num_layers=4, num_heads=4, max_positions=128),
        task=MaskedLanguageModel(mask_rate=0.15),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=8_000),
        data=DataConfig(context=64, batch_size=32, separate_documents=False),
        train=TrainConfig(
            steps=640,
            learning_rate=1.5e-3,
            schedule="linear",
            warmup_steps=64,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.01,
            eval_every=160,
            save_every=320,
        ),
    )
