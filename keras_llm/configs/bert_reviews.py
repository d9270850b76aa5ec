"""A small BERT that tells which label a review has.

--train_text and --valid_text are JSON lines {"text": ..., "label": ...}. With
--init=FOLDER it starts from a BERT or an ELECTRA of the same sizes that was
pretrained on plain text, and reads text with its tokenizer; without, it learns all
from the reviews.
"""

from keras_llm.configs import bert_reviews_pretraining
from keras_llm.data import DataConfig
from keras_llm.training import Classification, Experiment, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    pretraining = bert_reviews_pretraining.get_config()
    return Experiment(
        model=pretraining.model.replace(head="classify"),
        task=Classification(),
        tokenizer=pretraining.tokenizer,
        data=DataConfig(context=64, batch_size=32),
        train=TrainConfig(
            steps=600,
            learning_rate=3e-4,
            schedule="linear",
            warmup_steps=60,
            beta2=0.999,
            weight_decay=0.01,
            eval_every=100,
            save_every=300,
        ),
    )
