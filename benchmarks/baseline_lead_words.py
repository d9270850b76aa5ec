"""Scores the first words of the sources as if they were summaries.

The baseline that a summary must beat: n words of each source, with n the mean length of
the references, rounded. ROUGE, BLEU and chrF as `scripts/evaluate.py` gives them.

Example: python benchmarks/baseline_lead_words.py --examples=runs/data/test.jsonl
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm import data, evaluation


def main():
    """Prints the scores as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", required=True, help="JSON lines of pairs")
    given = parser.parse_args()
    members = {"source": str, "target": str}
    pairs = list(data.read_examples(given.examples, members))
    references = [pair["target"] for pair in pairs]
    count = round(sum(len(text.split()) for text in references) / len(references))
    texts = [" ".join(pair["source"].split()[:count]) for pair in pairs]
    scores = {
        "words": count,
        "bleu": evaluation.bleu(texts, references).value,
        "chrf": evaluation.chrf(texts, references).value,
        **evaluation.rouge(texts, references),
    }
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
