"""Descriptions of Debian's packages, as pairs of a long and a short text.

Every package has a synopsis, "Open Free Fiasco Firmware Flasher", and a description
of some paragraphs, of which the synopsis is the shortest summary. Descriptions of less
than 20 words are left out, each text is kept once, and a "(documentation)" or the like
at a synopsis' end is left away. The packages of one program often begin alike: the hash
of the description's first paragraph says which split a pair falls into.

Needs `apt-get` and `lz4`; the lists are Debian's own (`main`, of the release that apt's
sources name), fetched into a folder of their own. Example:
python benchmarks/datasets/descriptions.py --out=runs/data/descriptions
"""

import argparse
import pathlib
import re
import subprocess
import tempfile

import held_back

# bookworm main, 12.11 and later: a point release changes a handful of descriptions.
_SHA256 = "62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f"
_LIST = "*_dists_bookworm_main_i18n_Translation-en.lz4"
_FEWEST = 20  # Words of a description.


def fetch(folder, any_version):
    """Fetches the list of descriptions; returns its text."""
    (folder / "partial").mkdir()
    subprocess.run(
        [
            *("apt-get", "update", "-q"),
            *("-o", f"Dir::State::lists={folder}", "-o", "Acquire::Languages=en"),
            *("-o", "APT::Sandbox::User=root"),
        ],
        check=True,
    )
    (packed,) = folder.glob(_LIST)
    plain = folder / "Translation-en"
    subprocess.run(["lz4", "-dq", packed, plain], check=True)
    if not any_version:
        held_back.check_sha256(plain, _SHA256)
    return plain.read_text(encoding="utf-8")


def records(text):
    """Yields (synopsis, paragraphs) of every package."""
    for record in text.split("\n\n"):
        _, found, description = record.partition("Description-en: ")
        if found:
            synopsis, _, rest = description.partition("\n")
            yield synopsis.strip(), paragraphs(rest.splitlines())


def paragraphs(lines):
    """Returns the paragraphs of a description, each as one line."""
    whole = "\n".join(line[1:] for line in lines)
    parts = re.split(r"\n\.\n", whole)
    return [joined for joined in (" ".join(part.split()) for part in parts) if joined]


def pairs(text):
    """Yields (first paragraph, source, target) of every kept description."""
    seen = set()
    for synopsis, parts in records(text):
        source = "\n".join(parts)
        target = re.sub(r"\s*[(\[][^()\[\]]*[)\]]$", "", synopsis)
        fits = len(source.split()) >= _FEWEST and len(target.split()) >= 2
        if fits and source not in seen:
            seen.add(source)
            yield parts[0], source, target


def main():
    """Fetches the list and writes the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--search",
        action="store_true",
        help="members text, the synopsis, and text_pair, the description, in place of "
        "source and target, the other way round",
    )
    parser.add_argument("--any_version", action="store_true", help="check no SHA-256")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        text = fetch(pathlib.Path(name), arguments.any_version)
        held_back.write_splits(
            arguments.out,
            (
                (
                    first,
                    {"text": target, "text_pair": source}
                    if arguments.search
                    else {"source": source, "target": target},
                )
                for first, source, target in pairs(text)
            ),
        )


if __name__ == "__main__":
    main()
