"""A small BERT that tells which label a review has.

--train_text and --valid_text are JSON lines {"text": ..., "label": ...}. With
--init=FOLDER it starts from a BERT or an ELECTRA of the same sizes that was
pretrained on plain text, and reads text with its tokenizer; without, it learns all
from the reviews.
"""

from keras_llm.data import DataConfig
from keras_llm.models import BertConfig
from keras_llm.training import Classification, Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=BertConfig(
            head="classify",
            width=256,
            num_layers=4,
            num_heads=4,
            max_positions=128,
        ),
        task=Classification(),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=4_096),
        data=DataConfig(context=128, batch_size=32),
        train=TrainConfig(
            steps=600,
            learning_rate=2e-4,
            schedule="linear",
            warmup_steps=60,
            beta2=0.999,
            weight_decay=0.01,
            eval_every=150,
            save_every=150,
            patience=3,
        ),
    )
