"""A variational autoencoder of sentences, on one core.

Data: python benchmarks/datasets/reviews.py --language=en --out=runs/data/reviews_en
Command: python scripts/train.py --config=keras_llm/configs/text_vae.py
--train_text=runs/data/reviews_en/train.jsonl
--valid_text=runs/data/reviews_en/valid.jsonl --run_dir=runs/text_vae

As it stands the posterior collapses. --task.free_bits=0.2 keeps it alive, and so does
--model.posterior=batch_norm. Cost: 71 to 89 s of processor time. Result, the mean of
three seeds on test.jsonl by evaluate.py --context=40 --samples=32, in nats a text:

    plain       NLL 173.8, KL 0.004, mutual information 0.004,  0 of 16 units active
    free bits   NLL 174.7, KL 2.68,  mutual information 1.41,  16 of 16
    batch norm  NLL 175.1, KL 2.84,  mutual information 1.84,  16 of 16
"""

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
