"""Searches a text by meaning: vectors from an export's `embed`, an index from FAISS.

`index` cuts files into paragraphs, has the SavedModel embed them, strings in and
vectors out, and writes an index beside the paragraphs. It tells how many of the ten
nearest paragraphs the fast index finds of those that an exact search finds. `ask`
prints the paragraphs nearest to a question.

Needs `pip install '.[search]'`; see docs/semantic_search.md.

Example: python docs/examples/semantic_search.py index --export=serving/minilm/1 \
    --text=moby_dick.txt --out=whale_index
Then: python docs/examples/semantic_search.py ask --export=serving/minilm/1 \
    --index=whale_index 'Who made the harpoon?'
"""

import argparse
import json
import pathlib
import time

import faiss
import numpy as np
import tensorflow as tf

BATCH = 32
WORDS = 120
NEAREST = 10
NEIGHBOURS = 32  # Of each vector in the graph that is walked while searching.
LOOKED_AT = (200, 128)  # Vectors a walk keeps in sight, to build and to search.
_INDEX, _TEXTS = "index.faiss", "paragraphs.json"


def paragraphs(paths):
    """Returns the paragraphs of files that have at least 40 characters, in order.

    Longer ones than 120 words are cut, since a model reads so many tokens and no more.
    """
    found = []
    for path in paths:
        text = pathlib.Path(path).read_text("utf-8").replace("\r\n", "\n")
        for paragraph in text.split("\n\n"):
            words = paragraph.split()
            cut = (words[at : at + WORDS] for at in range(0, len(words), WORDS))
            found += [part for part in map(" ".join, cut) if len(part) >= 40]
    if not found:
        raise SystemExit(
            f"No paragraph of 40 characters in {', '.join(map(str, paths))}: "
            "paragraphs are parted by empty lines."
        )
    return found


def embed(export, texts):
    """Returns the unit vectors float32 [N, D] that an export's `embed` gives.

    Texts of one length lie in one batch, so that little is padded.
    """
    signature = tf.saved_model.load(str(export)).signatures["embed"]
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = [
        signature(text=tf.constant([texts[i] for i in order[at : at + BATCH]]))
        for at in range(0, len(texts), BATCH)
    ]
    ordered = np.concatenate([part["embedding"].numpy() for part in parts])
    vectors = np.empty_like(ordered)
    vectors[order] = ordered
    return vectors


def build(vectors):
    """Returns a graph index (HNSW) that compares by inner product."""
    index = faiss.IndexHNSWFlat(
        vectors.shape[1], NEIGHBOURS, faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efConstruction, index.hnsw.efSearch = LOOKED_AT
    index.add(vectors)
    return index


def recall(index, vectors, queries, nearest=NEAREST):
    """Returns the share of the exactly nearest that the index finds."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    wanted = exact.search(queries, nearest)[1]
    found = index.search(queries, nearest)[1]
    shares = [np.isin(*pair).mean() for pair in zip(wanted, found, strict=True)]
    return float(np.mean(shares))


def make_index(given):
    """Embeds, writes the index and prints its figures as JSON."""
    texts = paragraphs(given.text)
    out = pathlib.Path(given.out)
    out.mkdir(parents=True)  # An index that is there is not overwritten.
    start = time.perf_counter()
    vectors = embed(given.export, texts)
    seconds = time.perf_counter() - start
    index = build(vectors)
    # Questions that no paragraph answers word by word: the first eight words of each
    # twentieth paragraph.
    heads = [" ".join(text.split()[:8]) for text in texts[::20]]
    queries = embed(given.export, heads)
    figures = {
        "paragraphs": len(texts),
        "paragraphs_per_second": round(len(texts) / seconds, 1),
        "queries": len(queries),
        "recall_at_10": recall(index, vectors, queries, min(NEAREST, len(texts))),
    }
    faiss.write_index(index, str(out / _INDEX))
    (out / _TEXTS).write_text(json.dumps(texts, ensure_ascii=False), "utf-8")
    print(json.dumps(figures))


def ask(given):
    """Prints the paragraphs nearest to a question, the nearest first."""
    folder = pathlib.Path(given.index)
    index = faiss.read_index(str(folder / _INDEX))
    texts = json.loads((folder / _TEXTS).read_text("utf-8"))
    scores, places = index.search(embed(given.export, [given.question]), given.show)
    for score, place in zip(scores[0], places[0], strict=True):
        if place >= 0:  # Fewer are there than asked for.
            print(f"{score:.3f}  {texts[place]}\n")


def main():
    """Reads the flags and does one of the two."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = flags.add_subparsers(required=True)
    one = parts.add_parser("index")
    one.add_argument("--text", action="append", required=True, help="File, repeatable.")
    one.add_argument("--out", required=True, help="New folder.")
    one.set_defaults(run=make_index)
    other = parts.add_parser("ask")
    other.add_argument("--index", required=True, help="Folder that `index` wrote.")
    other.add_argument("--show", type=int, default=3)
    other.add_argument("question")
    other.set_defaults(run=ask)
    for part in (one, other):
        part.add_argument("--export", required=True, help="Version folder.")
    given = flags.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
