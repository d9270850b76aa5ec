"""What the commands refuse ends in one line: the rule, what came, what to do."""

import os

import pytest
from absl import app, flags

from keras_llm import commands, core, data, models, tokenizers
from keras_llm.commands import _bench_tokenize, _overrides
from keras_llm.core import folders
from keras_llm.serving.versions import Versions


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder of each kind, and what is none."""
    work = tmp_path_factory.mktemp("work")
    (work / "text.txt").write_text("Call me Ishmael. " * 9)
    (work / "empty").mkdir()
    (work / "whale" / "1").mkdir(parents=True)
    (work / "whale" / "1" / "saved_model.pb").touch()
    tokenizer = tokenizers.ByteTokenizer()
    tokenizer.save(work / "tokenizer")
    sizes = models.LSTMLMConfig(vocab_size=257, embedding_width=3, units=5)
    models.save(models.build(sizes), work / "model", tokenizer)
    data.prepare(work / "text.txt", tokenizer, work / "tokens")
    return work


def refusal(monkeypatch, capsys, call):
    """Returns the one line in which a command ends that does `call`."""
    monkeypatch.setattr(commands._quiet, "import_tensorflow", lambda: None)
    with pytest.raises(SystemExit) as end:
        commands._call(lambda _: call(), [])
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("absent", "Check the path."),
        ("empty", "Check the path."),
        ("text.txt", "Check the path."),
        ("whale/1", "Check the path."),
        ("model", "Give {0}/model/tokenizer."),
        ("tokens", "Give {0}/tokens/tokenizer."),
    ],
)
def test_what_is_no_tokenizer(monkeypatch, capsys, work, given, remedy):
    said = refusal(monkeypatch, capsys, lambda: tokenizers.load(work / given))
    assert "A tokenizer's folder is needed, with its tokenizer.json. Rece" in said
    assert said.endswith(
        f"Received: {work / given}, which has none. {remedy.format(work)}\n"
    )


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("absent", "Check the path."),
        ("empty", "Check the path."),
        ("text.txt", "Check the path."),
        ("tokens", "Check the path."),
        ("tokenizer", "Check the path."),
        ("whale/1", "That is an export: give the model folder that it was made from."),
    ],
)
def test_what_is_no_model(monkeypatch, capsys, work, given, remedy):
    said = refusal(monkeypatch, capsys, lambda: models.load(work / given))
    assert "A model folder is needed, as `models.save` writes it." in said
    assert said.endswith(f"Received: {work / given}. {remedy}\n")


def test_a_version_folder_is_no_base_path(monkeypatch, capsys, work):
    versions = Versions(work / "whale" / "1", lambda folder, version: None)
    said = refusal(monkeypatch, capsys, versions.highest)
    assert said.endswith(f"which is a version itself. Give {work}/whale.\n")


def test_nothing_is_written_over_a_folder(monkeypatch, capsys, work):
    said = refusal(monkeypatch, capsys, lambda: core.check_absent(work / "empty"))
    assert ": A folder is written whole and never over an existing one. Give" in said
    assert said.endswith(f"Received: {work}/empty, which exists.\n")


def test_nothing_is_written_below_a_file(monkeypatch, capsys, work):
    out = work / "text.txt" / "deep" / "new"
    said = refusal(monkeypatch, capsys, lambda: core.check_absent(out))
    assert f"Received: {out}, but {work}/text.txt is a file." in said


def test_nothing_is_written_where_it_may_not_be(monkeypatch, capsys, work):
    # The superuser may write anywhere, so the system's answer is stood in for.
    monkeypatch.setattr(os, "access", lambda path, mode: path != work / "empty")
    out = work / "empty" / "new"
    said = refusal(monkeypatch, capsys, lambda: core.check_absent(out))
    assert f"Received: {out}, but {work}/empty is read-only to this user." in said


def test_a_system_error_is_told_without_its_number(monkeypatch, capsys, work):
    lost = work / "model" / "lost.json"
    said = refusal(monkeypatch, capsys, lambda: folders.write_text(lost / "x", ""))
    assert said.endswith(f": No such file or directory: {lost}/.x.{os.getpid()}.tmp\n")


def test_a_file_that_a_library_does_not_find(monkeypatch, capsys, tmp_path):
    absent = tmp_path / "encoder.json"
    said = refusal(
        monkeypatch,
        capsys,
        lambda: tokenizers.ByteBPETokenizer.from_gpt2_files(absent, absent),
    )
    assert said.endswith(f"No such file or directory: {absent}\n")
    said = refusal(monkeypatch, capsys, lambda: core.read_json(tmp_path / "a.json"))
    assert said.endswith(f"No such file or directory: {tmp_path / 'a.json'}\n")


def test_an_error_that_no_check_raised_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(commands._quiet, "import_tensorflow", lambda: None)
    with pytest.raises(ValueError, match="invalid literal"):
        commands._call(lambda _: int("x"), [])


def test_benchmarks_find_the_repository_from_anywhere(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert _bench_tokenize._repository.test_file("gpt2/vocab.bpe").exists()
    monkeypatch.setattr(_bench_tokenize._repository, "_ROOT", tmp_path)
    said = refusal(monkeypatch, capsys, _bench_tokenize.benchmark_tokenize)
    assert "reads testdata/gpt2 of the repository. Received: a package at" in said
    assert said.endswith("Run it from a checkout.\n")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("--steps=5", "did you mean --train.steps?"),
        (
            "--vocab_size=9",
            "did you mean --tokenizer.vocab_size or --model.vocab_size?",
        ),
        ("--beta=1", "did you mean --task.beta?"),
        ("--stepz=5", "Unknown command line flag 'stepz'"),
    ],
)
def test_a_field_without_its_section(monkeypatch, capsys, given, hint):
    monkeypatch.setattr(_overrides._quiet, "import_tensorflow", lambda: None)
    monkeypatch.setattr(_overrides.flags, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(app, "FLAGS", _overrides.flags.FLAGS)
    with pytest.raises(SystemExit) as end:
        _overrides.parse_flags(["train.py", given])
    assert end.value.code == 1
    assert hint in "".join(capsys.readouterr())
