import json
import math

import keras
import numpy as np
import pytest

from keras_llm import data, evaluation, generation, models, tokenizers
from tests import forked

PAIRS = [
    {"source": "one fish", "target": "un poisson"},
    {"source": "a quay", "target": "un quai, long et froid"},
    {"source": "", "target": "rien"},
]
LEFT_OUT = {"source": "no", "target": "non"}  # Wherever a limit is given.
CONFIGS = {
    "lstm_seq2seq": models.LSTMSeq2SeqConfig(
        vocab_size=257, embedding_width=5, units=6
    ),
    "t5": models.T5Config(
        vocab_size=257,
        max_positions=19,
        width=6,
        num_layers=1,
        num_heads=2,
        head_size=5,
        feed_forward_width=7,
    ),
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in [*PAIRS, LEFT_OUT]))
    return path


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    keras.utils.set_random_seed(7)
    return models.build(CONFIGS[request.param])


def logits_of(model, source, target):
    """Returns [T + 1, V]: what follows each of a target's T tokens, and its start."""
    inputs = {
        "source_ids": np.array([source], "int32"),
        "source_lengths": np.array([len(source)], "int32"),
        "token_ids": np.array([[model.config.start_id, *target]], "int32"),
    }
    return np.asarray(model(inputs)[0], "float64")


def loss_by_hand(model, pairs, context):
    """Returns the sum of all tokens' losses, pair by pair, and their number."""
    total = count = 0
    for pair in pairs:
        source = [*pair["source"].encode()][: context - 1] + [256]
        target = [*pair["target"].encode()][: context - 1] + [256]
        logits = logits_of(model, source, target[:-1])
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= log_probs[np.arange(len(target)), target].sum()
        count += len(target)
    return total, count


SEARCHED = {"context": 13, "num_beams": 3, "max_new_tokens": 11, "limit": 3}


@pytest.fixture(scope="module")
def searched(model, examples):
    """Returns what a search of several beams comes to, of rows that are cut."""
    tokenizer = tokenizers.ByteTokenizer()
    return evaluation.evaluate_pairs(model, tokenizer, examples, **SEARCHED)


def test_the_loss_is_that_of_every_target_token(model, searched):
    found = searched
    total, count = loss_by_hand(model, PAIRS, 13)
    assert found["num_tokens"] == count == 11 + 13 + 5
    assert found["nats_per_token"] == pytest.approx(total / count, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_greedy_texts_are_of_the_likeliest_tokens(model, examples):
    found = evaluation.evaluate_pairs(
        model, tokenizers.ByteTokenizer(), examples, max_new_tokens=11, limit=2
    )
    texts = [likeliest_text(model, pair["source"], 11) for pair in PAIRS[:2]]
    assert any(texts)
    assert_scores_are_of(texts, found)


def likeliest_text(model, text, most):
    """Returns what is written token by token, from all logits of a row alone."""
    ids = []
    while len(ids) < most and 256 not in ids:
        ids.append(int(logits_of(model, [*text.encode(), 256], ids)[-1].argmax()))
    return bytes(token for token in ids if token < 256).decode(errors="replace")


def test_texts_of_several_beams_are_those_of_the_search(model, searched):
    search = generation.BeamSearch(model, tokenizers.ByteTokenizer())
    sources = [pair["source"] for pair in PAIRS]
    rows = search.search_all(sources, 3, max_new_tokens=11)
    assert_scores_are_of([beams[0].text for beams in rows], searched)


def assert_scores_are_of(texts, found):
    references = [pair["target"] for pair in PAIRS[: len(texts)]]
    assert found["num_examples"] == len(texts)
    assert found["chrf"] == evaluation.chrf(texts, references).value
    assert found["bleu"] == evaluation.bleu(texts, references).value
    assert found["chrf_signature"] == evaluation.chrf(texts, references).signature
    rouge = evaluation.rouge(texts, references)
    assert {name: found[name] for name in rouge} == rouge


def test_refusals(model, examples, tmp_path):
    tokenizer = tokenizers.ByteTokenizer()
    for wrong in ({"num_beams": 0}, {"limit": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            evaluation.evaluate_pairs(model, tokenizer, examples, **wrong)
    with pytest.raises(ValueError, match="`context` must lie"):
        evaluation.evaluate_pairs(model, tokenizer, examples, context=0)
    with pytest.raises(ValueError, match="`tokenizer` must be one of"):
        evaluation.evaluate_pairs(model, tokenizer, examples, bleu_tokenizer="fr")
    (tmp_path / "none.jsonl").write_text('{"source": "one"}\n')
    with pytest.raises(data.DataError, match="'target'"):
        evaluation.evaluate_pairs(model, tokenizer, tmp_path / "none.jsonl")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    models.save(model, path, tokenizers.ByteTokenizer())
    return path


def test_the_command_prints_the_same_figures(folder, searched, examples):
    run = forked.run(
        "scripts/evaluate.py",
        f"--model={folder}",
        f"--examples={examples}",
        "--json",
        *(f"--{name}={value}" for name, value in SEARCHED.items()),
    )
    assert run.returncode == 0, run.stderr
    printed, found = json.loads(run.stdout), dict(searched)
    for name in ("bleu_signature", "chrf_signature"):
        assert printed.pop(name) == found.pop(name)
    assert printed == pytest.approx(found, rel=1e-5)
