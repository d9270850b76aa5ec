"""Every config that is shipped trains, at a size that takes a moment.

What is left of an experiment are its kinds: architecture, task, tokenizer, sampling,
precision. Experiments that are the same then are trained once.
"""

import dataclasses
import json
import math
import pathlib

import pytest

from keras_llm import data, models, tokenizers, training
from keras_llm.training import Experiment

CONFIGS = pathlib.Path(training.__file__).parents[1] / "configs"
# What each field becomes where it is set, of model, task, data and training.
SMALL = {
    "model": {
        "vocab_size": 0, "max_positions": 24, "width": 12, "num_layers": 1,
        "num_heads": 2, "key_value_heads": 1, "head_size": 4, "feed_forward_width": 8,
        "embedding_width": 6, "units": 6, "latent_dim": 3, "window": 7,
        "relative_buckets": 4, "relative_max_distance": 8, "rotary_base": 100.0,
        "rotary_scaling": None,
    },
    "task": {
        "target_context": 11, "stride": 4, "max_question_tokens": 5, "beta_steps": 2,
    },
    "data": {"context": 16, "batch_size": 4},
    "train": {
        "steps": 2, "warmup_steps": 1, "accumulation": 1, "jit": "off",
        "eval_every": 0, "save_every": 0, "patience": None, "learning_rate": 1e-3,
        "final_learning_rate": 0.0, "weight_decay": 0.1, "beta2": 0.95,
    },
}  # fmt: skip

LINES = [f"the {word} whale swam on in the sea, {i}" for i, word in
         enumerate("white grey old great lone blue lost pale".split() * 3)]  # fmt: skip
KINDS = {
    "classification": [{"text": x, "label": "ab"[i % 2]} for i, x in enumerate(LINES)],
    "sequence_to_sequence": [{"source": x, "target": x[9:20]} for x in LINES],
    "question_answering": [
        {"question": "who?", "context": x, "answers": [{"text": "the", "start": 0}]}
        for x in LINES
    ],
    "contrastive": [{"text": x[4:14], "text_pair": x} for x in LINES],
    "tagging": [{"tokens": x.split(), "tags": ["O" for _ in x.split()]} for x in LINES],
}
# Of those tokenizers that have a size: what so little text is enough for.
VOCABULARY = {"byte_bpe": 300, "wordpiece": 90, "unigram": 40, "bpe": 40}


def shrunk(experiment: Experiment) -> Experiment:
    """Returns an experiment of the same kinds, as small as can be."""
    parts = {}
    for part, small in SMALL.items():
        config = getattr(experiment, part)
        names = {field.name for field in dataclasses.fields(config)}
        changes = {
            name: value
            for name, value in small.items()
            # None means "as another field": it stays so.
            if name in names and getattr(config, name) is not None
        }
        parts[part] = config.replace(**changes)
    size = VOCABULARY.get(experiment.tokenizer.kind, 300)
    tokenizer = experiment.tokenizer.replace(vocab_size=size)
    return experiment.replace(**parts, tokenizer=tokenizer)


def distinct() -> list:
    """Returns the shrunk experiments, each once, with the names of its configs."""
    found: dict[Experiment, list[str]] = {}
    for path in sorted(CONFIGS.glob("[!_]*.py")):
        small = shrunk(training.load_config(path))
        found.setdefault(small, []).append(path.stem)
    return [pytest.param(e, id="+".join(names)) for e, names in found.items()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns the folder of each kind of examples, and of text for the rest.

    A whole file is to learn from; one of five lines, two batches of which the last is
    not full, is to be judged by.
    """
    folder = tmp_path_factory.mktemp("files")
    kinds = {f"{k}.jsonl": [json.dumps(e) for e in x] for k, x in KINDS.items()}
    for name, lines in {**kinds, "text.txt": LINES}.items():
        (folder / name).write_text("\n".join(lines))
        (folder / f"few_{name}").write_text("\n".join(lines[:5]))
    return folder


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
@pytest.mark.parametrize("experiment", distinct())
def test_a_shipped_config_trains(experiment, files, eagerly, tmp_path):
    file = files / f"{experiment.task.kind}.jsonl"
    file = file if file.exists() else files / "text.txt"
    few = files / f"few_{file.name}"
    tokenizer = None
    if isinstance(experiment.task, training.SpanCorruption):
        # One with sentinels, which a run does not make by itself.
        tokenizer = tokenizers.train_sentencepiece(
            data.read_documents(file), 40, "unigram", extra_ids=9
        )
    base = None
    if experiment.adapter is not None:
        # What it is learnt beside is imported.
        base, made = tmp_path / "base", tokenizers.ByteTokenizer()
        config = experiment.task.fill_in(experiment, made, file).model
        models.save(models.build(config), base, made)
    summary = training.train(
        experiment,
        file,
        few,
        tmp_path / "run",
        tokenizer=tokenizer,
        progress=False,
        init=base,
    )
    assert summary.step == 2 and math.isfinite(summary.train_loss)
    assert math.isfinite(summary.validation.loss)


@pytest.mark.parametrize("name", ["gemma2_2b", "llama_small", "lstm_reviews"])
def test_a_run_in_two_parts_is_one_run(name, files, eagerly, tmp_path):
    """Of architectures that no other test resumes."""
    small = shrunk(training.load_config(CONFIGS / f"{name}.py"))
    steady = {"schedule": "constant", "decay_steps": 0, "warmup_steps": 0}
    small = small.replace(train=small.train.replace(**steady))
    file = files / f"{small.task.kind}.jsonl"
    file = file if file.exists() else files / "text.txt"

    def run(folder, steps, **options):
        part = small.replace(train=small.train.replace(steps=steps))
        return training.train(part, file, file, folder, progress=False, **options)

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 2, resume=True)
    assert parts.train_loss == whole.train_loss
    ours, theirs = (
        models.load(tmp_path / folder / "last").get_weights()
        for folder in ("parts", "whole")
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


ONE_ROW = [
    *("bert_reviews", "bert_small", "electra_small", "lstm_reviews"),
    *("lstm_translation", "t5_translation", "text_vae"),
]


@pytest.mark.parametrize("name", ONE_ROW)
def test_a_batch_of_one_trains(name, files, eagerly, tmp_path):
    small = shrunk(training.load_config(CONFIGS / f"{name}.py"))
    small = small.replace(data=small.data.replace(batch_size=1))
    source = files / f"{small.task.kind}.jsonl"
    source = source if source.exists() else files / "text.txt"
    file = tmp_path / f"three{source.suffix}"
    file.write_text("\n".join(source.read_text().splitlines()[:3]))
    summary = training.train(small, file, file, tmp_path / "run", progress=False)
    assert summary.step == 2 and math.isfinite(summary.train_loss)
    assert math.isfinite(summary.validation.loss)
