"""A small ELECTRA that learns from the texts of reviews which tokens were replaced.

`bert_reviews.py` goes on from its discriminator, which has the sizes of the BERT of
`bert_reviews_pretraining.py`. The labels of the examples are not read.

It takes as many operations as that BERT's pre-training, within 2 %: 362 s on one core
beside other work. Tuned afterwards, it tells 74.5 % of 1,050 English film reviews
right, the BERT 75.7 % (docs/results.md). So short a run teaches the discriminator
nothing that its validation shows: no replaced token is found yet.

Example: python scripts/train.py
    --config=keras_llm/configs/electra_reviews_pretraining.py
    --train_text=reviews_en/train.jsonl --valid_text=reviews_en/valid.jsonl
    --run_dir=runs/replaced
"""

from keras_llm.configs import bert_reviews_pretraining
from keras_llm.models import ElectraConfig
from keras_llm.training import Experiment, ReplacedTokens


def get_config() -> Experiment:
    """Returns the experiment."""
    bert = bert_reviews_pretraining.get_config()
    return bert.replace(
        model=ElectraConfig(
            width=128,
            num_layers=4,
            num_heads=4,
            embedding_width=128,
            generator_fraction=0.5,
            max_positions=128,
        ),
        task=ReplacedTokens(mask_rate=0.15, discriminator_weight=50.0),
        # A step costs 1.3 of BERT's: these take as many operations, within 2 %.
        # At BERT's rate the discriminator could not be tuned afterwards.
        train=bert.train.replace(
            steps=500,
            learning_rate=5e-4,
            warmup_steps=50,
            eval_every=250,
            save_every=500,
        ),
    )
