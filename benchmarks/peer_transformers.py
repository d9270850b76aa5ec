"""Times Transformers on PyTorch at the shapes that are measured here, to set beside.

Needs an environment of its own, which is not the project's: torch 2.13 (the build for
CPUs, where one measures on a CPU) and transformers 5. Nothing is downloaded: weights
and tokens are random.

`decode` times the greedy `generate` of a GPT-2 small, prompt included; `train` its
forward pass, backward pass and AdamW, without clipping. `encode` times the hidden
states of a BERT base, 8 rows of 128; `train_t5` a step of a T5 v1.1 small, 8 sources of
128 and targets of 64. Figures are medians of tokens a second; a first call or two, or
the first three steps, are not counted. Flags change the GPT-2's sizes.

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


def encode(sizes):
    """Prints the rate of a BERT base's forward pass, in float32 and under autocast."""
    sizes_of_base = transformers.BertConfig()
    model = transformers.BertModel(sizes_of_base, add_pooling_layer=False).eval()
    ids = torch.randint(sizes_of_base.vocab_size, (8, 128))
    mask = torch.ones_like(ids)
    for bfloat16 in (False, True):

        def forward(bfloat16=bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                model(input_ids=ids, attention_mask=mask)

        with torch.inference_mode():
            rate = median_rate(forward, ids.numel(), 2 * sizes.repeats, uncounted=2)
        print(f"encode bfloat16={bfloat16}: {rate:.1f} tok/s", flush=True)


def train_t5(sizes):
    """Prints the rate of a T5's training steps, in float32 and under autocast."""
    small = transformers.T5Config(
        d_model=512,
        d_kv=64,
        d_ff=1_024,
        num_layers=8,
        num_heads=6,
        dropout_rate=sizes.dropout,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    source = torch.randint(small.vocab_size, (8, 128))
    target = torch.randint(small.vocab_size, (8, 64))
    for bfloat16 in (False, True):
        model = transformers.T5ForConditionalGeneration(small).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step(model=model, optimizer=optimizer, bfloat16=bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = model(input_ids=source, labels=target).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        tokens = source.numel() + target.numel()
        rate = median_rate(step, tokens, sizes.repeats, uncounted=3)
        print(f"train_t5 bfloat16={bfloat16}: {rate:.1f} tok/s", flush=True)


SUBJECTS = {"decode": decode, "encode": encode, "train": train, "train_t5": train_t5}


def main():
    """Reads the flags and times one subject."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("subject", choices=tuple(SUBJECTS))
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
    SUBJECTS[sizes.subject](sizes)


if __name__ == "__main__":
    main()
