"""Results of runs: a record is the run's own figures, the page is the records."""

import json
import pathlib
import runpy
import sys

import pytest

from keras_llm import models, tokenizers, training

ROOT = pathlib.Path(__file__).parents[1]
MAKE = runpy.run_path(str(ROOT / "docs" / "make_results.py"))


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert page == MAKE["page"](MAKE["records"]()), "Run `python docs/make_results.py`."


def test_every_record_is_whole():
    kinds = {
        "name": str, "what": str, "data": str, "config": str, "command": str,
        "parameters": int, "steps": int, "seconds": float, "metrics": dict,
        "baseline": dict | None, "seed": int, "machine": str, "note": str,
    }  # fmt: skip
    for record in MAKE["records"]():
        assert list(record) == list(kinds), record["name"]
        for name, kind in kinds.items():
            assert isinstance(record[name], kind), f"{record['name']}: {name}"
        assert (ROOT / record["config"]).is_file(), record["name"]
        assert record["metrics"], record["name"]
        assert record["config"] in record["command"], record["name"]


def record(name, what, metrics, **changes):
    return {
        "name": name, "what": what, "data": "a book", "config": "a/b.py",
        "command": f"python scripts/train.py --run_dir={name}", "parameters": 12_345,
        "steps": 7, "seconds": 61.6, "metrics": metrics, "baseline": None, "seed": 3,
        "machine": "two cores", "note": "", **changes,
    }  # fmt: skip


def test_runs_of_one_question_share_a_table():
    bag = {"what": "words", "metrics": {"accuracy": 0.5, "rows": 2_000}}
    page = MAKE["page"](
        [
            record("a", "Which?", {"accuracy": 0.75}, baseline=bag, note="Slow."),
            record("b", "Other?", {"loss": 2.0}),
            record("c", "Which?", {"f1": 123.25}, baseline=bag, data="two books"),
        ]
    )
    assert page.count("## Which?") == page.count("## Other?") == 1
    which, other = page.split("## ")[1:]
    assert which.startswith("Which?")
    assert "| run | config | seed | parameters | steps | seconds | accuracy |" in which
    assert "| [a](results/a.json) | `b` | 3 | 12,345 | 7 | 62 | 0.7500 |  |  |" in which
    assert "| [c](results/c.json) | `b` | 3 | 12,345 | 7 | 62 |  | 123.2 |  |" in which
    assert which.count("| baseline: words |  |  |  |  |  | 0.5000 |  | 2,000 |") == 1
    assert "- data of `c`: two books" in which and "- `a`: Slow." in which
    assert "Machine: two cores" in which and "\nData: a book" in other
    assert "# a\npython scripts/train.py --run_dir=a\n# c\n" in which


@pytest.fixture
def run(tmp_path):
    """Returns a run folder as training leaves it."""
    config = models.LSTMLMConfig(vocab_size=257, embedding_width=3, units=5)
    experiment = training.Experiment(
        model=config, train=training.TrainConfig(steps=9, seed=11)
    )
    run = tmp_path / "run"
    models.save(models.build(config), run / "best", tokenizers.ByteTokenizer())
    (run / "config.json").write_text(json.dumps(experiment.to_dict()))
    lines = [
        {"step": 3, "loss": 1.0, "valid_loss": 2.5, "valid_accuracy": 0.25},
        {"step": 6, "valid_loss": 2.25, "valid_accuracy": 0.5},
        {"step": 9, "valid_loss": None, "valid_accuracy": 0.75},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for step, seconds in ((6, 4.0), (9, 5.27)):
        folder = run / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(
            json.dumps({"step": step, "seconds": seconds})
        )
    return run


def test_a_record_holds_the_runs_own_figures(run, tmp_path, monkeypatch):
    bag = tmp_path / "bag.json"
    bag.write_text('{"accuracy": 0.125, "labels": {"a": 1}, "kind": "x", "nan": NaN}')
    config = "keras_llm/configs/lstm_small.py"
    flags = [
        f"--run_dir={run}", "--name=small_lstm", "--what=How low?", "--data=a book",
        f"--config={config}", f"--command=python scripts/train.py --config={config}",
        "--machine=two cores", f"--baseline={bag}", "--baseline_what=bag of words",
        f"--out={tmp_path / 'results'}",
    ]  # fmt: skip
    main = runpy.run_path(str(ROOT / "benchmarks" / "record_result.py"))["main"]
    monkeypatch.setattr(sys, "argv", ["record_result.py", *flags])
    main()
    (found,) = MAKE["records"](tmp_path / "results")
    # The table; kernels and bias of one layer and of the next; the head.
    layers = (3 + 5) * 20 + 20 + (5 + 5) * 20 + 20
    assert found.pop("parameters") == 257 * 3 + layers + 5 * 257
    assert found == {
        "name": "small_lstm", "what": "How low?", "data": "a book", "config": config,
        "command": f"python scripts/train.py --config={config}",
        "steps": 9, "seconds": 5.3, "metrics": {"loss": 2.25, "accuracy": 0.5},
        "baseline": {"what": "bag of words", "metrics": {"accuracy": 0.125}},
        "seed": 11, "machine": "two cores", "note": "",
    }  # fmt: skip
    # Figures of an evaluation of its own go before those of the run.
    monkeypatch.setattr(sys, "argv", ["record_result.py", *flags, f"--metrics={bag}"])
    main()
    (found,) = MAKE["records"](tmp_path / "results")
    assert found["metrics"] == {"accuracy": 0.125}
