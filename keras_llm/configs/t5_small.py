"""A small T5, pre-trained by writing back what was cut out of a text.

Command: python scripts/train_tokenizer.py --input=testdata/moby_dick.txt
--kind=unigram --vocab_size=4096 --extra_ids=100 --out=runs/pieces, then
python scripts/train.py --config=keras_llm/configs/t5_small.py
--train_text=testdata/moby_dick.txt --tokenizer=runs/pieces --run_dir=runs/t5
"""

from keras_llm.data import DataConfig
from keras_llm.models import T5Config
from keras_llm.training import Experiment, SpanCorruption, TrainConfig


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        model=T5Config(
            width=192,
            num_layers=4,
            num_heads=4,
            head_size=48,
            feed_forward_width=512,
            max_positions=256,
            dropout=0.1,
        ),
        task=SpanCorruption(),
        data=DataConfig(context=128, batch_size=32, separate_documents=False),
        train=TrainConfig(
            steps=2_000,
            # T5's first weights are of unlike sizes, from 1 to 0.01.
            relative_rate=True,
            learning_rate=0.01,
            final_learning_rate=0.0005,
            warmup_steps=100,
            weight_decay=0.01,
            eval_every=250,
            save_every=250,
        ),
    )
