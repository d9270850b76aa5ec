"""A Llama of GPT-2 small's depth and width: 162 million parameters.

With a window of 1,024 tokens it reads rows of 2,048, as Mistral does at its scale.
It wants a GPU and a corpus of some gigabytes.
"""

from keras_llm.data import DataConfig
from keras_llm.models import LlamaConfig
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=LlamaConfig(
            width=768,
            num_layers=12,
            num_heads=12,
            key_value_heads=4,
            max_positions=2_048,
            window=1_024,
        ),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=50_257),
        data=DataConfig(context=2_048, batch_size=8),
        train=TrainConfig(
            steps=100_000,
            accumulation=16,
            learning_rate=6e-4,
            final_learning_rate=6e-5,
            warmup_steps=2_000,
            dtype="mixed_bfloat16",
            eval_every=1_000,
            save_every=1_000,
        ),
    )
