"""SmolLM2 135M learns to write like Melville: an adapter of rank 8 on one novel.

The commands, their cost and their result are in docs/chat.md.
"""

import dataclasses

from keras_llm.configs import smollm2_135m
from keras_llm.data import DataConfig
from keras_llm.models import AdapterConfig
from keras_llm.training import Experiment, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return dataclasses.replace(
        smollm2_135m.get_config(),
        data=DataConfig(context=256, batch_size=4, separate_documents=False),
        train=TrainConfig(
            steps=120,
            learning_rate=1e-3,
            warmup_steps=10,
            weight_decay=0.0,
            dtype="mixed_bfloat16",
            log_every=10,
            eval_every=40,
            save_every=40,
        ),
        adapter=AdapterConfig(kind="rslora", rank=8, alpha=16.0),
    )
