"""What is wrong with a checkpoint is named; nothing outside it is opened."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

from keras_llm import convert, core

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"


def refuse(folder, error, message, **options):
    """Checks that an import is refused and leaves nothing behind."""
    out = folder.parent / "out"
    with pytest.raises(error, match=message):
        convert.import_folder(folder, out, **options)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.fixture
def copy(tmp_path):
    """Copies a golden checkpoint to where it may be changed."""

    def copied(name):
        shutil.copytree(GOLDEN / name, tmp_path / "checkpoint")
        return tmp_path / "checkpoint"

    return copied


def set_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder, change):
    weights = safetensors.numpy.load_file(folder / WEIGHTS)
    change(weights)
    safetensors.numpy.save_file(weights, folder / WEIGHTS, {"format": "pt"})


TENSOR = "transformer.h.1.mlp.c_fc.weight"
SCALED = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(TENSOR), rf"Missing: \['{TENSOR}'\]"),
        (lambda w: w.update(extra=np.ones(2, "f4")), r"left over: \['extra'\]"),
        (
            lambda w: w.update({TENSOR: np.ones((31, 20), "f4")}),
            rf"`{TENSOR}` has shape \(31, 20\), .* \(20, 31\)",
        ),
        (
            lambda w: w.update({"lm_head.weight": w["transformer.wte.weight"] + 1}),
            "`lm_head.weight` must equal `transformer.wte.weight`",
        ),
        (
            lambda w: w.update({TENSOR: np.ones((20, 31), "i1")}),
            f"`{TENSOR}` of type I8",
        ),
    ],
)
def test_every_tensor_is_accounted_for(change, message, copy):
    folder = copy("gpt2")
    change_weights(folder, change)
    refuse(folder, core.CorruptFolderError, message)


def test_known_extras_are_passed_over(copy, tmp_path):
    """The oldest files: no prefix, the masks, and the head once more."""
    folder = copy("gpt2")

    def as_once(weights):
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        for i in range(3):
            weights[f"h.{i}.attn.bias"] = np.ones((1, 1, 29, 29), "f4")
            weights[f"h.{i}.attn.masked_bias"] = np.array(-1e4, "f4")
        weights["lm_head.weight"] = weights["wte.weight"].copy()

    change_weights(folder, as_once)
    set_config(folder, n_ctx=29, architectures=["GPT2Model"])
    convert.import_folder(folder, tmp_path / "old")
    convert.import_folder(GOLDEN / "gpt2", tmp_path / "new")
    old, new = ((tmp_path / name / WEIGHTS).read_bytes() for name in ("old", "new"))
    assert old == new


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"model_type": "gpt5"}, "'gpt2', 'llama', .*Received: .*'gpt5'"),
        ("gpt2", {"model_type": ["gpt2"]}, "model_type"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "GPT2LMHead"),
        ("gpt2", {"activation_function": "gelu"}, "`activation_function` must be 'g"),
        ("gpt2", {"scale_attn_weights": False}, "`scale_attn_weights`"),
        ("gpt2", {"scale_attn_weights": 1}, "`scale_attn_weights`"),
        ("gpt2", {"attn_pdrop": 0.5}, "attn_pdrop.*must be equal"),
        ("gpt2", {"auto_map": {"AutoModel": "own.Model"}}, "auto_map=.*ignore"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("gpt2", {"n_layer": "3"}, "num_layers.*int"),
        ("gpt2", {"n_layer": 10**9}, "num_layers=1000000000, .* 40 at most"),
        ("gpt2", {"n_embd": 10**9, "n_head": 1}, "width=1000000000, .* 60 at most"),
        ("t5", {"num_decoder_layers": 10**9}, "num_decoder_layers=1000000000"),
        ("t5", {"feed_forward_proj": "gated-silu"}, "'gated-silu'"),
        ("t5", {"dense_act_fn": "gelu"}, "'gelu'"),
        ("bert", {"architectures": None}, "BertForMaskedLM or"),
        ("bert", {"hidden_dropout_prob": 0.5}, "must equal"),
        ("bert", {"position_embedding_type": "relative_key"}, "must be 'absolute'"),
        ("bert", {"hidden_act": "relu"}, "'gelu_new'.*hidden_act='relu'"),
        ("electra_classify", {"hidden_act": "gelu_new"}, "`hidden_act` must be 'gelu'"),
        ("bert_classify", {"id2label": {"0": "a", "2": "b"}}, "KeyError '1'"),
        ("llama", {"hidden_act": "gelu"}, "`hidden_act` must be 'silu'"),
        ("llama", {"attention_bias": True}, "`attention_bias` must be False"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ("llama", {"rope_scaling": {"type": ["linear"]}}, "another kind"),
        ("llama", {"rope_scaling": "twice"}, "another kind"),
        ("llama", {"rope_parameters": SCALED}, "exactly the fields factor"),
        ("llama", {"rope_theta": 400.0}, "must agree"),
        ("llama", {"sliding_window": 5}, "sliding_window=5"),
        ("qwen2", {"max_window_layers": 1}, "all blocks have a window or none"),
        ("qwen2", {"layer_types": ["full_attention"] * 3}, "all blocks"),
        ("qwen2", {"num_hidden_layers": 10**12}, "from 1 to 10000"),
        ("qwen3", {"attention_bias": True}, "`attention_bias`"),
        ("gemma", {"hidden_activation": "gelu"}, "`hidden_act` must"),
        ("gemma", {"use_bidirectional_attention": True}, "`use_bidirectional"),
        ("gemma", {"rope_scaling": {"rope_type": "llama3"}}, "exactly the fields"),
        ("gemma2", {"layer_types": ["sliding_attention"] * 2}, "`layer_types`"),
        ("gemma2", {"tie_word_embeddings": False}, "`tie_word_embeddings`"),
    ],
)
def test_what_a_model_would_do_otherwise_is_refused(name, changes, message, copy):
    folder = copy(name)
    set_config(folder, **changes)
    refuse(folder, ValueError, message)


def test_a_missing_field_is_named(copy):
    folder = copy("llama")
    values = json.loads((folder / "config.json").read_text())
    del values["hidden_size"]
    (folder / "config.json").write_text(json.dumps(values))
    refuse(folder, convert.UnsupportedModelError, "must hold `hidden_size`")


def test_a_field_may_be_ignored_by_name(copy, tmp_path):
    folder = copy("gpt2")
    set_config(folder, colour="blue")
    refuse(folder, convert.UnsupportedModelError, "colour='blue'")
    convert.import_folder(folder, tmp_path / "out", ignored_fields=["colour"])


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "sub/part.safetensors",
        "..",
        "",
        "C:part.safetensors",
        "sub\\part.safetensors",
        "pytorch_model-00001-of-00002.bin",
        7,
    ],
)
def test_an_index_names_plain_safetensors_files(shard, copy):
    folder = copy("llama3")
    path = folder / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = shard
    path.write_text(json.dumps(index))
    refuse(folder, core.CorruptFolderError, "plain base name|Only .safetensors")


@pytest.mark.parametrize("name", [FIRST, INDEX, "config.json"])
def test_links_are_not_followed(name, copy, tmp_path):
    folder = copy("llama3")
    elsewhere = tmp_path / "checkpoint" / "kept"
    os.rename(folder / name, elsewhere)
    (folder / name).symlink_to(elsewhere)
    refuse(folder, core.CorruptFolderError, f"{name} is a link")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["weight_map"].pop("lm_head.weight"), "left over"),
        (
            lambda index: index["weight_map"].update(extra=FIRST),
            r"Missing: \['extra'\]",
        ),
        (lambda index: index.pop("weight_map"), "must hold `weight_map`"),
        (lambda index: index.update(weight_map={}), "must hold `weight_map`"),
        (
            lambda index: index["weight_map"].update(extra="third.safetensors"),
            "no file third",
        ),
    ],
)
def test_index_and_shards_agree(change, message, copy):
    folder = copy("llama3")
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
    refuse(folder, (core.CorruptFolderError, FileNotFoundError), message)


def test_a_pickle_is_never_opened(copy):
    folder = copy("gpt2")
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    refuse(folder, FileNotFoundError, "pytorch_model.bin is a pickle")


def test_an_absent_folder_or_config_is_named(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint folder .*absent"):
        convert.import_folder(tmp_path / "absent", tmp_path / "out")
    folder = copy("gpt2")
    (folder / "config.json").unlink()
    refuse(folder, FileNotFoundError, "no file config.json")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        convert.import_folder(GOLDEN / "gpt2", tmp_path / "out")
    with pytest.raises(FileExistsError):
        convert.export_folder(tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_cut_short_is_refused(share, copy):
    folder = copy("gpt2")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: int(share * len(data))])
    refuse(folder, core.CorruptFolderError, "no whole safetensors file")


def test_damaged_headers_give_typed_errors(copy, tmp_path):
    """Each byte of the header's ends, and some between, with another value."""
    folder = copy("gpt2")
    data = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(43)
    spots = [*range(60), *rng.integers(60, end, 140)]
    for number, spot in enumerate(spots):
        damaged = bytearray(data)
        damaged[spot] ^= int(rng.integers(1, 256))
        (folder / WEIGHTS).write_bytes(damaged)
        out = tmp_path / f"out{number}"
        try:
            convert.import_folder(folder, out)
        except (core.CorruptFolderError, FileNotFoundError):
            assert not out.exists()
        else:  # A byte of the remarks, or of padding.
            assert out.is_dir()


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"model_type": "gpt2"', "\ud800", "[" * 100_000]
)
def test_a_config_that_is_none_is_refused(text, copy):
    folder = copy("gpt2")
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refuse(folder, ValueError, "config.json")


def test_a_damaged_model_folder_is_not_exported(tmp_path):
    convert.import_folder(GOLDEN / "gpt2", tmp_path / "model")
    path = tmp_path / "model" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(core.CorruptFolderError, match=WEIGHTS):
        convert.export_folder(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_weight_may_be_of_any_type(copy, tmp_path):
    folder = copy("bert")
    numbers = np.arange(29)[None]
    change_weights(
        folder, lambda w: w.update({"bert.embeddings.position_ids": numbers})
    )
    convert.import_folder(folder, tmp_path / "out")
    change_weights(
        folder,
        lambda w: w.update({TABLE: (w[TABLE] * 9).astype("int8")}),
    )
    shutil.rmtree(tmp_path / "out")
    refuse(folder, core.CorruptFolderError, f"`{TABLE}` of type I8. Undo")


TABLE = "bert.embeddings.word_embeddings.weight"
