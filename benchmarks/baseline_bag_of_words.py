"""A bag of words and a logistic regression, as a baseline for classifiers of texts.

It wants scikit-learn, in an environment of its own: pip install scikit-learn==1.9.0

Example: python benchmarks/baseline_bag_of_words.py --train=train.jsonl
    --valid=valid.jsonl --test=test.jsonl --grams=words
prints JSON: accuracy and macro F1 on the test examples. Grams are pairs and single ones
of words, or of characters. How many and how strongly they are held back is chosen by
the accuracy on the validation examples.
"""

import argparse
import json
import pathlib

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # The inverse of the penalty.


def read(path):
    """Returns the texts and labels of JSON lines."""
    examples = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [e["text"] for e in examples], [e["label"] for e in examples]


def main():
    """Fits, chooses and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--grams", choices=("words", "characters"), required=True)
    given = parser.parse_args()
    (texts, labels), valid, test = map(read, (given.train, given.valid, given.test))
    best = None
    for min_df in (1, 2):
        analyzer = {"words": "word", "characters": "char"}[given.grams]
        # One-letter words count too, as a tokenizer's do.
        grams = TfidfVectorizer(
            analyzer=analyzer,
            ngram_range=(1, 2),
            min_df=min_df,
            sublinear_tf=True,
            token_pattern=r"\w+" if given.grams == "words" else None,
        )
        x = grams.fit_transform(texts)
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=1_000).fit(x, labels)
            reached = model.score(grams.transform(valid[0]), valid[1])
            if best is None or reached > best[0]:
                best = reached, min_df, strength, grams, model
    reached, min_df, strength, grams, model = best
    predicted = model.predict(grams.transform(test[0]))
    figures = {
        "accuracy": accuracy_score(test[1], predicted),
        "macro_f1": f1_score(test[1], predicted, average="macro"),
        "valid_accuracy": reached,
        "min_df": min_df,
        "strength": strength,
        "num_features": len(grams.vocabulary_),
        "num_rows": len(predicted),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
