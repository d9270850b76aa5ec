"""GPT-2 large: 774 million parameters; the settings of training are GPT-2 small's."""

from keras_llm.configs import gpt2_small
from keras_llm.training import Experiment


def get_config() -> Experiment:
    """Returns the experiment."""
    small = gpt2_small.get_config()
    return small.replace(
        model=small.model.replace(width=1_280, num_layers=36, num_heads=20)
    )
