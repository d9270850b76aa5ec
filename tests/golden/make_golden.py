"""Writes the reference answers in `testdata/golden/`: Transformers on torch.

Small models with random weights; every size is odd or prime where it may be. Each
gets a folder `NAME/`, the checkpoint as Transformers writes it, and `NAME.npz`, what
the reference computes with it on a ragged, right-padded batch. The tests need
neither library.

Example: python tests/golden/make_golden.py   (torch 2.13, transformers 5.24)
"""

import copy
import pathlib
import shutil

import numpy as np
import safetensors.numpy
import torch
import transformers

OUT = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
VOCAB, SEPARATOR, NEW = 37, 0, 13
LENGTHS = (11, 4, 7)
SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES = {
    **SPECIAL,
    "vocab_size": VOCAB,
    "max_position_embeddings": 29,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "intermediate_size": 31,
    "rms_norm_eps": 1e-5,
}
BASE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 61,
}
NO_WINDOW = {"use_sliding_window": False, "max_window_layers": 3}
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}
GPT2 = {
    **SPECIAL,
    "vocab_size": VOCAB,
    "n_positions": 29,
    "n_embd": 20,
    "n_layer": 3,
    "n_head": 5,
    "n_inner": 31,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
CONFIGS = {
    "gpt2": transformers.GPT2Config(**GPT2),
    "llama": transformers.LlamaConfig(**SIZES, **BASE),
    "llama_tied": transformers.LlamaConfig(**SIZES, **BASE, tie_word_embeddings=True),
    "llama3": transformers.LlamaConfig(**SIZES, rope_parameters=SCALED),
    "mistral": transformers.MistralConfig(**SIZES, **BASE, sliding_window=5),
    "qwen2": transformers.Qwen2Config(**SIZES, **BASE, **WINDOW),
    "qwen3": transformers.Qwen3Config(
        **SIZES, **BASE, **NO_WINDOW, tie_word_embeddings=True
    ),
    "gemma": transformers.GemmaConfig(**SIZES, **BASE),
    "gemma2": transformers.Gemma2Config(
        **SIZES,
        **BASE,
        sliding_window=5,
        query_pre_attn_scalar=11,
        attn_logit_softcapping=2.5,
        final_logit_softcapping=3.5,
    ),
}
# Rounded to bfloat16 and cut into shards: the others are one file in float32.
IN_SHARDS = ("llama3",)


def build(name):
    """Returns a model with random weights."""
    model = transformers.AutoModelForCausalLM.from_config(
        CONFIGS[name], attn_implementation="eager"
    )
    randomise(model)
    if name in IN_SHARDS:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16().float())
    return model


def randomise(model):
    """Draws every parameter anew, large enough for attention to matter."""
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1.0)
    model.eval()


def answers(model):
    """Returns what the reference computes: logits, states, loss, gradient, text."""
    rng = np.random.default_rng(23)
    ids = rng.integers(1, VOCAB, (len(LENGTHS), max(LENGTHS)))
    real = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    inputs = torch.tensor(ids)
    output = model(
        inputs,
        attention_mask=torch.tensor(real.astype("int64")),
        labels=torch.where(torch.tensor(real), inputs, -100),
        output_hidden_states=True,
    )
    output.loss.backward()
    squares = sum((p.grad.double() ** 2).sum() for p in model.parameters())
    rows = [ids[i, :n].tolist() for i, n in enumerate(LENGTHS)]
    documents = [[SEPARATOR, *row] for row in rows]
    return {
        "token_ids": ids.astype("int32"),
        "lengths": np.array(LENGTHS, "int32"),
        "logits": np.where(real[:, :, None], output.logits.detach().numpy(), 0),
        # Of the embeddings and each block, of the last one behind the final norm.
        "hidden": real_states(output.hidden_states, real),
        "loss": output.loss.item(),
        "gradient_norm": squares.sqrt().item(),
        "greedy": np.array([greedy(model, row) for row in rows], "int32"),
        # Each document alone; the tests run them packed into one row.
        "packed_ids": np.array([sum(documents, [])], "int32"),
        "packed_logits": np.concatenate([alone(model, row) for row in documents]),
    }


def real_states(states, real):
    """Returns hidden states [layers + 1, B, T, D], zero at padding."""
    return np.where(real[None, :, :, None], torch.stack(states).detach().numpy(), 0)


@torch.no_grad()
def alone(model, row):
    """Returns the logits [T, V] of one row."""
    return model(torch.tensor([row])).logits[0].numpy()


def greedy(model, row):
    """Returns the NEW likeliest next tokens, each from a full forward pass."""
    row = list(row)
    for _ in range(NEW):
        row.append(int(alone(model, row)[-1].argmax()))
    return row[-NEW:]


def write(name, weights, result):
    """Writes one subject's weights and answers."""
    OUT.mkdir(parents=True, exist_ok=True)
    weights = {key: np.ascontiguousarray(value) for key, value in weights.items()}
    safetensors.numpy.save_file(weights, OUT / f"{name}.safetensors")
    np.savez_compressed(OUT / f"{name}.npz", **result)
    print(name, "loss", result["loss"], "gradient norm", result["gradient_norm"])


def main():
    """Writes every folder and file."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name in CONFIGS:
        model = build(name)
        shutil.rmtree(OUT / name, ignore_errors=True)
        if name in IN_SHARDS:
            # A copy: rounding the model would round its table of angles too.
            stored = copy.deepcopy(model).to(torch.bfloat16)
            stored.save_pretrained(OUT / name, max_shard_size="32KB")
        else:
            model.save_pretrained(OUT / name)
        (OUT / name / "generation_config.json").unlink()
        result = answers(model)
        np.savez_compressed(OUT / f"{name}.npz", **result)
        print(name, "loss", result["loss"], "gradient norm", result["gradient_norm"])


if __name__ == "__main__":
    main()
