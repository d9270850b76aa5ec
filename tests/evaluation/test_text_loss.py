import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, evaluation, models, tokenizers
from tests import forked

TEXT = "Call me Ishmael. 床前明月光。\n" * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a model and a text."""
    path = tmp_path_factory.mktemp("evaluation")
    (path / "text.txt").write_text(TEXT)
    keras.utils.set_random_seed(1)
    config = models.GPT2Config(
        vocab_size=257, max_positions=13, width=6, num_layers=1, num_heads=2,
        separator_id=256,
    )  # fmt: skip
    models.save(models.build(config), path / "model", tokenizers.ByteTokenizer())
    return path


def by_hand(model, ids, context):
    """Every token's loss, row by row, in float64."""
    total, model = 0.0, tf.function(model, reduce_retracing=True)
    for start in range(0, len(ids) - 1, context):
        row = np.array(ids[start : start + context + 1])
        logits = np.float64(model(tf.constant(row[None, :-1]))[0])
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= log_probs[np.arange(len(row) - 1), row[1:]].sum()
    return total


@pytest.mark.parametrize("context, separators", [(13, True), (5, False)])
def test_equals_a_loop_over_rows(folder, context, separators):
    model = models.load(folder / "model")
    tokenizer = models.load_tokenizer(folder / "model")
    found = evaluation.evaluate(
        model, tokenizer, str(folder / "text.txt"), context, separators
    )
    num_bytes = len(TEXT.encode())
    ids = [256] * separators + list(TEXT.encode())
    total = by_hand(model, ids, context)
    predicted = num_bytes if separators else num_bytes - 1
    assert (found.num_tokens, found.num_bytes) == (predicted, predicted)
    assert found.nats_per_token == pytest.approx(total / predicted, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(
        total / math.log(2) / predicted, rel=1e-5
    )
    assert found.perplexity == pytest.approx(math.exp(total / predicted), rel=1e-4)


def test_text_is_read_as_prepare_reads_it(folder, tmp_path):
    (tmp_path / "text.txt").write_text("Ame\u0301lie\tsait.\tFin\t")
    ids = [256, *"Am\u00e9lie".encode(), 256, *b"sait.", 256, *b"Fin"]
    found = evaluation.evaluate(
        models.load(folder / "model"), tokenizers.ByteTokenizer(),
        tmp_path / "text.txt", 5, document_separator="\t", unicode_form="nfc",
    )  # fmt: skip
    total = by_hand(models.load(folder / "model"), ids, 5)
    assert (found.num_tokens, found.num_bytes) == (17, 15)
    assert found.nats_per_token == pytest.approx(total / 17, rel=1e-5)


def test_a_prepared_corpus_read_otherwise_is_refused(folder, tmp_path):
    tokenizer = tokenizers.ByteTokenizer()
    data.prepare(str(folder / "text.txt"), tokenizer, tmp_path / "tokens")
    model = models.load(folder / "model")
    for asked in (
        {"json_field": "body"},
        {"add_separators": False},
        {"document_separator": "\n"},
        {"unicode_form": "nfc"},
    ):
        with pytest.raises(data.DataError, match="fixed when it is prepared"):
            evaluation.evaluate(model, tokenizer, str(tmp_path / "tokens"), **asked)


def test_a_recurrent_model_takes_any_context(folder):
    config = models.LSTMLMConfig(vocab_size=257, embedding_width=3, units=5)
    found = evaluation.evaluate(
        models.build(config),
        tokenizers.ByteTokenizer(),
        str(folder / "text.txt"),
        context=2_048,
    )
    assert found.num_tokens == len(TEXT.encode()) - 1


def test_a_prepared_corpus_is_text_too(folder, tmp_path):
    model = models.load(folder / "model")
    tokenizer = models.load_tokenizer(folder / "model")
    config = data.TextConfig(valid_fraction=0.0)
    data.prepare([folder / "text.txt"], tokenizer, tmp_path / "prepared", config)
    assert evaluation.evaluate(
        model, tokenizer, tmp_path / "prepared"
    ) == evaluation.evaluate(model, tokenizer, folder / "text.txt")


@pytest.mark.parametrize("context", [0, 14])
def test_a_context_beyond_the_positions_is_refused(folder, context):
    with pytest.raises(ValueError, match="13 positions"):
        evaluation.evaluate(
            models.load(folder / "model"), tokenizers.ByteTokenizer(),
            str(folder / "text.txt"), context,
        )  # fmt: skip


def test_the_command_prints_the_same_figures(folder):
    run = forked.run(
        "scripts/evaluate.py",
        f"--model={folder / 'model'}",
        f"--text={folder / 'text.txt'}",
        "--json",
        r"--document_separator=\n",
        "--unicode_form=nfc",
    )
    assert run.returncode == 0, run.stderr
    found = evaluation.evaluate(
        models.load(folder / "model"),
        models.load_tokenizer(folder / "model"),
        str(folder / "text.txt"),
        document_separator="\n",
        unicode_form="nfc",
    )
    assert found.num_tokens == len(TEXT.encode()) - 1  # Nine documents, nine ends.
    printed = json.loads(run.stdout)
    assert printed["nats_per_token"] == pytest.approx(found.nats_per_token, rel=1e-6)
    assert printed["bits_per_byte"] == pytest.approx(found.bits_per_byte, rel=1e-6)
    assert printed["num_tokens"] == found.num_tokens
