"""Splits by a hash of the text, and JSON lines: what the data set scripts share."""

import hashlib
import json
import pathlib

# Of every hundred texts.
_VALID, _TEST = 3, 3


def split_of(text):
    """Returns "train", "valid" or "test": always the same for the same text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
    if number < _VALID:
        return "valid"
    return "test" if number < _VALID + _TEST else "train"


def check_sha256(path, expected):
    """Raises ValueError unless a file has the SHA-256 that is on record."""
    found = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            "The figures in docs/results.md hold for one version of the data. "
            f"Received: {path} with SHA-256 {found} instead of {expected}. Fetch that "
            "version, or pass --any_version and compare with nothing published."
        )


def write_splits(out, examples):
    """Writes `train.jsonl`, `valid.jsonl` and `test.jsonl`, and prints their sizes.

    Args:
        out: A folder; made if need be.
        examples: Pairs (the text whose hash decides, the example as a dict).
    """
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lines = {"train": [], "valid": [], "test": []}
    for key, example in examples:
        lines[split_of(key)].append(json.dumps(example, ensure_ascii=False))
    for split, found in lines.items():
        # By hash: neighbours in the source are no neighbours in the file.
        found.sort(key=lambda line: hashlib.sha256(line.encode()).digest())
        text = "".join(f"{line}\n" for line in found)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        print(f"{folder / split}.jsonl: {len(found)} examples")
