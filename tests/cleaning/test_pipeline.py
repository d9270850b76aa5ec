"""A made-up corpus: what stays, in which order, byte for byte on every engine."""

import gzip
import json
import pathlib

import pytest

from keras_llm.cleaning import CleaningConfig, clean_corpus
from keras_llm.core import check_manifest
from keras_llm.data import Dask, DataError, Local, TextConfig, read_documents

TALE = (
    "The ship left the harbour on a grey morning in November, and none of those who "
    "stood on the quay had reason to think that they would see her again. "
)
OTHER = "A lamp was lit in the window of the inn, and the landlord counted his coins. "
THIRD = "Seven years later a fisherman drew up a bell with no name on its rim. "
FRENCH = "Le navire quitta le port par un matin gris de novembre, sans un seul adieu. "
NEAR = TALE.replace("grey", "gray") + TALE.replace("harbour", "harbor") + OTHER * 3


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [
        TALE + TALE + OTHER * 3,
        "short",
        f"{OTHER} Write to bosun@example.org or from 8.8.4.4.",
        FRENCH * 2,
        "",
    ]
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in lines)
    )
    (folder / "b.txt").write_text(TALE + TALE + OTHER * 3)  # The same as a's first.
    with gzip.open(folder / "c.txt.gz", "wt") as file:
        file.write("1 2 3 4 5 6 7 8 9 " * 20)
    (folder / "d.txt").write_text(THIRD + TALE)
    return folder


def texts(folder):
    return [text.decode() for text in read_documents(folder, TextConfig())]


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
    }


def shards(folder):
    return sorted(path.name for path in folder.glob("text-*"))


def test_what_stays(corpus, tmp_path):
    config = CleaningConfig(languages=("en",), shard_bytes=1)
    seen = []
    report = clean_corpus(
        corpus, tmp_path / "out", config, progress=lambda *now: seen.append(now)
    )
    assert shards(tmp_path / "out") == ["text-00000.jsonl.gz", "text-00001.jsonl.gz"]
    kept = [
        text for s in shards(tmp_path / "out") for text in texts(tmp_path / "out" / s)
    ]
    assert kept == [
        (TALE + TALE + OTHER * 3).rstrip(),
        f"{OTHER} Write to [email] or from [ip address].",
        (THIRD + TALE).rstrip(),
    ]
    assert (report.documents, report.empty_documents, report.kept) == (7, 1, 3)
    assert report.characters == sum(map(len, kept))
    assert report.scrubbed == {"email": 1, "ip_address": 1}
    assert report.left_out == {
        "exact duplicate": 1,
        "language": 1,
        "short": 1,
        "symbols": 1,
    }
    assert report.examples["short"] == ["short"]
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["left_out"] == report.left_out
    assert CleaningConfig.from_dict(written["config"]) == config
    check_manifest(tmp_path / "out")
    done, total = zip(*seen, strict=True)
    assert list(done) == sorted(done) and done[-1] == total[-1]


def test_duplicates_by_degree(corpus, tmp_path):
    (corpus / "e.txt").write_text(NEAR)
    kept = {}
    for duplicates in ("keep", "exact", "near"):
        config = CleaningConfig(
            duplicates=duplicates, near_similarity=0.6, shingle_words=3
        )
        kept[duplicates] = clean_corpus(corpus, tmp_path / duplicates, config).kept
    assert kept == {"keep": 6, "exact": 5, "near": 4}


def test_every_engine_writes_the_same_bytes(corpus, tmp_path):
    config = CleaningConfig(shard_bytes=200)
    engines = {"here": None, "processes": Local(2), "dask": Dask(processes=2)}
    for name, engine in engines.items():
        clean_corpus(corpus, tmp_path / name, config, engine=engine)
    here = files(tmp_path / "here")
    assert here == files(tmp_path / "processes") == files(tmp_path / "dask")
    assert len(here) >= 4


def test_its_output_is_input(corpus, tmp_path):
    clean_corpus(corpus, tmp_path / "once")
    again = clean_corpus(tmp_path / "once" / "text-*", tmp_path / "again")
    assert again.left_out == again.scrubbed == {}
    once, twice = files(tmp_path / "once"), files(tmp_path / "again")
    assert once["text-00000.jsonl.gz"] == twice["text-00000.jsonl.gz"]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_leaves_nothing(corpus, tmp_path, processes):
    (corpus / "d.txt").write_bytes(b"caf\xe9 " * 40)
    with pytest.raises(DataError, match=r"UTF-8. Received: .*d\.txt with byte 0xe9"):
        clean_corpus(corpus, tmp_path / "out", engine=Local(processes))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_nothing_kept_is_an_error_with_the_reasons(corpus, tmp_path):
    config = CleaningConfig(languages=("ja",))
    with pytest.raises(
        DataError, match=r"7 document\(s\): 5 language, 1 short, 1 symb"
    ):
        clean_corpus(corpus, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_document_beyond_the_bound(corpus, tmp_path):
    config = CleaningConfig(max_document_bytes=300)
    with pytest.raises(DataError, match=r"300 bytes in .*a\.jsonl or a file after"):
        clean_corpus(corpus, tmp_path / "out", config)


def test_an_existing_folder_is_left_alone(corpus, tmp_path):
    with pytest.raises(FileExistsError, match="never over an existing one"):
        clean_corpus(corpus, corpus)
