"""Times LoRA steps of `peft` on PyTorch at the shape that is measured here.

In an environment of its own: torch 2.13, transformers 5, peft. Nothing is downloaded:
a Llama of SmolLM2-135M's shape with random weights, LoRA of rank 8 on every projection
of its blocks, forward pass, backward pass and AdamW on random tokens.

Figures are medians of five steps after three: float32; float32 weights under autocast;
and a base kept in bfloat16, its adapter in float32, under autocast.

Example: python benchmarks/peer_peft.py
"""

import argparse
import pathlib
import re
import statistics
import time

import peft
import torch
import transformers

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
WAYS = (
    ("float32", torch.float32, False),
    ("autocast", torch.float32, True),
    ("bfloat16 base, autocast", torch.bfloat16, True),
)


def build(dtype):
    """Returns the model with its adapter, of which the adapter alone learns."""
    sizes = transformers.LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    base = transformers.LlamaForCausalLM(sizes).to(dtype)
    adapter = peft.LoraConfig(
        r=8, lora_alpha=16, target_modules=[f"{name}_proj" for name in PROJECTIONS]
    )
    return peft.get_peft_model(base, adapter).train()


def main():
    """Prints one line for each way."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("--rows", type=int, default=4)
    flags.add_argument("--context", type=int, default=256)
    flags.add_argument("--repeats", type=int, default=5)
    given = flags.parse_args()
    ids = torch.randint(49_152, (given.rows, given.context))
    for name, dtype, autocast in WAYS:
        model = build(dtype)
        learnt = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=1e-4)
        seconds = []
        for _ in range(3 + given.repeats):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
        rate = ids.numel() / statistics.median(seconds[3:])
        status = pathlib.Path("/proc/self/status").read_text()
        held = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024
        print(f"{name}: {rate:.1f} tok/s, peak so far {held} MiB", flush=True)


if __name__ == "__main__":
    main()
