"""A corpus cleaned: each document on its own, duplicates in order, then written.

    files -> parts -> clean, judge, scrub, hash -> keep the first of each -> shards

The first and the last step run on an engine, one part a task; the one between reads the
hashes alone, in the order of the corpus. What is written depends on the files, their
order and the config, and not on the engine.
"""

import collections
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_llm.cleaning.config import CleaningConfig
from keras_llm.cleaning.duplicates import NearDuplicates, digest, signature
from keras_llm.cleaning.languages import LanguageFilter
from keras_llm.cleaning.personal_data import scrub
from keras_llm.cleaning.text import clean_text, fault
from keras_llm.core import folders
from keras_llm.data.config import DataError, TextConfig
from keras_llm.data.documents import ReadCounts, read_pieces
from keras_llm.data.engines import Engine, Local
from keras_llm.data.sources import Patterns, find_files

REPORT = "report.json"
_WORK = ".work"
_REASONS = ("", "exact duplicate", "near duplicate")  # By the mark of a document.
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 200


@dataclasses.dataclass
class CleaningReport:
    """What became of a corpus.

    Attributes:
        documents: Read, those of nothing but white space left out.
        empty_documents: Those.
        kept: Written.
        characters: Written.
        left_out: Why the others were: "short", "symbols", "repetition", "language",
            "exact duplicate", "near duplicate".
        scrubbed: Pieces of personal data by kind, in what passed the first four.
        examples: The beginnings of the first few left out for each reason.
    """

    documents: int = 0
    empty_documents: int = 0
    kept: int = 0
    characters: int = 0
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    scrubbed: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def leave_out(self, reason: str, text: str) -> None:
        """Counts a document that is not kept, and keeps the beginning of a few."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            # Personal data were scrubbed from duplicates alone by now. Cut afterwards,
            # or half of an address would be left.
            head = scrub(text[: 10 * _EXAMPLE_CHARACTERS])[0]
            examples.append(head[:_EXAMPLE_CHARACTERS])

    def add(self, other: "CleaningReport") -> None:
        """Adds what became of the corpus' next part."""
        for name in ("documents", "empty_documents", "kept", "characters"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("left_out", "scrubbed"):
            sums = collections.Counter(getattr(self, name))
            sums.update(getattr(other, name))
            setattr(self, name, dict(sorted(sums.items())))
        for reason, texts in other.examples.items():
            both = self.examples.get(reason, []) + texts
            self.examples[reason] = both[:_EXAMPLES]


def clean_corpus(
    patterns: Patterns,
    out: str | os.PathLike[str],
    config: CleaningConfig | None = None,
    text: TextConfig | None = None,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CleaningReport:
    """Writes what is worth learning from of a corpus, as shards of JSON lines.

    The folder appears when it is whole: `text-NNNNN.jsonl.gz`, a document a line under
    "text"; `report.json`; `manifest.json`. `prepare` reads it like any folder of text.
    Of documents that are the same, or nearly, the first in the corpus stays.

    Args:
        patterns: Files, folders or globs.
        out: Folder to make; must not exist.
        config: The rules.
        text: How files become documents.
        engine: What runs them; None for this process.
        progress: Called with the bytes of input that are done, of two times all.

    Raises:
        DataError: No text, or text that cannot be used; or nothing was kept.
        FileExistsError: `out` exists.
        ImportError: A library of the extra `corpus` is missing.
        keras_llm.core.DiskFullError: No space left; nothing stays behind.
    """
    config, text = config or CleaningConfig(), text or TextConfig()
    folders.check_absent(out)
    parts = _parts(find_files(patterns), config.shard_bytes)
    _check_libraries(config)
    tell = _teller(progress, parts)
    with folders.new_folder(out) as folder, engine or Local() as running:
        work = folder / _WORK
        work.mkdir()
        report = CleaningReport()
        clean = _Clean(config, text, work)
        for index, found in enumerate(running.map(clean, list(enumerate(parts)))):
            report.add(found)
            tell(index)
        shards = _mark(len(parts), config, work, report)
        if not shards:
            raise DataError(_nothing_kept(report))
        write = _Write(work, folder)
        for (index, _), found in zip(shards, running.map(write, shards), strict=True):
            report.add(found)
            tell(len(parts) + index)
        shutil.rmtree(work)
        folders.write_json(
            folder / REPORT,
            {
                "config": config.to_dict(),
                "text": text.to_dict(),
                **dataclasses.asdict(report),
            },
        )
        folders.write_manifest(folder)
    return report


def _parts(files: list[pathlib.Path], size: int) -> list[list[pathlib.Path]]:
    """Returns the files in their order, in groups of about `size` bytes."""
    parts: list[list[pathlib.Path]] = [[]]
    filled = 0
    for path in files:
        if filled >= size:
            parts.append([])
            filled = 0
        parts[-1].append(path)
        filled += path.stat().st_size
    return parts


def _check_libraries(config: CleaningConfig) -> None:
    """Raises ImportError or ValueError here rather than in another process."""
    clean_text("")
    if config.languages:
        LanguageFilter(config.languages, config.min_language_probability)
    if config.duplicates == "near":
        NearDuplicates(config.near_similarity, config.num_permutations)


def _teller(progress, parts) -> Callable[[int], None]:
    """Returns the function that tells that task i of two times all parts is done."""
    sizes = [sum(path.stat().st_size for path in part) for part in parts]
    done = list(itertools.accumulate(sizes + sizes))

    def tell(index: int) -> None:
        if progress is not None:
            progress(done[index], done[-1])

    return tell


@dataclasses.dataclass(frozen=True)
class _Clean:
    """Cleans one part's documents and hashes what is kept of them."""

    config: CleaningConfig
    text: TextConfig
    work: pathlib.Path

    def __call__(self, item: tuple[int, list[pathlib.Path]]) -> CleaningReport:
        index, files = item
        report, digests, signatures = CleaningReport(), [], []
        spoken = self._language_filter()
        near = self.config.duplicates == "near"
        with folders.replaced_file(self.work / f"{index}.jsonl") as path:
            with open(path, "w", encoding="utf-8") as file:
                for document in self._documents(files, report):
                    kept = self._judged(document, spoken, report)
                    if kept is None:
                        continue
                    file.write(_line(kept))
                    digests.append(digest(kept))
                    if near:
                        signatures.append(self._signature(kept))
        shape = (len(digests), self.config.num_permutations if near else 0)
        with folders.replaced_file(self.work / f"{index}.npz") as path:
            with open(path, "wb") as file:
                np.savez(
                    file,
                    digests=np.array(digests, "V16"),
                    signatures=np.array(signatures, "uint32").reshape(shape),
                )
        return report

    def _documents(
        self, files: list[pathlib.Path], report: CleaningReport
    ) -> Iterator[str]:
        read, size = ReadCounts(), 0
        parts: list[bytes] = []
        for piece in read_pieces(files, self.text, read):
            if piece.opens and parts:
                yield b"".join(parts).decode()
                parts, size = [], 0
            parts.append(piece.text)
            size += len(piece.text)
            if size > self.config.max_document_bytes:
                raise DataError(
                    "A document is cleaned in memory, as a whole. Received: one of "
                    f"more than {self.config.max_document_bytes:,} bytes in {files[0]}"
                    f"{' or a file after it' if len(files) > 1 else ''}. Give a "
                    "`document_separator`, or raise `max_document_bytes`."
                )
        if parts:
            yield b"".join(parts).decode()
        report.documents += read.documents
        report.empty_documents += read.empty_documents

    def _language_filter(self) -> Callable[[str], bool] | None:
        languages = self.config.languages
        least = self.config.min_language_probability
        return LanguageFilter(languages, least) if languages else None

    def _judged(self, document, spoken, report) -> str | None:
        """Returns the document as it is kept, or counts why it is not."""
        cleaned = clean_text(document)
        reason = fault(cleaned, self.config)
        if reason is None and spoken is not None and not spoken(cleaned):
            reason = "language"
        if reason is not None:
            report.leave_out(reason, cleaned)
            return None
        scrubbed, counts = scrub(cleaned, self.config.scrub)
        for kind, count in counts.items():
            report.scrubbed[kind] = report.scrubbed.get(kind, 0) + count
        return scrubbed

    def _signature(self, kept: str) -> np.ndarray:
        return signature(kept, self.config.shingle_words, self.config.num_permutations)


def _mark(
    num_parts: int, config: CleaningConfig, work: pathlib.Path, report: CleaningReport
) -> list[tuple[int, int]]:
    """Marks in every part which documents stay; returns (part, shard) of the rest."""
    seen: set[bytes] = set()
    near = None
    if config.duplicates == "near":
        near = NearDuplicates(config.near_similarity, config.num_permutations)
    shards: list[tuple[int, int]] = []
    for index in range(num_parts):
        marks = []
        with np.load(work / f"{index}.npz") as file:
            digests, signatures = file["digests"], file["signatures"]
        for row, key in enumerate(digests):
            key = key.tobytes()
            if config.duplicates != "keep" and key in seen:
                marks.append(_REASONS.index("exact duplicate"))
            elif near is not None and not near.is_new(signatures[row]):
                marks.append(_REASONS.index("near duplicate"))
            else:
                seen.add(key)
                marks.append(0)
        np.save(work / f"{index}.npy", np.array(marks, "uint8"))
        if 0 in marks:
            shards.append((index, len(shards)))
        else:
            report.add(_sort_out(work, index, keep=len))
    return shards


def _sort_out(
    work: pathlib.Path, index: int, keep: Callable[[str], Any]
) -> CleaningReport:
    """Keeps a part's unmarked documents, and returns what became of all of them."""
    report = CleaningReport()
    marks = np.load(work / f"{index}.npy")
    with open(work / f"{index}.jsonl", encoding="utf-8") as file:
        for mark, line in zip(marks, file, strict=True):
            text = json.loads(line)["text"]
            if mark:
                report.leave_out(_REASONS[mark], text)
                continue
            keep(line)
            report.kept += 1
            report.characters += len(text)
    return report


@dataclasses.dataclass(frozen=True)
class _Write:
    """Writes what stays of one part as a shard."""

    work: pathlib.Path
    folder: pathlib.Path

    def __call__(self, item: tuple[int, int]) -> CleaningReport:
        index, shard = item
        target = self.folder / f"text-{shard:05d}.jsonl.gz"
        with folders.replaced_file(target) as path, open(path, "wb") as raw:
            # Neither a name nor a time in the header: equal text, equal bytes.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                return _sort_out(
                    self.work, index, lambda line: file.write(line.encode())
                )


def _line(text: str) -> str:
    return json.dumps({"text": text}, ensure_ascii=False) + "\n"


def _nothing_kept(report: CleaningReport) -> str:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.left_out.items())
    return (
        "Nothing of the corpus would be kept. Received: "
        f"{report.documents:,} document(s): {reasons}. Loosen the rules: "
        "`min_characters`, `min_letters`, `max_repeated_lines`, `languages`."
    )
