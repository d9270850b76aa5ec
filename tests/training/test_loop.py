import json
import math
import signal

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_llm import data, models, tokenizers, training
from keras_llm.core import read_json
from keras_llm.training import Checkpoints, Experiment, TrainConfig, task
from tests.eager_functions import op_by_op
from tests.training.conftest import cut_back


def train(experiment, texts, run_dir, **options):
    options = {"progress": False, **options}
    return training.train(experiment, *texts, run_dir, **options)


def with_train(experiment, **changes):
    return experiment.replace(train=experiment.train.replace(**changes))


def losses(run_dir):
    lines = training.read_metrics(run_dir / "metrics.jsonl")
    return {e["step"]: e["loss"] for e in lines if "loss" in e}


def weights(folder):
    return models.load(folder).get_weights()


def untimed_metrics(run_dir):
    lines = training.read_metrics(run_dir / "metrics.jsonl")
    timed = dict.fromkeys(("tokens_per_second", "utilisation", "input_share"))
    return [{**line, **timed} for line in lines]


def assert_same_models(one, other):
    for folder in ("best", "last"):
        pairs = zip(weights(one / folder), weights(other / folder), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, texts):
    """Returns a run that went to its end, and its summary."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return run_dir, train(base_experiment(), texts, run_dir, progress=True)


def base_experiment(**changes):
    train_config = TrainConfig(
        **{
            "steps": 12,
            "learning_rate": 3e-3,
            # It does not stretch with `steps`: runs of any length agree so far.
            "schedule": "constant",
            "warmup_steps": 2,
            "ema_decay": 0.8,
            "jit": "off",
            "log_every": 1,
            "eval_every": 6,
            "save_every": 4,
            **changes,
        }
    )
    return Experiment(
        model=models.GPT2Config(
            width=8, num_layers=1, num_heads=2, max_positions=16, dropout=0.1
        ),
        tokenizer=training.TokenizerConfig(kind="character"),
        data=data.DataConfig(context=11, batch_size=6),
        train=train_config,
    )


def test_a_run_leaves_all_that_is_promised(finished):
    run_dir, summary = finished
    assert summary.step == 12 and summary.stopped_by == "steps"
    assert summary.utilisation > 0 and summary.parameters > 0
    assert 0 < summary.input_share < 1
    names = {path.name for path in run_dir.iterdir()}
    assert names == {
        "config.json", "tokenizer", "checkpoints", "metrics.jsonl", "events",
        "run.png", "summary.json", "best", "last",
    }  # fmt: skip
    assert (run_dir / "run.png").read_bytes().startswith(b"\x89PNG")
    wanted = json.loads(json.dumps(summary.to_dict()))
    assert read_json(run_dir / "summary.json") == wanted
    assert list((run_dir / "events").glob("events.*"))


def test_metrics_are_one_object_a_line(finished):
    run_dir, summary = finished
    text = (run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"):
        assert all(math.isfinite(line[name]) for line in steps)
    assert all(0 < line["input_share"] < 1 for line in steps)
    assert all(0 < line["utilisation"] < 2 for line in steps)
    evaluations = [line for line in lines if "valid_loss" in line]
    assert [line["step"] for line in evaluations] == [6, 12]
    last = evaluations[-1]
    assert last["valid_loss"] == summary.validation.nats_per_token
    # A character is a byte here.
    assert last["valid_bits_per_byte"] == pytest.approx(
        last["valid_loss"] / math.log(2) * summary.validation.num_tokens
        / summary.validation.num_bytes
    )  # fmt: skip


def test_the_model_folder_holds_what_was_evaluated(finished, texts):
    run_dir, summary = finished
    model = models.load(run_dir / "last")
    tokenizer = models.load_tokenizer(run_dir / "last")
    batches = data.validation_batches(
        texts[1], tokenizer, base_experiment().data.replace(batch_size=1)
    )
    total = 0.0
    for batch in batches:
        logits = np.float64(model(batch["token_ids"]))
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        picked = np.take_along_axis(log_probs, batch["targets"][..., None], -1)
        total -= (picked[..., 0] * batch["weights"]).sum()
    assert summary.validation.nats_per_token == pytest.approx(
        total / batches.num_tokens, rel=1e-5
    )


def test_config_and_tokenizer_are_those_of_the_run(finished):
    run_dir, _ = finished
    written = Experiment.from_dict(read_json(run_dir / "config.json"))
    tokenizer = tokenizers.load(run_dir / "tokenizer")
    assert written.model.vocab_size == tokenizer.vocab_size
    assert written.model.separator_id == tokenizer.special_ids["end"]
    assert written.train == base_experiment().train


def test_an_existing_run_is_refused_without_resume(finished, texts):
    run_dir, _ = finished
    with pytest.raises(FileExistsError, match="--resume.*resume=True"):
        train(base_experiment(), texts, run_dir)


def test_resuming_a_finished_run_changes_nothing(finished, texts):
    run_dir, summary = finished
    before = weights(run_dir / "last")
    again = train(base_experiment(), texts, run_dir, resume=True)
    assert again.step == 12 and again.best_loss == summary.best_loss
    for a, b in zip(before, weights(run_dir / "last"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changes, named",
    [({"learning_rate": 1e-3}, "train.learning_rate"), ({"beta2": 0.9}, "train.beta2")],
)
def test_resuming_as_another_run_is_refused(finished, texts, changes, named):
    with pytest.raises(ValueError, match=named):
        train(base_experiment(**changes), texts, finished[0], resume=True)


def test_resumed_midway_equals_a_run_in_one_go(finished, texts, tmp_path):
    whole, parts = finished[0], tmp_path / "parts"
    train(base_experiment(steps=5), texts, parts)
    keras.utils.set_random_seed(99)  # Nothing may hang on the global state.
    train(base_experiment(), texts, parts, resume=True)
    assert losses(whole) == losses(parts)
    assert_same_models(whole, parts)


def test_asked_to_end_while_evaluating_goes_on_as_if_never_asked(
    texts, tmp_path, monkeypatch, eagerly
):
    """Before the second batch of every evaluation: of one midway and the last."""
    monkeypatch.setattr(task, "_VALIDATION_TOKENS", 66)
    experiment = base_experiment(steps=2, eval_every=1, save_every=1, patience=9)
    train(experiment, texts, tmp_path / "whole")
    evaluate, batches = training.Validator.__call__, []

    def every_other_is_cut(validator, before_batch):
        batches.append(0)

        def ask():
            batches[-1] += 1
            if len(batches) % 2 and batches[-1] == 2:
                signal.raise_signal(signal.SIGTERM)
            before_batch()

        return evaluate(validator, ask)

    monkeypatch.setattr(training.Validator, "__call__", every_other_is_cut)
    parts = tmp_path / "parts"
    for step in (1, 2):
        with pytest.raises(training.Preempted, match=f"after step {step};"):
            train(experiment, texts, parts, resume=True)
    summary = train(experiment, texts, parts, resume=True)
    assert batches == [2, 3, 2, 3] and summary.validation is not None
    assert untimed_metrics(parts) == untimed_metrics(tmp_path / "whole")
    states = [
        Checkpoints(run / "checkpoints", 3).newest_whole() / "state.json"
        for run in (parts, tmp_path / "whole")
    ]
    parts_state, whole_state = ({**read_json(s), "seconds": 0} for s in states)
    assert parts_state == whole_state
    assert_same_models(tmp_path / "whole", parts)


def test_a_run_goes_on_with_its_validation_text(finished, texts):
    with pytest.raises(ValueError, match="goes on with the validation text"):
        train(base_experiment(), texts[:1] * 2, finished[0], resume=True)


def test_averaged_weights_are_evaluated_and_saved(finished, texts, tmp_path):
    averaged, plain = finished[0], tmp_path / "plain"
    train(base_experiment(ema_decay=None, eval_every=0), texts, plain)
    assert losses(averaged) == losses(plain)
    differ = zip(weights(averaged / "last"), weights(plain / "last"), strict=True)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in differ)


def test_patience_stops_early_and_best_is_kept(texts, tmp_path, monkeypatch, eagerly):
    found = iter([3.0, 2.0, 2.5, 2.1])
    judged = lambda *_: training.Validation(next(found), 1.0, 3, 3)  # noqa: E731
    monkeypatch.setattr(training.Validator, "__call__", judged)
    experiment = base_experiment(steps=40, eval_every=1, patience=2)
    summary = train(experiment, texts, tmp_path / "run")
    assert summary.stopped_by == "patience"
    assert (summary.best_step, summary.best_loss, summary.step) == (2, 2.0, 4)
    again = train(experiment, texts, tmp_path / "run", resume=True)
    assert again.step == summary.step
    # The best is that of its step: a run of so many steps ends with the same.
    found = iter([3.0, 2.0])
    train(with_train(experiment, steps=2), texts, tmp_path / "short")
    for one, other in zip(
        weights(tmp_path / "run" / "best"), weights(tmp_path / "short" / "last"),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_nan_stops_after_the_limit_and_names_step_and_batch(texts, tmp_path):
    experiment = base_experiment(
        steps=30, learning_rate=1e30, warmup_steps=0, clip_norm=None, max_bad_steps=3,
        accumulation=2,
    )  # fmt: skip
    with pytest.raises(
        training.NonFiniteError, match=r"3 steps.*step 2 \(micro-batch 2\)"
    ):
        train(experiment, texts, tmp_path / "run")
    skipped = [
        e for e in training.read_metrics(tmp_path / "run" / "metrics.jsonl")
        if e.get("skipped")
    ]  # fmt: skip
    assert len(skipped) == 3 and all(e["loss"] is None for e in skipped)


def test_a_validation_loss_of_nan_is_named_and_null(
    texts, tmp_path, monkeypatch, caplog, eagerly
):
    nan = training.Validation(math.nan, math.nan, 3, 3)
    monkeypatch.setattr(training.Validator, "__call__", lambda *_: nan)
    summary = train(base_experiment(steps=1, warmup_steps=0), texts, tmp_path / "run")
    assert "after step 1 is nan" in caplog.text
    assert summary.best_step is None and not (tmp_path / "run" / "best").exists()
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert plain["validation"]["nats_per_token"] is None
    last = training.read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last == {"step": 1, "valid_loss": None, "valid_bits_per_byte": None}


def test_mixed_bfloat16_lowers_the_loss_and_keeps_float32_variables(texts, tmp_path):
    experiment = base_experiment(
        dtype="mixed_bfloat16", learning_rate=0.03, eval_every=1, ema_decay=0.5,
        schedule="cosine",
    )  # fmt: skip
    train(experiment, texts, tmp_path / "run")
    lines = training.read_metrics(tmp_path / "run" / "metrics.jsonl")
    evaluated = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert evaluated[-1] < 0.9 * evaluated[0]
    newest = Checkpoints(tmp_path / "run" / "checkpoints", 3).newest_whole()
    arrays = safetensors.numpy.load_file(newest / "arrays.safetensors")
    kinds = {name.split("/")[0]: array.dtype for name, array in arrays.items()}
    for kind in ("model", "first_moment", "second_moment", "average"):
        assert kinds[kind] == np.float32
    assert {weight.dtype.name for weight in weights(tmp_path / "run/last")} == {
        "float32"
    }


def test_labels_are_smoothed_in_training_alone(finished, texts, tmp_path):
    """So that validation losses compare; the first step's loss is checked."""
    experiment = base_experiment(label_smoothing=0.5, learning_rate=1e-12, steps=2)
    smoothed = train(experiment, texts, tmp_path / "smoothed")
    plain = with_train(experiment, label_smoothing=0.0)
    plain = train(plain, texts, tmp_path / "plain")
    assert smoothed.validation.nats_per_token == pytest.approx(
        plain.validation.nats_per_token, rel=1e-6
    )
    assert losses(tmp_path / "plain")[1] == losses(finished[0])[1]
    assert losses(tmp_path / "smoothed")[1] != losses(tmp_path / "plain")[1]


