"""A small ELECTRA that is pre-trained on one book on two cores.

    python scripts/train.py --config=keras_llm/configs/electra_small.py \
        --train_text=testdata/moby_dick.txt --run_dir=runs/electra_small

`models.discriminator` takes the part out that one keeps.
"""

from keras_llm.data import DataConfig
from keras_llm.models import ElectraConfig
from keras_llm.training import (
    Experiment,
    ReplacedTokens,
    TokenizerConfig,
    TrainConfig,
)


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=ElectraConfig(
            width=256,
            num_layers=4,
            num_heads=4,
            embedding_width=128,
            generator_fraction=0.25,
            max_positions=128,
        ),
        task=ReplacedTokens(mask_rate=0.15, discriminator_weight=50.0),
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
