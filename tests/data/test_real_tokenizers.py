"""The tokenizers of the package over real text, and the command."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_llm import data, tokenizers
from keras_llm.data import documents, sources
from tests import forked

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["testdata/moby_dick.txt", "testdata/tang_poems.txt"]


@pytest.fixture(scope="module")
def gpt2():
    return tokenizers.ByteBPETokenizer.from_gpt2_files(
        "testdata/gpt2/encoder.json", "testdata/gpt2/vocab.bpe"
    )


def stream(store):
    return store.read(np.zeros(1, np.int64), store.num_tokens)[0]


@pytest.mark.parametrize("path", TEXTS)
def test_pieces_of_a_file_give_the_tokens_of_the_whole(gpt2, path, monkeypatch):
    whole = gpt2.encode(pathlib.Path(path).read_bytes()).numpy()
    for piece_bytes in (10_007, 70_001):
        monkeypatch.setattr(documents, "PIECE_BYTES", piece_bytes)
        store = data.load_tokens(path, gpt2, data.DataConfig())
        np.testing.assert_array_equal(stream(store), [gpt2.end_id, *whole])


def test_pieces_of_unruly_text_too(gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", 300)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 101)
    parts = "it's|'ll|we|  |\n|\n\n \n|\t|\r\n|12|風|\u3000|\xa0|e\u0301|🌊|...|\u2028"
    rng = random.Random(3)
    for _ in range(20):
        text = "".join(rng.choices(parts.split("|"), k=1000))
        (tmp_path / "a.txt").write_bytes(text.encode())
        store = data.load_tokens(tmp_path / "a.txt", gpt2, data.DataConfig())
        whole = gpt2.encode(text).numpy()
        np.testing.assert_array_equal(stream(store), [gpt2.end_id, *whole])


def test_prepared_by_one_kind_is_refused_by_another(tmp_path):
    characters = tokenizers.CharacterTokenizer.train(data.read_documents(TEXTS[1]))
    summary = data.prepare(TEXTS[1], characters, tmp_path / "tokens")
    text = pathlib.Path(TEXTS[1]).read_bytes()
    total = summary.train.num_bytes + summary.valid.num_bytes
    assert total == len(text)
    assert summary.train.num_tokens + summary.valid.num_tokens == len(text.decode()) + 2
    again = tokenizers.load(tmp_path / "tokens" / "tokenizer")
    settings = data.DataConfig(context=32, batch_size=4)
    batch = next(data.training_batches(tmp_path / "tokens", again, settings))
    row = [*batch["token_ids"][0], batch["targets"][0, -1]]
    assert again.decode(row).numpy() in text
    with pytest.raises(data.DataError, match="the tokenizer that wrote it"):
        data.load_tokens(tmp_path / "tokens", tokenizers.ByteTokenizer(), settings)


def test_the_bytes_of_all_documents_are_counted(gpt2):
    settings = data.DataConfig(document_separator="\n\n", context=64)
    batches = data.validation_batches(TEXTS[1], gpt2, settings)
    poems = list(data.read_documents(TEXTS[1], settings))
    assert batches.num_bytes == sum(map(len, poems))
    predicted = [b["targets"][b["weights"] > 0] for b in batches]
    # All poems again: the first separator alone is not predicted.
    ids = np.concatenate(predicted)
    np.testing.assert_array_equal((ids == gpt2.end_id).sum(), len(poems) - 1)
    assert gpt2.decode(ids).numpy() == b"".join(poems)


SCRIPT = "scripts/prepare_data.py"


def started_anew(script, *arguments):
    """Runs a script in a process that imports TensorFlow, and hushes it."""
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_command_writes_a_folder_and_says_what_it_holds(tmp_path):
    tokenizers.ByteTokenizer().save(tmp_path / "tokenizer")
    out = tmp_path / "tokens"
    result = forked.run(
        SCRIPT,
        f"--input={ROOT}/testdata/tang*.txt",
        f"--tokenizer={tmp_path}/tokenizer",
        f"--out={out}",
        r"--document_separator=\n\n",
    )
    assert result.returncode == 0, result.stderr
    poems = list(
        data.read_documents(TEXTS[1], data.TextConfig(document_separator="\n\n"))
    )
    corpus = data.PreparedCorpus(out)
    counts = [corpus.tokens(part).counts for part in ("train", "valid")]
    assert sum(c.num_documents for c in counts) == len(poems)
    for name, c in zip(("train", "valid"), counts, strict=True):
        line = f"{name}: {c.num_documents:,} documents, {c.num_tokens:,} tokens, "
        assert line + f"{c.num_bytes:,} bytes" in result.stdout
    assert f"2 shard(s) in {out}; 0 empty" in result.stdout


def test_the_command_refuses_in_one_line(tmp_path):
    tokenizers.ByteTokenizer().save(tmp_path / "tokenizer")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"ok \xff")
    for run, tokenizer, out, reason in [
        (started_anew, "tokenizer", "new", "0xff at offset 3"),
        (forked.run, "tokenizer", "tokenizer", "over an existing one"),
        (forked.run, "absent", "new", "A tokenizer's folder is needed"),
    ]:
        given = f"--tokenizer={tmp_path / tokenizer}"
        result = run(SCRIPT, given, f"--input={bad}", f"--out={tmp_path / out}")
        assert result.returncode == 1
        errors = result.stderr.splitlines()
        assert len(errors) == 1, result.stderr
        assert reason in errors[0]
        assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.txt", "tokenizer"]


def test_the_command_ended_from_outside_leaves_nothing(tmp_path):
    tokenizers.ByteTokenizer().save(tmp_path / "tokenizer")
    os.mkdir(tmp_path / "out")
    text = tmp_path / "long.txt"
    text.write_bytes(b"many words " * 10_000_000)
    process = forked.Forked(
        SCRIPT,
        f"--input={text}",
        f"--tokenizer={tmp_path}/tokenizer",
        f"--out={tmp_path}/out/tokens",
    )
    while process.poll() is None and not os.listdir(tmp_path / "out"):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert os.listdir(tmp_path / "out") == []
