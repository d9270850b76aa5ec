"""A small BERT that is pre-trained on one book on two cores.

    python scripts/train.py --config=keras_llm/configs/bert_small.py \
        --train_text=testdata/moby_dick.txt --run_dir=runs/bert_small

Chinese wants a table of its characters: --tokenizer.vocab_size=8000.
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
        model=BertConfig(width=256, num_layers=4, num_heads=4, max_positions=128),
        task=MaskedLanguageModel(mask_rate=0.15),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=4_096),
        data=DataConfig(context=128, batch_size=32, separate_documents=False),
        train=TrainConfig(
            steps=1_500,
            learning_rate=5e-4,
            schedule="linear",
            warmup_steps=150,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.01,
            eval_every=250,
            save_every=250,
        ),
    )
