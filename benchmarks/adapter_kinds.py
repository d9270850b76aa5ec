"""Kinds of adapters side by side: what each learns of one book in as many steps.

Conversations are made of the book: the user's part is 40 words of it, the reply the 80
that follow. Each kind is learnt on the first nine tenths and judged on 32 passages of
the last; the base is judged as it is.

Example: python benchmarks/adapter_kinds.py --model=runs/smollm2
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from keras_llm import data, models, training

BOOK = pathlib.Path(__file__).parents[1] / "testdata" / "moby_dick.txt"
ASKED, REPLIED, JUDGED = 40, 80, 32
KINDS = {
    "prompt, 20 tokens": (models.PromptConfig(tokens=20), 0.03),
    "LoRA, rank 8": (models.AdapterConfig(rank=8), 1e-3),
    "rsLoRA, rank 8": (models.AdapterConfig(kind="rslora", rank=8), 1e-3),
    "DoRA, rank 8": (models.AdapterConfig(kind="dora", rank=8), 1e-3),
}


def write_passages(text: str, learnt: pathlib.Path, judged: pathlib.Path) -> None:
    """Writes a text as conversations: to learn from, and of its last tenth to judge."""
    words, size = text.split(), ASKED + REPLIED
    starts = range(0, len(words) - size + 1, size)
    lines = []
    for start in starts:
        asked = " ".join(words[start : start + ASKED])
        replied = " ".join(words[start + ASKED : start + size])
        messages = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": replied},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    border = len(lines) * 9 // 10
    learnt.write_text("".join(lines[:border]), encoding="utf-8")
    judged.write_text("".join(lines[border : border + JUDGED]), encoding="utf-8")


def learn(base: str, scratch: pathlib.Path, adapter, rate: float, steps: int) -> dict:
    """Returns the parameters and the perplexity of what an adapter has learnt."""
    config = models.load_config(base)
    experiment = training.Experiment(
        model=dataclasses.replace(config, vocab_size=0),
        task=training.Chat(),
        data=data.DataConfig(context=256, batch_size=4),
        train=training.TrainConfig(
            steps=steps,
            learning_rate=rate,
            warmup_steps=min(5, steps - 1),
            weight_decay=0.0,
            dtype="mixed_bfloat16",
            eval_every=0,
            save_every=0,
        ),
        adapter=adapter,
    )
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        texts = scratch / "learnt.jsonl", scratch / "judged.jsonl"
        run = pathlib.Path(folder) / "run"
        summary = training.train(experiment, *texts, run, init=base)
    return {
        "parameters": summary.parameters,
        "perplexity": math.exp(summary.validation.loss),
        "tokens/s": summary.tokens_per_second,
    }


def main() -> None:
    """Prints a row for the base and for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="A model folder with a chat.")
    parser.add_argument("--text", default=BOOK, help="The book.")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        text = pathlib.Path(given.text).read_text(encoding="utf-8")
        write_passages(text, scratch / "learnt.jsonl", scratch / "judged.jsonl")
        # Of a rate that rounds to nothing: the base, judged in the same way.
        base = learn(given.model, scratch, models.AdapterConfig(rank=1), 1e-12, 1)
        print(f"| the base | | | {base['perplexity']:.1f} | |", flush=True)
        for name, (adapter, rate) in KINDS.items():
            row = learn(given.model, scratch, adapter, rate, given.steps)
            print(
                f"| {name} | {row['parameters']:,} | {rate:g} | "
                f"{row['perplexity']:.1f} | {row['tokens/s']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
