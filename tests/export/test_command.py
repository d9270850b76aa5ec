"""The command `export`: what it writes, says and refuses, in one process of its own."""

import importlib
import json

import pytest

from keras_llm import commands, models, tokenizers
from keras_llm.core import read_json
from tests import forked

# The package's `verify` is the function.
verify_lib = importlib.import_module("keras_llm.export.verify")

# Runs the command once per list of flags on standard input, as `keras-llm` does.
DRIVER = """
import contextlib, io, json, sys
from absl import app, flags
from keras_llm import commands
from keras_llm.commands import export

def run(words):
    out, err, code = io.StringIO(), io.StringIO(), 0
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            commands._call(export.main, flags.FLAGS(["export", *words]))
        except SystemExit as end:
            code = end.code
        except (app.UsageError, flags.Error) as error:
            code, _ = 2, err.write(str(error))
    return [code, out.getvalue(), err.getvalue()]

print("RESULTS", json.dumps([run(words) for words in json.load(sys.stdin)]))
"""
CONFIG = """
from keras_llm.models import LSTMLMConfig
from keras_llm.training import Experiment

def get_config():
    return Experiment(model=LSTMLMConfig(embedding_width=7, units=10, num_layers=1))
"""
CASES = {
    "model": ["--model={0}/model", "--out={0}/serving/1"],
    "config": ["--config={0}/c.py", "--out={0}/serving/2", "--jit", "--verify=false"],
    "existing": ["--model={0}/model", "--out={0}/model/1"],
    "unnumbered": ["--model={0}/model", "--out={0}/serving/whale"],
    "no folder": ["--model={0}/absent", "--out={0}/serving/3"],
    "tokenizer": ["--model={0}/model", "--tokenizer=x", "--out={0}/serving/3"],
    "seed": ["--model={0}/model", "--seed=0", "--out={0}/serving/3"],
    "both": ["--model={0}/model", "--config={0}/c.py", "--out={0}/serving/3"],
    "neither": ["--out={0}/serving/3"],
    "dtype": ["--model={0}/model", "--dtype=int8", "--out={0}/serving/3"],
    "negative seed": ["--config={0}/c.py", "--seed=-1", "--out={0}/serving/3"],
    "no config": ["--config={0}/absent.py", "--out={0}/serving/3"],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder in which the command ran."""
    work = tmp_path_factory.mktemp("work")
    (work / "c.py").write_text(CONFIG)
    sizes = models.LSTMLMConfig(
        vocab_size=257, embedding_width=12, units=20, num_layers=1
    )
    models.save(models.build(sizes), work / "model", tokenizers.ByteTokenizer())
    (work / "model" / "1").mkdir()
    return work


@pytest.fixture(scope="module")
def results(work):
    """Code, standard output and standard error of every case."""
    cases = [[word.format(work) for word in words] for words in CASES.values()]
    (work / "driver.py").write_text(DRIVER)
    finished = forked.run(work / "driver.py", stdin=json.dumps(cases).encode())
    for line in finished.stdout.splitlines():
        if line.startswith("RESULTS "):
            found = json.loads(line.removeprefix("RESULTS "))
            return dict(zip(CASES, found, strict=True))
    raise AssertionError(finished.stderr[-2000:])


def test_a_model_folder_is_exported_and_proven(work, results):
    code, said, _ = results["model"]
    assert code == 0
    assert said.startswith(f"Exported {work}/serving/1 (")
    assert said.endswith("MB, verified in a fresh process).\n")
    manifest = read_json(work / "serving" / "1" / "manifest.json")
    assert manifest["architecture"] == "lstm_lm"
    assert manifest["verified_answers"] == 16


def test_a_fresh_model_of_a_config_is_exported_compiled_and_unproven(work, results):
    code, said, _ = results["config"]
    assert code == 0
    assert "not verified" in said
    folder = work / "serving" / "2"
    manifest = read_json(folder / "manifest.json")
    assert manifest["config"]["vocab_size"] == tokenizers.ByteTokenizer().vocab_size
    assert manifest["jit"] is True
    assert manifest["verified_answers"] == 0
    assert "Not verified" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("existing", 1, "never over an existing one. Give a new name"),
        ("unnumbered", 1, "named by a version number"),
        ("no folder", 1, "A model folder is needed"),
        ("no config", 1, "A config is a Python file"),
        ("tokenizer", 2, "--tokenizer changes nothing with --model"),
        ("seed", 2, "--seed changes nothing with --model"),
        ("both", 2, "either --model or --config"),
        ("neither", 2, "either --model or --config"),
        ("dtype", 2, "--dtype=int8"),
        ("negative seed", 2, "--seed=-1"),
    ],
)
def test_what_is_refused_is_named_and_nothing_is_written(
    work, results, case, code, message
):
    assert results[case][0] == code
    assert message in results[case][2]
    assert "Traceback" not in results[case][2]
    left = sorted(path.name for path in (work / "serving").iterdir())
    assert left == ["1", "2"]


def test_a_failed_proof_ends_in_one_line(monkeypatch, capsys):
    def fail(_):
        verify_lib._compare("score", {}, {"log_prob": [1.0]}, {"log_prob": [2.0]}, 0.1)

    monkeypatch.setattr(commands._quiet, "import_tensorflow", lambda: None)
    with pytest.raises(SystemExit):
        commands._call(fail, [])
    said = capsys.readouterr().err
    assert "`score` differs in `log_prob`: expected [1.0], received [2.0]" in said
    assert said.count("\n") == 1
