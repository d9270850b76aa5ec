"""Trains nanoGPT's tinyshakespeare CPU setting in plain PyTorch, to measure beside.

The setting, not the code: 4 pre-norm layers of width 128 with 4 heads and no biases,
context 64, batch 12, 2,000 steps of AdamW (0.9, 0.99; decay 0.1 on matrices; clipping
at 1.0), 100 steps of warm-up to 1e-3, cosine to 1e-4, no dropout; every 250 steps a
loss estimate over 20 batches of each split; at the end the loss over all of the
validation text. Needs PyTorch alone.

Example: time python benchmarks/peer_nanogpt_setting.py tinyshakespeare.txt
"""

import math
import sys
import time

START = time.perf_counter()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

WIDTH, HEADS, LAYERS, CONTEXT, ROWS, STEPS = 128, 4, 4, 64, 12, 2_000


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and added to its input."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.merge = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        """Returns [B, T, D]."""
        rows, length, _ = x.shape
        heads = (rows, length, HEADS, WIDTH // HEADS)
        q, k, v = (
            part.view(heads).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).split(WIDTH, dim=2)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.merge(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Model(nn.Module):
    """A GPT-2 whose output is tied to its embedding."""

    def __init__(self, vocab_size):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                into_stream = name.endswith(("merge.weight", "down.weight"))
                depth = 2 * LAYERS if into_stream else 1
                nn.init.normal_(weight, std=0.02 / math.sqrt(depth))

    def forward(self, ids, targets):
        """Returns the mean loss."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def batch(ids):
    """Returns random windows and the tokens that follow."""
    starts = torch.randint(len(ids) - CONTEXT, (ROWS,))
    rows = torch.stack([ids[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def estimate(model, ids, batches=20):
    """Returns the mean loss over some batches."""
    return sum(model(*batch(ids)).item() for _ in range(batches)) / batches


@torch.no_grad()
def whole_loss(model, ids, rows=64):
    """Returns the mean loss over consecutive windows of all of the text."""
    count = len(ids) - 1
    full = count // CONTEXT * CONTEXT
    inputs, targets = ids[:full].view(-1, CONTEXT), ids[1 : full + 1].view(-1, CONTEXT)
    batches = list(zip(inputs.split(rows), targets.split(rows), strict=True))
    if full < count:  # The last window is shorter.
        batches.append((ids[None, full:-1], ids[None, full + 1 :]))
    return sum(model(x, y).item() * y.numel() for x, y in batches) / count


def rate(step):
    """Returns the learning rate."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    done = (step - 100) / (STEPS - 100)
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * done)) * (1e-3 - 1e-4)


def main(path):
    """Trains and prints losses and times."""
    text = open(path, encoding="utf-8").read()
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([numbers[character] for character in text])
    cut = int(0.9 * len(ids))
    train, valid = ids[:cut], ids[cut:]
    torch.manual_seed(1337)
    model = Model(len(numbers))
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2]},
        {
            "params": [p for p in model.parameters() if p.dim() < 2],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.1)
    for step in range(STEPS):
        if step % 250 == 0:
            print(step, estimate(model, train), estimate(model, valid), flush=True)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = model(*batch(train))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    print(STEPS, estimate(model, train), estimate(model, valid))
    print(f"trained after {time.perf_counter() - START:.1f} s")
    print(f"whole validation text: {whole_loss(model, valid):.4f} nats per character")
    print(f"all after {time.perf_counter() - START:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
