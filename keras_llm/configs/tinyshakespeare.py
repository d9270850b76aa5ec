"""nanoGPT's CPU setting on tinyshakespeare's characters, at a higher learning rate.

The rate is five times nanoGPT's and falls along a line: 1,200 steps end lower than its
2,000, at 1.866 nats a character of the validation text, after about a minute on two
cores (docs/benchmarks.md). Steps this small are faster with all of them in one XLA
program.

Example: python scripts/train.py --config=keras_llm/configs/tinyshakespeare.py
    --train_text=train.txt --valid_text=valid.txt --run_dir=runs/tiny
"""

from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=GPT2Config(
            width=128, num_layers=4, num_heads=4, max_positions=64, use_bias=False
        ),
        tokenizer=TokenizerConfig(kind="character"),
        data=DataConfig(
            context=64,
            batch_size=12,
            sampling="windows",
            add_separators=False,
            separate_documents=False,
        ),
        train=TrainConfig(
            steps=1_200,
            learning_rate=5e-3,
            final_learning_rate=1e-4,
            schedule="linear",
            warmup_steps=100,
            beta2=0.99,
            weight_decay=0.1,
            clip_norm=1.0,
            jit="full",
            eval_every=600,
        ),
    )
