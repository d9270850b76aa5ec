"""The example of semantic search, on a small export with random weights."""

import json
import pathlib
import runpy

import faiss
import keras
import numpy as np
import pytest

from keras_llm import export, models, tokenizers
from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "examples" / "semantic_search.py"
TEXT = "\n\n".join(
    f"Paragraph {i} says how many whales were seen on day {i * 7}." for i in range(70)
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    vocabulary = ROOT / "testdata" / "bert" / "vocab.txt"
    tokenizer = tokenizers.WordPieceTokenizer.from_file(vocabulary)
    keras.utils.set_random_seed(3)
    config = models.BertConfig(
        vocab_size=tokenizer.vocab_size,
        width=16,
        num_layers=1,
        num_heads=2,
        max_positions=200,
        head="embed",
        pooling="mean",
        normalize=True,
    )
    model = models.build(config)
    model.get_layer("token_embedding").embeddings.assign(
        np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 16))
    )
    out = tmp_path_factory.mktemp("embed") / "1"
    return export.export(model, tokenizer, out, verify=False)


def test_a_paragraph_finds_itself(exported, tmp_path):
    text, index = tmp_path / "text.txt", tmp_path / "index"
    text.write_text(f"{TEXT}\n\nToo short.\n\n{'sea ' * 300}")
    flags = [f"--export={exported}", f"--text={text}", f"--out={index}"]
    done = forked.run(SCRIPT, "index", *flags)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["paragraphs"] == 70 + 3  # The last is cut twice.
    assert figures["queries"] == 4 and figures["recall_at_10"] > 0.9
    question = TEXT.split("\n\n")[13]
    flags = [f"--export={exported}", f"--index={index}", "--show=1", question]
    done = forked.run(SCRIPT, "ask", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"1.000  {question}"


def test_recall_counts_what_is_missed():
    recall = runpy.run_path(str(SCRIPT))["recall"]
    vectors = np.eye(6, dtype=np.float32)
    half = faiss.IndexFlatIP(6)
    half.add(vectors[:1])  # One of six vectors: it finds one of the three nearest.
    query = np.array([[1, 0.9, 0.8, 0, 0, 0]], np.float32)
    assert recall(half, vectors, query, 3) == pytest.approx(1 / 3)


def test_a_text_without_paragraphs_is_refused(exported, tmp_path):
    (tmp_path / "short.txt").write_text("Call me.")
    flags = [f"--export={exported}", f"--text={tmp_path / 'short.txt'}"]
    done = forked.run(SCRIPT, "index", *flags, f"--out={tmp_path / 'index'}")
    assert done.returncode == 1 and "No paragraph of 40 characters" in done.stderr
    assert not (tmp_path / "index").exists()