@pytest.mark.parametrize("which", ["text", "vocabulary", "rows"])
def test_what_cannot_be_used_leaves_nothing_behind(
    two_replicas, texts, tmp_path, which
):
    experiment, run_dir = base_experiment(), tmp_path / "run"
    (tmp_path / "empty.txt").write_text("")
    if which == "text":
        texts = (tmp_path / "empty.txt", texts[1])
    elif which == "vocabulary":
        experiment = experiment.replace(model=experiment.model.replace(vocab_size=3))
    strategy = None
    if which == "rows":
        strategy = two_replicas
        experiment = experiment.replace(data=experiment.data.replace(batch_size=5))
    rule = {
        "text": "needs at least one character",
        "vocabulary": "vocab_size=3",
        "rows": "batch_size=5",
    }[which]
    with pytest.raises(ValueError, match=rule):
        train(experiment, texts, run_dir, strategy=strategy)
    assert not run_dir.exists()


def test_two_replicas_train_as_one(two_replicas, texts, tmp_path):
    experiment = base_experiment(steps=3)
    experiment = experiment.replace(model=experiment.model.replace(dropout=0.0))
    with op_by_op():
        train(experiment, texts, tmp_path / "one")
    summary = train(experiment, texts, tmp_path / "two", strategy=two_replicas)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    np.testing.assert_allclose(list(one.values()), list(two.values()), atol=1e-5)
    single = training.read_metrics(tmp_path / "one" / "metrics.jsonl")[-1]
    assert summary.validation.nats_per_token == pytest.approx(
        single["valid_loss"], abs=1e-5
    )
    # A checkpoint of two replicas goes on with one.
    more = with_train(experiment, steps=4)
    with op_by_op():
        assert train(more, texts, tmp_path / "two", resume=True).step == 4


