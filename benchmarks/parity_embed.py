"""Compares an export's sentence vectors with Sentence-Transformers on the same files.

In two environments, since the project's holds no PyTorch. There
(sentence-transformers, torch), `peer` writes the vectors of 1,000 texts; here,
`compare` prints how far those of the SavedModel's `embed`, strings in, are from them.
The texts are stretches of Moby-Dick and of Tang poems out of testdata/, of up to 450
characters, and an empty one.

Example: python benchmarks/parity_embed.py peer --source=minilm/model --file=peer.npz
Then: python benchmarks/parity_embed.py compare --model=serving/minilm/1 --file=peer.npz
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.halves import run_half, stretches  # noqa: E402

BATCH = 50


def texts():
    """Returns 1,000 texts."""
    return [
        "",
        *stretches("moby_dick.txt", 799, 1, 450),
        *stretches("tang_poems.txt", 200, 1, 450),
    ]


def peer(given):
    """Writes the vectors of Sentence-Transformers."""
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(given.source, device="cpu")
    model.max_seq_length = 512
    vectors = model.encode(texts(), normalize_embeddings=True)
    np.savez(given.file, vectors=vectors)


def compare(given):
    """Prints how far the SavedModel's vectors are from them."""
    import tensorflow as tf

    embed = tf.saved_model.load(given.model).signatures["embed"]
    asked, known = texts(), np.load(given.file)["vectors"]
    vectors = np.concatenate(
        [
            embed(text=tf.constant(asked[at : at + BATCH]))["embedding"].numpy()
            for at in range(0, len(asked), BATCH)
        ]
    )
    cosine = (vectors.astype("float64") * known).sum(axis=1)
    between = np.abs(vectors @ vectors.T - known @ known.T).max()
    figures = {
        "texts": len(asked),
        "greatest_difference": float(np.abs(vectors - known).max()),
        "least_cosine": float(cosine.min()),
        "greatest_difference_of_cosines_between_texts": float(between),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    run_half(__doc__, peer, compare)
