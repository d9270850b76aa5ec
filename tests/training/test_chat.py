"""Instruction tuning and adapters: rows, losses, whole runs and their resumption."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, generation, models, tokenizers, training
from keras_llm.training.tasks.chat import packed_rows
from tests.chat_tokenizer import chat_tokenizer
from tests.training.conftest import cut_back

MODEL = models.LlamaConfig(
    vocab_size=259, max_positions=128, width=16, num_layers=1, num_heads=2
)
ADAPTER = models.AdapterConfig(rank=2, alpha=8.0, targets=r"block_\d+/")
TALKS = [("say a", "a!"), ("say b", "bb!"), ("一", "one"), ("", "nothing")]


def messages(*said):
    roles = ["user", "assistant"] * len(said)
    return [
        {"role": role, "content": text} for role, text in zip(roles, said, strict=False)
    ]


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    lines = [json.dumps({"messages": messages(*talk)}) for talk in TALKS * 6]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("base") / "model"
    model = models.build(MODEL)
    for weight in model.weights:  # Or no adapter could move the logits far.
        if len(weight.shape) == 2:
            weight.assign(weight * 15)
    models.save(model, folder, chat_tokenizer())
    return folder


def experiment(adapter=ADAPTER, separate=True, **train):
    train = {
        "steps": 6,
        "learning_rate": 0.02,
        "jit": "off",
        "weight_decay": 0.0,
    } | train
    return training.Experiment(
        model=MODEL,
        task=training.Chat(),
        data=data.DataConfig(context=96, batch_size=4, separate_documents=separate),
        train=training.TrainConfig(**train),
        adapter=adapter,
    )


def batches(subject, talks):
    subject = subject.task.fill_in(subject, chat_tokenizer(), talks)
    return subject.task.batches(
        subject,
        talks,
        None,
        chat_tokenizer(),
        training.workers(tf.distribute.get_strategy()),
    )[0]


@pytest.mark.parametrize("separate", [True, False])
def test_replies_alone_are_learnt(separate, talks):
    batch = batches(experiment(separate=separate), talks).batch(0)
    found = set()
    for targets, weights in zip(batch["targets"], batch["weights"], strict=True):
        learnt = bytes(np.where(targets < 256, targets, 0)[weights > 0].astype("uint8"))
        found |= set(learnt.split(b"\0")[:-1])  # Each ends with its end token.
    assert found <= {reply.encode() for _, reply in TALKS}
    assert len(found) > 1


def test_rows_hold_several_conversations_apart(talks):
    whole = batches(experiment(), talks)
    apart = batches(experiment(separate=False), talks)
    assert whole.rows_per_epoch < apart.rows_per_epoch
    assert (whole.batch(0)["token_ids"][:, 0] == 258).all()


def test_packed_conversations_do_not_see_each_other(talks):
    """The second of a row has the logits that it has at the head of a row."""
    row = batches(experiment(), talks).batch(0)["token_ids"][:1]
    starts = np.flatnonzero(row[0] == 258)
    assert len(starts) > 1
    keras.utils.set_random_seed(1)
    model = models.build(MODEL.replace(separator_id=258))
    begin = starts[1]
    end = starts[2] if len(starts) > 2 else row.shape[1]
    together = keras.ops.convert_to_numpy(model(row))[0, begin:end]
    alone = keras.ops.convert_to_numpy(model(row[:, begin:end]))[0]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_no_conversation_is_split():
    rng = np.random.default_rng(0)
    rows = [
        (np.full(n, i), np.full(n, i)) for i, n in enumerate(rng.integers(1, 9, 50))
    ]
    packed = packed_rows(rows, 10)
    assert max(len(ids) for ids, _ in packed) <= 10
    np.testing.assert_array_equal(
        np.concatenate([ids for ids, _ in packed]), np.concatenate([r[0] for r in rows])
    )
    for i, (ids, _) in enumerate(rows):
        assert sum(i in row for row, _ in packed) == 1, ids


def test_an_adapter_learns_and_its_base_stays(talks, base, tmp_path):
    before = (base / "model.safetensors").read_bytes()
    run = tmp_path / "run"
    subject = experiment(steps=60, eval_every=20, save_every=20)
    summary = training.train(subject, talks, None, run, progress=False, init=base)
    first = training.read_metrics(run / "metrics.jsonl")[0]["loss"]
    assert summary.best_loss < first - 0.5
    assert (base / "model.safetensors").read_bytes() == before
    assert summary.parameters < models.count_parameters(models.build(MODEL)) / 2
    assert {p.name for p in (run / "best").iterdir()} >= {"adapter.json"}
    # As any model folder, merged.
    model, tokenizer = models.load(run / "best"), models.load_tokenizer(run / "best")
    replies = generation.Generator(model, tokenizer).chat(
        [messages("say a"), messages("say b", "bb!", "say a")], max_new_tokens=4
    )
    assert all(reply.prompt_tokens > 10 for reply in replies)


def test_checkpoints_hold_the_adapter_alone(talks, base, tmp_path):
    training.train(
        experiment(steps=2, save_every=1), talks, None, tmp_path / "run", init=base
    )
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    size = (newest / "arrays.safetensors").stat().st_size
    assert size < (base / "model.safetensors").stat().st_size


def test_a_run_of_an_adapter_goes_on_exactly(talks, base, tmp_path):
    subject = experiment(steps=6, save_every=2, eval_every=2, log_every=1)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    training.train(subject, talks, None, straight, progress=False, init=base)
    cut_back(straight, broken, 2)
    training.train(subject, talks, None, broken, resume=True, progress=False)
    for name in ("last", "best"):
        one, other = (run / name / "adapter.safetensors" for run in (straight, broken))
        assert one.read_bytes() == other.read_bytes()


def test_a_run_without_its_base_is_refused(talks, base, tmp_path):
    with pytest.raises(ValueError, match="no model to start from"):
        training.train(experiment(), talks, None, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    training.train(experiment(steps=1), talks, None, tmp_path / "run", init=base)
    keras.utils.set_random_seed(4)
    other = tmp_path / "other"
    models.save(models.build(MODEL), other, chat_tokenizer())
    with pytest.raises(ValueError, match="which holds others"):
        training.train(
            experiment(steps=2), talks, None, tmp_path / "run", resume=True, init=other
        )


def test_an_adapter_beside_an_adapter_is_refused(talks, base, tmp_path):
    subject = experiment(steps=1)
    training.train(subject, talks, None, tmp_path / "run", progress=False, init=base)
    own = tmp_path / "run" / "best"
    for adapter in (ADAPTER, models.PromptConfig()):
        with pytest.raises(ValueError, match="the folder of another adapter"):
            training.train(
                experiment(adapter), talks, None, tmp_path / "second", init=own
            )
    assert not (tmp_path / "second").exists()


def test_a_base_that_was_moved_is_named_once(talks, base, tmp_path):
    """And learnt beside from there on, where `best` and `last` point to it."""
    run, here, there = (tmp_path / name for name in ("run", "here", "there"))
    shutil.copytree(base, here)
    subject = experiment(steps=2, save_every=1)
    training.train(subject, talks, None, run, progress=False, init=here)
    here.rename(there)
    with pytest.raises(FileNotFoundError, match="which is not there"):
        training.train(subject, talks, None, run, resume=True, progress=False)
    for steps, init in ((4, there), (6, None)):
        longer = experiment(steps=steps, save_every=1)
        summary = training.train(
            longer, talks, None, run, resume=True, progress=False, init=init
        )
        assert summary.step == steps
        described = json.loads((run / "last" / "adapter.json").read_text())
        assert described["base"] == str(there)
        models.load(run / "last")


def test_a_run_of_all_weights_does_not_go_on_as_an_adapter(talks, base, tmp_path):
    whole = experiment(adapter=None, steps=1)
    training.train(whole, talks, None, tmp_path / "run", progress=False, init=base)
    with pytest.raises(ValueError, match="A run goes on as it began"):
        training.train(
            experiment(steps=2), talks, None, tmp_path / "run", resume=True, init=base
        )


def test_a_plan_counts_what_is_learnt(talks, base, tmp_path):
    planned = [
        training.plan(*training.prepare_plan(each, talks, chat_tokenizer()))
        for each in (experiment(), experiment(adapter=None))
    ]
    summary = training.train(
        experiment(steps=1), talks, None, tmp_path / "run", progress=False, init=base
    )
    assert planned[0].parameters == summary.parameters < planned[1].parameters / 2
    assert planned[0].slot_bytes < planned[1].slot_bytes / 2
    assert planned[0].flops_per_token == pytest.approx(
        planned[1].flops_per_token * 2 / 3
    )


def test_an_adapter_beside_another_trunk_is_refused(talks, base, tmp_path):
    subject = experiment().replace(model=MODEL.replace(vocab_size=300))
    with pytest.raises(ValueError, match="must hold every weight"):
        training.train(subject, talks, None, tmp_path / "run", init=base)
    assert not (tmp_path / "run").exists()


def test_a_table_of_the_vocabulary_is_not_learnt_whole(talks, tmp_path):
    tied = tmp_path / "tied"
    models.save(models.build(MODEL.replace(tied=True)), tied, chat_tokenizer())
    with pytest.raises(ValueError, match="lacks head/kernel. Train without `adapter`"):
        training.train(experiment(), talks, None, tmp_path / "run", init=tied)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": []}, "assistant last"),
        ({"messages": messages("a")}, "assistant last"),
        ({"messages": messages("a", "b", "c")}, "assistant last"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "assistant last"),
        ({"messages": [{"role": "user"}]}, "two texts"),
        ({"messages": ["a"]}, "two texts"),
        ({"text": "a"}, "must hold 'messages'"),
    ],
)
def test_what_is_no_conversation_is_named_by_its_line(line, message, base, tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text(
        json.dumps({"messages": messages("a", "b")}) + "\n" + json.dumps(line)
    )
    with pytest.raises(data.DataError, match=message) as caught:
        training.train(experiment(), path, None, tmp_path / "run", init=base)
    assert "talks.jsonl:2" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_template_is_refused(talks, tmp_path):
    model = tmp_path / "model"
    models.save(models.build(MODEL), model, tokenizers.ByteTokenizer())
    with pytest.raises(ValueError, match="chat model's tokenizer"):
        training.train(experiment(), talks, None, tmp_path / "run", init=model)
