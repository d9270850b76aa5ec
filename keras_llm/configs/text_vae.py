"""A variational autoencoder of sentences, on one core."""

from keras_llm.data import DataConfig
from keras_llm.models import TextVAEConfig
from keras_llm.training import Experiment, TextVAE, TokenizerConfig, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=TextVAEConfig(latent_dim=16, width=128, dropout=0.2),
        task=TextVAE(),
        tokenizer=TokenizerConfig(kind="byte_bpe", vocab_size=2_048),
        data=DataConfig(context=40, batch_size=32),
        train=TrainConfig(
            steps=600,
            learning_rate=3e-3,
            final_learning_rate=1e-4,
            warmup_steps=50,
            weight_decay=0.01,
            eval_every=150,
            save_every=0,
        ),
    )
