"""What a model writes while it is trained."""

import pytest
import tensorflow as tf

from keras_llm import generation, models, tokenizers, training
from keras_llm.training.samples import Samples

PROMPTS = ("the quick ", "", "fox")


def samples_of(run_dir):
    lines = training.read_metrics(run_dir / "metrics.jsonl")
    return {line["step"]: line["samples"] for line in lines if "samples" in line}


def texts_of_events(run_dir):
    (path,) = (run_dir / "events").glob("events.*")
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "text":
                text = tf.make_ndarray(value.tensor).item().decode()
                found[event.step, value.tag] = text
    return found


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_logs_what_its_model_writes(
    experiment, texts, tmp_path, eagerly, two_replicas, replicas
):
    changes = {"sample_prompts": PROMPTS, "sample_tokens": 5, "ema_decay": 0.5}
    config = experiment.replace(train=experiment.train.replace(**changes))
    strategy = two_replicas if replicas == 2 else None
    run_dir = tmp_path / "run"
    training.train(config, *texts, run_dir, progress=False, strategy=strategy)
    logged = samples_of(run_dir)
    assert list(logged) == [6, 12]
    # The averaged weights are those that are saved, and so those that write.
    model = models.load(run_dir / "last")
    written = generation.Generator(model, models.load_tokenizer(run_dir / "last"))
    expected = written.generate(list(PROMPTS), max_new_tokens=5)
    assert logged[12] == [
        {"prompt": prompt, "text": each.text}
        for prompt, each in zip(PROMPTS, expected, strict=True)
    ]
    if replicas == 1:
        shown = texts_of_events(run_dir)
        assert shown[12, "samples/fox"] == f"**fox**{expected[2].text}"
        assert len(shown) == 6


def test_a_model_that_writes_no_text_is_refused():
    config = models.BertConfig(
        vocab_size=257, width=8, num_layers=1, num_heads=2, max_positions=16
    )
    with pytest.raises(ValueError, match="bert"):
        Samples(models.build(config), tokenizers.ByteTokenizer(), ["a"], 5)
