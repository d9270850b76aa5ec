"""GGUF files against arithmetic of our own, a Transformers folder, and damage."""

import pathlib

import gguf
import numpy as np
import pytest
import safetensors.numpy

from keras_llm import convert, models
from keras_llm.core import CorruptFolderError
from keras_llm.tokenizers import gpt2_files

HEADS, SHARED, SIZE, INNER, LAYERS = 4, 2, 16, 96, 2
WIDTH = 64
TOKENS = [bytes([b]) for b in range(256) if b != 4] + [b"th", b"the"]
MERGES = ["t h", "th e"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
V = len(TOKENS) + len(SPECIAL)
FUZZED = 300


def weights(rng):
    """Returns name to values, as Transformers has them."""

    def drawn(*shape):
        return rng.normal(0, 0.2, shape).astype("float32")

    found = {"model.embed_tokens.weight": drawn(V, WIDTH)}
    found["model.norm.weight"] = 1 + drawn(WIDTH)
    for i in range(LAYERS):
        block = f"model.layers.{i}"
        found |= {
            f"{block}.input_layernorm.weight": 1 + drawn(WIDTH),
            f"{block}.post_attention_layernorm.weight": 1 + drawn(WIDTH),
            f"{block}.self_attn.q_proj.weight": drawn(HEADS * SIZE, WIDTH),
            f"{block}.self_attn.k_proj.weight": drawn(SHARED * SIZE, WIDTH),
            f"{block}.self_attn.v_proj.weight": drawn(SHARED * SIZE, WIDTH),
            f"{block}.self_attn.o_proj.weight": drawn(WIDTH, HEADS * SIZE),
            f"{block}.mlp.gate_proj.weight": drawn(INNER, WIDTH),
            f"{block}.mlp.up_proj.weight": drawn(INNER, WIDTH),
            f"{block}.mlp.down_proj.weight": drawn(WIDTH, INNER),
        }
    return found


NAMES = {
    "embed_tokens": "token_embd",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def their_name(name):
    name = name.replace("model.norm", "output_norm").removeprefix("model.")
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name.replace("layers.", "blk.")


def interleaved(values, heads):
    """Row 2 i of a head from its row i, row 2 i + 1 from row i + H / 2: one by one."""
    size = len(values) // heads
    order = [
        head * size + half * size // 2 + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return values[order]


def write(path, tensors, kind="F32", drop=(), **settings):
    """Writes a GGUF file; matrices in blocks of `kind`."""
    writer = gguf.GGUFWriter(path, settings.pop("architecture", "llama"))
    writer.add_block_count(LAYERS)
    writer.add_context_length(48)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500.0)
    writer.add_rope_dimension_count(SIZE)
    for name, value in settings.items():
        writer.add_float32(f"llama.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*map(gpt2_files.to_text, TOKENS), *SPECIAL])
    writer.add_token_types([1] * len(TOKENS) + [3] * len(SPECIAL))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(V - 1)
    writer.add_bos_token_id(V - 2)
    for name, values in tensors.items():
        if name in drop:
            continue
        if "q_proj" in name or "k_proj" in name:
            values = interleaved(values, HEADS if "q_proj" in name else SHARED)
        quantised = None
        if values.ndim == 2 and kind != "F32":
            quantised = gguf.GGMLQuantizationType[kind]
            values = gguf.quants.quantize(values, quantised)
        writer.add_tensor(their_name(name), values, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tensors():
    return weights(np.random.default_rng(11))


@pytest.fixture(scope="module")
def plain(tensors, tmp_path_factory):
    """Returns a file in float32."""
    path = tmp_path_factory.mktemp("gguf") / "plain.gguf"
    write(path, tensors)
    return path


def folder_of(tensors, path):
    """Writes the Transformers folder of the same model."""
    import json

    path.mkdir()
    config = {
        "model_type": "llama",
        "vocab_size": V,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED,
        "max_position_embeddings": 48,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500.0,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    (path / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


def read(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_is_the_folder_of_the_same_model(tensors, tmp_path, tied):
    if not tied:
        head = np.random.default_rng(2).normal(0, 0.2, (V, WIDTH)).astype("float32")
        tensors = tensors | {"lm_head.weight": head}
    convert.import_folder(folder_of(tensors, tmp_path / "theirs"), tmp_path / "a")
    path = tmp_path / "model.gguf"
    write(path, tensors_renamed(tensors))
    convert.import_gguf(path, tmp_path / "b")
    assert models.load_config(tmp_path / "b") == models.load_config(tmp_path / "a")
    expected, found = read(tmp_path / "a"), read(tmp_path / "b")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def tensors_renamed(tensors):
    return {name.replace("lm_head", "output"): v for name, v in tensors.items()}


def q8_0(values):
    """Blocks of 32: the largest of them is 127 steps of a float16."""
    blocks = values.reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    whole = np.divide(blocks, step, where=step > 0, out=np.zeros_like(blocks))
    # Halves go away from zero there, to the even number here: none is a half.
    return (np.round(whole) * step.astype("float16").astype("float32")).reshape(
        values.shape
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("F16", lambda values: values.astype("float16").astype("float32")),
        ("Q8_0", q8_0),
    ],
)
def test_quantised_weights_are_what_they_stand_for(tensors, tmp_path, kind, expected):
    path = tmp_path / "model.gguf"
    write(path, tensors, kind)
    convert.import_gguf(path, tmp_path / "out")
    found = read(tmp_path / "out")
    table = tensors["model.embed_tokens.weight"]
    np.testing.assert_allclose(
        found["token_embedding/embeddings"], expected(table), rtol=0, atol=1e-7
    )
    query = expected(tensors["model.layers.1.self_attn.q_proj.weight"])
    kernel = found["block_1/attention/query_key_value/kernel"]
    np.testing.assert_allclose(kernel[:, : len(query)].T, query, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_coarser_kinds_are_near(tensors, tmp_path, kind):
    path = tmp_path / "model.gguf"
    write(path, tensors, kind)
    convert.import_gguf(path, tmp_path / "out", with_tokenizer=False)
    table = tensors["model.embed_tokens.weight"]
    found = read(tmp_path / "out")["token_embedding/embeddings"]
    error = np.abs(found - table).max(axis=1)
    assert 0 < error.max() and (error <= np.abs(table).max(axis=1) / 7).all()


def test_the_tokenizer_has_roles_and_takes_digits_one_by_one(plain, tmp_path):
    convert.import_gguf(plain, tmp_path / "out")
    tokenizer = models.load_tokenizer(tmp_path / "out")
    assert tokenizer.split == "smollm"
    roles = tokenizer.special_ids
    assert (roles["end"], roles["bos"], roles["endoftext"]) == (V - 1, V - 2, V - 3)
    the, th = TOKENS.index(b"the"), TOKENS.index(b"th")
    ids = tokenizer.encode("thethe th\x04e<|im_end|>").numpy().tolist()
    spelt = [TOKENS.index(bytes([b])) for b in b"<|im_end|>"]
    # A byte without a token is left out, and what it parted stays two words.
    parted = [th, TOKENS.index(b"e")]
    assert ids == [*merged(b"thethe"), TOKENS.index(b" "), *parted, *spelt]
    assert the in ids


def merged(text):
    return [TOKENS.index(b"the")] * (len(text) // 3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "mamba"}, "Received: 'mamba'"),
        ({"rope.dimension_sections": 2.0}, "unknown: {'rope.dimension_sections': 2.0}"),
        ({"expert_count": 2.0}, "`llama.expert_count` must be 0"),
    ],
)
def test_what_ours_does_not_do_is_refused(tensors, tmp_path, options, reason):
    path = tmp_path / "model.gguf"
    write(path, tensors, **options)
    with pytest.raises(convert.UnsupportedModelError, match=reason):
        convert.import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_tensor_is_named(tensors, tmp_path):
    path = tmp_path / "model.gguf"
    write(path, tensors, drop=["model.layers.1.mlp.up_proj.weight"])
    with pytest.raises(CorruptFolderError, match=r"Missing: \['model.layers.1.mlp.up"):
        convert.import_gguf(path, tmp_path / "out")


def test_no_file_another_file_and_a_link(plain, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        convert.import_gguf(tmp_path / "absent.gguf", tmp_path / "out")
    other = tmp_path / "other.gguf"
    for content in (b"", b"GGUF", b"PK\x03\x04" * 9, b"GGUF" + b"\xff" * 40):
        other.write_bytes(content)
        with pytest.raises(CorruptFolderError, match="no whole GGUF file"):
            convert.import_gguf(other, tmp_path / "out")
    link = tmp_path / "link.gguf"
    link.symlink_to(plain)
    with pytest.raises(CorruptFolderError, match="is a link"):
        convert.import_gguf(link, tmp_path / "out")


def test_damage_is_an_error_of_known_kind_or_another_number(plain, tmp_path):
    """Bits are flipped in the first 8 KiB, where lengths, names and settings are, or
    the end is cut off. Other values may stand in a file; it may not break us."""
    from keras_llm.convert import gguf_llama, gguf_tokenizer, llama
    from keras_llm.convert.gguf_file import open_gguf

    rng = np.random.default_rng(8)
    whole = plain.read_bytes()
    path = pathlib.Path(tmp_path / "damaged.gguf")
    refused = 0
    for i in range(FUZZED):
        data = bytearray(whole)
        if i % 3:
            for place in rng.integers(0, 8_192, 1 + i % 4):
                data[place] ^= 1 << int(rng.integers(8))
        else:
            data = data[: int(rng.integers(len(whole)))]
        path.write_bytes(data)
        try:
            with open_gguf(path) as file:
                llama.LLAMA.read_config(gguf_llama.read_values(file))
                gguf_tokenizer.read_tokenizer(path, file.settings)
        except (CorruptFolderError, convert.UnsupportedModelError):
            refused += 1
        except ValueError as error:  # Of a config or a tokenizer: in our words.
            assert "Received" in str(error), error
            refused += 1
    assert refused > FUZZED / 3
