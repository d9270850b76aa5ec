"""GPT-2 medium: 355 million parameters; the settings of training are GPT-2 small's."""

from keras_llm.configs import gpt2_small
from keras_llm.training import Experiment


def get_config() -> Experiment:
    """Returns the experiment."""
    small = gpt2_small.get_config()
    return small.replace(
        model=small.model.replace(width=1_024, num_layers=24, num_heads=16)
    )
