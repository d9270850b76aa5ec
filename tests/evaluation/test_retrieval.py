"""An encoder's vectors, measured by the search for partners."""

import json

import numpy as np
import pytest

from keras_llm import data, evaluation, models, tokenizers
from tests import forked
from tests.json_lines import write

WORDS = "whale sea ship captain harpoon storm island mast sail crew of and".split()
CONFIG = models.BertConfig(
    vocab_size=5 + len(WORDS),
    width=6,
    num_layers=1,
    num_heads=2,
    max_positions=9,
    head="embed",
    pooling="max",
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.WordPieceTokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    )


@pytest.fixture(scope="module")
def model():
    model, rng = models.build(CONFIG), np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def examples():
    """Returns texts that begin like their partners; some share one."""
    rng = np.random.default_rng(2)

    def words():
        return list(rng.choice(WORDS, rng.integers(1, 10)))

    partners = [words() for _ in range(41)]
    pairs = [(words(), partners[rng.integers(0, 41)]) for _ in range(67)]
    return [
        {"text": " ".join(partner[:3] + own[:2]), "text_pair": " ".join(partner)}
        for own, partner in pairs
    ]


@pytest.fixture(scope="module")
def path(examples, tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", examples)


def vector(model, tokenizer, text):
    """Returns the unit vector of one text, which is cut to nine tokens."""
    rows = tokenizers.EncoderRows(tokenizer)([text.encode()], None, limit=9)
    inputs = {n: getattr(rows, n) for n in ("token_ids", "segment_ids", "lengths")}
    found = np.asarray(model(inputs), np.float64)[0]
    return found / np.linalg.norm(found)


def test_ranks_are_those_of_a_search_one_by_one(model, tokenizer, examples, path):
    candidates = sorted({example["text_pair"] for example in examples})
    found = {text: vector(model, tokenizer, text) for text in candidates}
    ranks = []
    for example in examples:
        asking = vector(model, tokenizer, example["text"])
        own = asking @ found[example["text_pair"]]
        # Equal once cut, texts have equal vectors: each stands before the other.
        ranks.append(sum(asking @ found[text] >= own - 1e-6 for text in candidates))
    ranks = np.array(ranks)
    assert 0 < (ranks == 1).mean() < (ranks <= 10).mean() < 1
    assert evaluation.evaluate_retrieval(model, tokenizer, path) == {
        "recall_at_1": pytest.approx((ranks == 1).mean()),
        "recall_at_10": pytest.approx((ranks <= 10).mean()),
        "mrr": pytest.approx((1 / ranks).mean()),
        "num_rows": 67,
        "num_candidates": len(candidates),
    }


def test_vectors_that_are_all_alike_find_nothing(tokenizer, path):
    alike = models.build(CONFIG)
    alike.set_weights([np.zeros(weight.shape) for weight in alike.get_weights()])
    figures = evaluation.evaluate_retrieval(alike, tokenizer, path)
    assert figures["recall_at_1"] == figures["recall_at_10"] == 0
    assert figures["mrr"] == pytest.approx(1 / figures["num_candidates"])


def test_vectors_that_are_not_finite_are_refused(tokenizer, path):
    broken = models.build(CONFIG)
    broken.weights[0].assign(np.full(broken.weights[0].shape, np.nan))
    with pytest.raises(ValueError, match="must be finite"):
        evaluation.evaluate_retrieval(broken, tokenizer, path)


def test_no_pairs_are_refused(model, tokenizer, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(data.DataError, match="Examples are needed"):
        evaluation.evaluate_retrieval(model, tokenizer, empty)


def test_the_command_prints_the_figures(model, tokenizer, path, tmp_path):
    folder = tmp_path / "model"
    models.save(model, folder, tokenizer)
    run = forked.run(
        "scripts/evaluate.py", f"--model={folder}", f"--examples={path}", "--json"
    )
    assert run.returncode == 0, run.stderr
    figures = evaluation.evaluate_retrieval(model, tokenizer, path)
    assert json.loads(run.stdout) == pytest.approx(figures)
