"""Teacher forcing and span corruption: rows, losses, whole runs."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.training.replicas import Spreader
from keras_llm.training.tasks import sequence_to_sequence as task_lib
from tests.training.conftest import cut_back

PAIRS = [("ab", "ba"), ("abc", "cba"), ("文", "文"), ("aabb", "bbaa"), ("", "c")]
T5 = models.T5Config(
    width=12,
    num_layers=1,
    num_heads=2,
    head_size=5,
    feed_forward_width=16,
    max_positions=24,
)
LSTM = models.LSTMSeq2SeqConfig(embedding_width=8, units=16, num_layers=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [json.dumps({"source": s, "target": t}) for s, t in PAIRS * 8]
    path.write_text("\n".join(lines))
    return path


def experiment(model, task=None, steps=6, **options):
    return training.Experiment(
        model=model,
        task=task or training.SequenceToSequence(target_context=7),
        tokenizer=training.TokenizerConfig(kind="character"),
        data=data.DataConfig(context=6, batch_size=4, separate_documents=False),
        train=training.TrainConfig(
            **{
                "steps": steps,
                "learning_rate": 0.01,
                "schedule": "constant",
                "jit": "off",
                **options,
            }
        ),
    )


def test_rows_are_closed_by_an_end_token_whatever_is_cut(caplog):
    tokenizer = tokenizers.ByteTokenizer()
    ids, lengths = task_lib.closed_rows(tokenizer, ["abc", "", "abcdef"], 4, "x")
    end, a, b, c = tokenizer.end_id, *b"abc"
    assert ids.tolist() == [[a, b, c, end], [end, 0, 0, 0], [a, b, c, end]]
    assert lengths.tolist() == [4, 1, 4]
    assert "1 of 3 x examples were cut to data.context=4 tokens: 3" in caplog.text
    with pytest.raises(data.DataError, match="none for x"):
        task_lib.closed_rows(tokenizer, [], 4, "x")


@pytest.mark.parametrize("model", [T5, T5.replace(tied=True), LSTM])
def test_the_loss_is_the_mean_over_target_tokens(model):
    keras.utils.set_random_seed(3)
    model = models.build(model.replace(vocab_size=11))
    rng = np.random.default_rng(2)
    lengths = np.array([3, 5, 1])
    batch = {
        "source_ids": rng.integers(1, 11, (3, 7)).astype("int32"),
        "source_lengths": np.array([7, 2, 4], "int32"),
        **task_lib.teacher_forcing(rng.integers(1, 11, (3, 5)), lengths, 0),
    }
    task = training.SequenceToSequence()
    objective = task.objective(model, training.TrainConfig())
    found = objective.summed_loss(batch, tf.constant(0, tf.int64))
    logits = np.asarray(model({name: batch[name] for name in model.input}), "float64")
    expected = 0.0
    for row, length in enumerate(lengths):
        for t in range(length):
            scores = logits[row, t]
            expected += np.log(np.exp(scores).sum()) - scores[batch["targets"][row, t]]
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", [T5, LSTM], ids=["t5", "lstm_seq2seq"])
def test_a_run_learns_resumes_and_writes(pairs, tmp_path, model):
    whole = experiment(model, steps=30, save_every=20, eval_every=2, log_every=10)
    summary = training.train(whole, pairs, pairs, tmp_path / "a", progress=False)
    lines = training.read_metrics(tmp_path / "a" / "metrics.jsonl")
    judged = {line["step"]: line.get("valid_loss") for line in lines}
    assert summary.validation.loss == judged[30] < 0.8 * judged[2]
    assert summary.validation.metrics["perplexity"] == pytest.approx(
        np.exp(summary.validation.loss)
    )
    cut_back(tmp_path / "a", tmp_path / "b", 20)
    again = training.train(
        whole, pairs, pairs, tmp_path / "b", resume=True, progress=False
    )
    assert again.validation.loss == summary.validation.loss
    assert models.load(tmp_path / "a" / "best").config.vocab_size == 6


def test_two_replicas_are_one(two_replicas, eagerly):
    rng = np.random.default_rng(5)
    made = task_lib.teacher_forcing(
        rng.integers(1, 11, (4, 5)), np.array([3, 5, 1, 2]), 0
    )
    batch = {
        "source_ids": rng.integers(1, 11, (4, 7)).astype("int32"),
        "source_lengths": np.array([7, 2, 4, 1], "int32"),
        **made,
    }
    config, results = training.TrainConfig(learning_rate=0.01, jit="off"), []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            model = models.build(T5.replace(vocab_size=11))
        task = training.SequenceToSequence()
        step = training.make_step(model, config, strategy, task=task)
        spread = Spreader(strategy, 4)
        rows = {name: value[None, None] for name, value in batch.items()}
        result = step.run(tf.constant(0, tf.int64), spread(rows, axis=2))
        results.append([float(result.loss[0]), float(result.gradient_norm[0])])
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_spans_are_written_back(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the white whale and the black ship, again. " * 60)
    tokenizer = tokenizers.train_sentencepiece(
        data.read_documents(text), 40, "unigram", extra_ids=9
    )
    task = training.SpanCorruption()
    run = experiment(T5, task, steps=20)
    run = run.replace(data=run.data.replace(context=16))
    summary = training.train(
        run, text, text, tmp_path / "run", tokenizer=tokenizer, progress=False
    )
    begun = np.log(tokenizer.vocab_size)
    assert summary.validation.loss < begun
    line = training.read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert line["valid_perplexity"] == pytest.approx(np.exp(line["valid_loss"]))


def test_what_does_not_fit_is_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match="target_context=25.*max_positions=24"):
        training.train(
            experiment(T5, training.SequenceToSequence(target_context=25)),
            pairs, pairs, tmp_path / "run", progress=False,
        )  # fmt: skip
    gpt2 = models.GPT2Config(width=8, num_layers=1, num_heads=2, max_positions=24)
    with pytest.raises(ValueError, match="'sequence_to_sequence' trains.*'gpt2'"):
        training.train(experiment(gpt2), pairs, pairs, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="0 sentinels"):
        training.train(
            experiment(T5, training.SpanCorruption()),
            __file__, __file__, tmp_path / "run", progress=False,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
