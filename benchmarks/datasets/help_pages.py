"""English and French sentences of LibreOffice's help, as pairs to translate.

The Debian packages `libreoffice-help-en-us` and `libreoffice-help-fr` (MPL 2.0) hold
the same pages in both languages, and every heading and paragraph has an id. Pairs are
texts of one id; kept are those of 3 to 40 words on both sides that differ, each source
once. The target's hash says which split a pair falls into, so no source and no target
is in two; sentences made after one pattern are.

Needs `apt-get` and `dpkg-deb`. Example:
python benchmarks/datasets/help_pages.py --out=runs/data/help_pages
"""

import argparse
import html.parser
import pathlib
import subprocess
import tempfile

import held_back

_VERSION = "4:7.4.7-1+deb12u14"
_PACKAGES = {
    "en-us": "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    "fr": "c796530d3e95af1ea4d054076682efc8aad2b569ae9513f3d4a776b2df3fd206",
}
_FOLDERS = {"en-us": "en-US", "fr": "fr"}
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6")
_FEWEST, _MOST = 3, 40  # Words of either side.


class _Blocks(html.parser.HTMLParser):
    """Collects the text of every heading and paragraph that has an id.

    A switch holds one text for each system, all but the default one hidden by the
    page's style sheet; only the default one is read.
    """

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.texts = {}
        self._id, self._parts, self._hidden = None, [], 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in _BLOCKS:
            self._id, self._parts, self._hidden = attrs.get("id"), [], 0
        elif tag == "span" and (self._hidden or self._is_switched_off(attrs)):
            self._hidden += 1
        elif tag in ("br", "img"):
            self._parts.append(" ")

    def handle_endtag(self, tag):
        if tag in _BLOCKS and self._id:
            text = " ".join("".join(self._parts).split())
            self.texts.setdefault(self._id, text)
            self._id = None
        elif tag == "span" and self._hidden:
            self._hidden -= 1

    def handle_data(self, data):
        if not self._hidden:
            self._parts.append(data)

    @staticmethod
    def _is_switched_off(attrs):
        default = (attrs.get("id") or "").startswith("default")
        return "hidden" in attrs and not default


def fetch(language, folder, any_version):
    """Fetches and unpacks one package; returns its folder of pages."""
    name = f"libreoffice-help-{language}"
    wanted = name if any_version else f"{name}={_VERSION}"
    subprocess.run(["apt-get", "download", "-q", wanted], cwd=folder, check=True)
    (package,) = folder.glob(f"{name}_*.deb")
    if not any_version:
        held_back.check_sha256(package, _PACKAGES[language])
    subprocess.run(["dpkg-deb", "-x", package, folder / language], check=True)
    pages = "usr/share/libreoffice/help"
    return folder / language / pages / _FOLDERS[language] / "text"


def blocks(page):
    """Returns id to text of one page."""
    parser = _Blocks()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.texts


def pairs(sources, targets):
    """Yields (source, target) of every kept pair of blocks, each source once."""
    seen = set()
    for page in sorted(sources.rglob("*.html")):
        other = targets / page.relative_to(sources)
        if not other.exists():
            continue
        translated = blocks(other)
        for number, source in blocks(page).items():
            target = translated.get(number, "")
            sizes = (len(source.split()), len(target.split()))
            kept = min(sizes) >= _FEWEST and max(sizes) <= _MOST and source != target
            if kept and source not in seen:
                seen.add(source)
                yield source, target


def main():
    """Fetches both packages and writes the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--any_version", action="store_true", help="check no SHA-256")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pages = [fetch(each, folder, arguments.any_version) for each in _PACKAGES]
        found = pairs(*pages)
        held_back.write_splits(
            arguments.out,
            (
                (target, {"source": source, "target": target})
                for source, target in found
            ),
        )


if __name__ == "__main__":
    main()
