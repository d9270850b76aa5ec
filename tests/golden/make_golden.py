"""Writes the reference answers in `testdata/golden/`: Transformers on torch.

Small models with random weights; every size is odd or prime where it may be. Each
architecture gets `NAME.safetensors`, the weights under this package's names, and
`NAME.npz`, what the reference computes with them on a ragged, right-padded batch.
The tests need neither library.

Example: python tests/golden/make_golden.py   (torch 2.13, transformers 5.23)
"""

import pathlib

import numpy as np
import safetensors.numpy
import torch
import transformers

OUT = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
VOCAB, SEPARATOR, NEW = 37, 0, 13
LENGTHS = (11, 4, 7)


def gpt2():
    """Returns a GPT-2 and its weights under this package's names."""
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCAB,
            n_positions=29,
            n_embd=20,
            n_layer=3,
            n_head=5,
            n_inner=31,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    randomise(model)
    names = {
        "transformer.wte.weight": "token_embedding/embeddings",
        "transformer.wpe.weight": "position_embedding/embeddings",
        "transformer.ln_f.weight": "final_norm/scale",
        "transformer.ln_f.bias": "final_norm/bias",
    }
    parts = {
        "ln_1.weight": "attention_norm/scale",
        "ln_1.bias": "attention_norm/bias",
        "attn.c_attn.weight": "attention/query_key_value/kernel",
        "attn.c_attn.bias": "attention/query_key_value/bias",
        "attn.c_proj.weight": "attention/output/kernel",
        "attn.c_proj.bias": "attention/output/bias",
        "ln_2.weight": "feed_forward_norm/scale",
        "ln_2.bias": "feed_forward_norm/bias",
        "mlp.c_fc.weight": "feed_forward/inner/kernel",
        "mlp.c_fc.bias": "feed_forward/inner/bias",
        "mlp.c_proj.weight": "feed_forward/output/kernel",
        "mlp.c_proj.bias": "feed_forward/output/bias",
    }
    for i in range(3):
        for theirs, ours in parts.items():
            names[f"transformer.h.{i}.{theirs}"] = f"block_{i}/{ours}"
    state = model.state_dict()
    return model, {ours: state[theirs].numpy() for theirs, ours in names.items()}


def llama(tied=False, window=None):
    """Returns a Llama, or a Mistral with `window`, and its weights renamed."""
    sizes = {
        "vocab_size": VOCAB,
        "max_position_embeddings": 29,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 14,
        "intermediate_size": 31,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "rope_theta": 500.0,
        "pad_token_id": None,
    }
    if window is None:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    else:
        sizes["sliding_window"] = window
        model = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes))
    model.set_attn_implementation("eager")
    randomise(model)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    weights = {
        "token_embedding/embeddings": state["model.embed_tokens.weight"],
        "final_norm/scale": state["model.norm.weight"],
    }
    if not tied:
        weights["head/kernel"] = state["lm_head.weight"].T
    for i in range(3):
        theirs, ours = f"model.layers.{i}", f"block_{i}"

        def side_by_side(*parts, prefix=theirs):
            kernels = [state[f"{prefix}.{part}_proj.weight"].T for part in parts]
            return np.concatenate(kernels, axis=1)

        weights |= {
            f"{ours}/attention_norm/scale": state[f"{theirs}.input_layernorm.weight"],
            f"{ours}/attention/query_key_value/kernel": side_by_side(
                "self_attn.q", "self_attn.k", "self_attn.v"
            ),
            f"{ours}/attention/output/kernel": side_by_side("self_attn.o"),
            f"{ours}/feed_forward_norm/scale": state[
                f"{theirs}.post_attention_layernorm.weight"
            ],
            f"{ours}/feed_forward/inner/kernel": side_by_side("mlp.gate", "mlp.up"),
            f"{ours}/feed_forward/output/kernel": side_by_side("mlp.down"),
        }
    return model, weights


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
    """Returns what the reference computes: logits, loss, gradient norm, text."""
    rng = np.random.default_rng(23)
    ids = rng.integers(1, VOCAB, (len(LENGTHS), max(LENGTHS)))
    real = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    inputs = torch.tensor(ids)
    output = model(
        inputs,
        attention_mask=torch.tensor(real.astype("int64")),
        labels=torch.where(torch.tensor(real), inputs, -100),
    )
    output.loss.backward()
    squares = sum((p.grad.double() ** 2).sum() for p in model.parameters())
    rows = [ids[i, :n].tolist() for i, n in enumerate(LENGTHS)]
    documents = [[SEPARATOR, *row] for row in rows]
    return {
        "token_ids": ids.astype("int32"),
        "lengths": np.array(LENGTHS, "int32"),
        "logits": np.where(real[:, :, None], output.logits.detach().numpy(), 0),
        "loss": output.loss.item(),
        "gradient_norm": squares.sqrt().item(),
        "greedy": np.array([greedy(model, row) for row in rows], "int32"),
        # Each document alone; the tests run them packed into one row.
        "packed_ids": np.array([sum(documents, [])], "int32"),
        "packed_logits": np.concatenate([alone(model, row) for row in documents]),
    }


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
    """Writes every file."""
    subjects = {
        "gpt2": gpt2(),
        "llama": llama(),
        "llama_tied": llama(tied=True),
        "mistral": llama(window=5),
    }
    for name, (model, weights) in subjects.items():
        write(name, weights, answers(model))


if __name__ == "__main__":
    main()
