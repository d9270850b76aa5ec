"""Compares a language model from a GGUF file with Transformers reading the same file.

In two environments, since the project's holds no PyTorch. There (torch, transformers 5,
gguf), `peer` writes token ids, the logits after 200 prompts and 50 greedy
continuations of 40 tokens; here, `compare` prints how far this package's differ. The
prompts are stretches of Moby-Dick and of Tang poems out of testdata/. A continuation
that parts is shown with the gap between the peer's two likeliest tokens there.

Example: python benchmarks/parity_gguf.py peer --source=SmolLM2.gguf --file=peer.npz
Then: python benchmarks/parity_gguf.py compare --model=models/smol --file=peer.npz
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.halves import run_half, stretches  # noqa: E402

CONTINUED, NEW_TOKENS = 50, 40
CAPACITY = 1_280


def prompts():
    """Returns 200 stretches of 10 to 600 characters."""
    return [
        *stretches("moby_dick.txt", 170, 10, 590),
        *stretches("tang_poems.txt", 30, 10, 590),
    ]


def peer(given):
    """Writes what Transformers makes of the prompts."""
    import torch
    import transformers

    source = pathlib.Path(given.source)
    options = {"gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.float32, **options
    ).eval()
    model.generation_config.eos_token_id = None  # It goes on after an end.
    rows, logits, written, gaps = [], [], [], []
    with torch.inference_mode():
        for i, prompt in enumerate(prompts()):
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            rows.append(ids[0].numpy())
            logits.append(model(ids).logits[0, -1].numpy())
            if i % (200 // CONTINUED):
                continue
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                output_logits=True,
                return_dict_in_generate=True,
            )
            written.append(out.sequences[0, ids.shape[1] :].numpy())
            best = [step[0].topk(2).values for step in out.logits]
            gaps.append([float(two[0] - two[1]) for two in best])
    lengths = [len(row) for row in rows]
    np.savez(
        given.file,
        ids=np.concatenate(rows),
        lengths=lengths,
        logits=np.array(logits),
        written=np.array(written),
        gaps=np.array(gaps),
    )


def compare(given):
    """Prints the differences from what `peer` wrote."""
    from keras_llm import models

    known = np.load(given.file)
    rows = np.split(known["ids"], np.cumsum(known["lengths"])[:-1])
    runner = Runner(models.load(given.model, dtype="float32"))
    tokenizer = models.load_tokenizer(given.model)
    same_ids = [
        np.array_equal(tokenizer.encode([text])[0].numpy(), row)
        for text, row in zip(prompts(), rows, strict=True)
    ]
    logits = np.array([runner.prefill(row)[0].numpy()[0] for row in rows])
    away = np.abs(logits - known["logits"]).max(axis=1)
    parted = []
    every = len(rows) // CONTINUED
    for i, expected in enumerate(known["written"]):
        ids = runner.greedy(rows[i * every])
        if not np.array_equal(ids, expected):
            step = int(np.argmax(ids != expected))
            gap = float(known["gaps"][i, step])
            parted.append({"prompt": i * every, "step": step, "gap": gap})
    figures = {
        "prompts": len(rows),
        "same_token_ids": sum(same_ids),
        "largest_logit": float(np.abs(known["logits"]).max()),
        "largest_difference": float(away.max()),
        "median_difference": float(np.median(away)),
        "same_likeliest": int(sum(logits.argmax(1) == known["logits"].argmax(1))),
        "continuations": len(known["written"]),
        "parted": parted,
    }
    print(json.dumps(figures, indent=2))


class Runner:
    """Runs a model's prefill and step, traced for few lengths."""

    def __init__(self, model):
        import tensorflow as tf

        from keras_llm import models

        decoder = models.decoder(model)
        # Traced once for each multiple of 128 tokens.
        self._prefill = tf.function(
            lambda ids, lengths: decoder.prefill(ids, lengths, CAPACITY)
        )
        self._step = tf.function(decoder.step)

    def prefill(self, row):
        """Returns the logits [1, V] after a row of ids, and the state."""
        padded = np.zeros((1, -(-len(row) // 128) * 128), "int32")
        padded[0, : len(row)] = row
        return self._prefill(padded, np.array([len(row)], "int32"))

    def greedy(self, row):
        """Returns the ids after a row, the likeliest each time, ends among them."""
        logits, state = self.prefill(row)
        ids = []
        for _ in range(NEW_TOKENS):
            ids.append(int(np.argmax(logits.numpy()[0])))
            logits, state = self._step(np.array([ids[-1]], "int32"), state)
        return np.array(ids)


if __name__ == "__main__":
    run_half(__doc__, peer, compare)
