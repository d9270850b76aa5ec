"""GPT-2 small: 124 million parameters with GPT-2's vocabulary."""

from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=GPT2Config(vocab_size=50_257),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=50_257),
        data=DataConfig(context=1_024, batch_size=8),
        train=TrainConfig(
            steps=100_000,
            accumulation=8,
            learning_rate=6e-4,
            final_learning_rate=6e-5,
            warmup_steps=2_000,
            dtype="mixed_bfloat16",
            eval_every=1_000,
            save_every=1_000,
        ),
    )
