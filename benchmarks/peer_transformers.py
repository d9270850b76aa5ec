"""Times Transformers on PyTorch at the shape of GPT-2 small, to measure beside.

Needs an environment of its own, which is not the project's: torch 2.13 (the build for
CPUs, where one measures on a CPU) and transformers 5. Nothing is downloaded: weights
and tokens are random.

`decode` times the greedy `generate`, prompt included; `train` a forward pass, a
backward pass and AdamW, without clipping. Figures are medians of tokens a second; a
first call, or the first three steps, are not counted. Flags change the sizes.

Example: python benchmarks/peer_transformers.py decode
"""

import argparse
import statistics
import time

import torch
import transformers


def build(sizes):
    """Returns a GPT-2 with random weights."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=sizes.vocabulary,
            n_positions=sizes.positions,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            resid_pdrop=sizes.dropout,
            embd_pdrop=sizes.dropout,
            attn_pdrop=sizes.dropout,
        )
    )


def median_rate(call, tokens, repeats, uncounted):
    """Returns the median of tokens a second over calls after the first few."""
    seconds = []
    for _ in range(uncounted + repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return tokens / statistics.median(seconds[uncounted:])


def decode(sizes):
    """Prints the rate of greedy decoding by arithmetic and batch."""
    for dtype in (torch.float32, torch.bfloat16):
        model = build(sizes).to(dtype).eval()
        for batch in (1, 8):
            prompt = torch.randint(sizes.vocabulary, (batch, sizes.prompt_tokens))

            def generate(model=model, prompt=prompt):
                model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=False,
                    min_new_tokens=sizes.new_tokens,
                    max_new_tokens=sizes.new_tokens,
                    pad_token_id=0,
                )

            tokens = batch * sizes.new_tokens
            with torch.inference_mode():
                rate = median_rate(generate, tokens, sizes.repeats, uncounted=1)
            print(f"decode {dtype} batch={batch}: {rate:.1f} tok/s", flush=True)


def train(sizes):
    """Prints the rate of training steps, in float32 and under autocast."""
    ids = torch.randint(sizes.vocabulary, (sizes.rows, sizes.context))
    for bfloat16 in (False, True):
        model = build(sizes).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step(model=model, optimizer=optimizer, bfloat16=bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        rate = median_rate(step, ids.numel(), sizes.repeats, uncounted=3)
        print(f"train bfloat16={bfloat16}: {rate:.1f} tok/s", flush=True)


def main():
    """Reads the flags and times one subject."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("subject", choices=("decode", "train"))
    flags.add_argument("--vocabulary", type=int, default=50_257)
    flags.add_argument("--positions", type=int, default=1_024)
    flags.add_argument("--width", type=int, default=768)
    flags.add_argument("--layers", type=int, default=12)
    flags.add_argument("--heads", type=int, default=12)
    flags.add_argument("--dropout", type=float, default=0.0)
    flags.add_argument("--prompt_tokens", type=int, default=32)
    flags.add_argument("--new_tokens", type=int, default=64)
    flags.add_argument("--rows", type=int, default=4)
    flags.add_argument("--context", type=int, default=256)
    flags.add_argument("--repeats", type=int, default=5)
    sizes = flags.parse_args()
    {"decode": decode, "train": train}[sizes.subject](sizes)


if __name__ == "__main__":
    main()