def test_carried_state_is_resumed_too(texts, tmp_path, eagerly):
    experiment = Experiment(
        model=models.LSTMLMConfig(embedding_width=5, units=7, num_layers=1),
        tokenizer=training.TokenizerConfig(kind="character"),
        data=data.DataConfig(
            context=11, batch_size=6, sampling="streams", shuffle=False
        ),
        train=base_experiment(steps=5, save_every=3).train.replace(carry_state=True),
    )
    train(experiment, texts, tmp_path / "whole")
    cut_back(tmp_path / "whole", tmp_path / "parts", 3)
    train(experiment, texts, tmp_path / "parts", resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    fresh = with_train(experiment, carry_state=False, steps=2)
    train(fresh, texts, tmp_path / "fresh")
    assert losses(tmp_path / "fresh")[1] == losses(tmp_path / "whole")[1]
    assert losses(tmp_path / "fresh")[2] != losses(tmp_path / "whole")[2]


def test_a_transformer_has_no_state_to_carry(texts, tmp_path):
    experiment = base_experiment(carry_state=False)
    experiment = experiment.replace(
        data=experiment.data.replace(sampling="streams", shuffle=False),
        train=experiment.train.replace(carry_state=True),
    )
    with pytest.raises(ValueError, match="recurrent"):
        train(experiment, texts, tmp_path / "run")
    assert not (tmp_path / "run").exists()
