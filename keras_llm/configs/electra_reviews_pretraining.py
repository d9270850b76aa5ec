"""A small ELECTRA that learns from the texts of reviews which tokens were replaced.

`bert_reviews.py` goes on from its discriminator, which has the sizes of the BERT of
`bert_reviews_pretraining.py`. The labels of the examples are not read.
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
        train=bert.train.replace(steps=500, warmup_steps=50, eval_every=125),
    )
