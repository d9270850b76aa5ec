"""Order, errors and lost workers; a folder prepared on any engine is the same."""

import json
import os
import pathlib
import signal
import time

import pytest

from keras_llm import tokenizers
from keras_llm.data import Dask, DataError, Local, TextConfig, prepare


def slow_first(item):
    time.sleep(0.2 if item == 0 else 0)
    return item, os.getpid()


def refuse_two(item):
    if item == 2:
        raise DataError(f"Not {item}.")
    return item


def end_itself(item):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", params=["here", "processes", "dask"])
def engine(request):
    makes = {
        "here": Local,
        "processes": lambda: Local(2),
        "dask": lambda: Dask(processes=2),
    }
    with makes[request.param]() as running:
        yield running


def test_results_come_in_the_order_of_the_items(engine):
    found = list(engine.map(slow_first, range(5)))
    assert [item for item, _ in found] == list(range(5))
    elsewhere = os.getpid() not in {process for _, process in found}
    assert elsewhere == (not isinstance(engine, Local) or engine._processes > 1)


def test_an_error_comes_as_it_was(engine):
    found = []
    with pytest.raises(DataError, match=r"^Not 2\.$"):
        for item in engine.map(refuse_two, range(4)):
            found.append(item)
    assert found == [0, 1]


def test_a_process_that_is_killed_is_an_error():
    with Local(2) as engine, pytest.raises(RuntimeError, match="Run fewer of them"):
        list(engine.map(end_itself, [1]))


def test_bad_numbers_and_addresses():
    with pytest.raises(ValueError, match="`processes` must be positive"):
        Local(0)
    with pytest.raises(ValueError, match="`processes` must be positive"):
        Dask(processes=0)
    with pytest.raises(OSError, match=r"Received: nonsense://there, which did not"):
        with Dask("nonsense://there"):
            pass


@pytest.mark.parametrize("documents", [300, 30])
def test_a_folder_prepared_on_an_engine_is_the_same(tmp_path, documents):
    """Of 300 documents some are held back by hash, of 30 the tail."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(3):
        lines = [
            json.dumps({"text": f"document {j} " * (1 + j % 7)})
            for j in range(i, documents, 3)
        ]
        (corpus / f"{i}.jsonl").write_text("\n".join(lines))
    (corpus / "empty.txt").write_text("  \n")
    tokenizer = tokenizers.ByteTokenizer()
    engines = {"here": None, "local": Local(), "processes": Local(2)}
    if documents == 300:
        engines["dask"] = Dask(processes=2)
    written, summaries = {}, []
    for name, engine in engines.items():
        summary = prepare(
            corpus,
            tokenizer,
            tmp_path / name,
            TextConfig(),
            shard_tokens=512,
            record_tokens=64,
            engine=engine,
        )
        summaries.append(summary)
        folder = pathlib.Path(tmp_path, name)
        written[name] = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    assert all(files == written["here"] for files in written.values())
    assert all(summary == summaries[0] for summary in summaries)
    assert summaries[0].valid.num_tokens > 0 and summaries[0].num_shards > 2
