"""Checkpoint folders in both directions, against what Transformers itself wrote."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from keras_llm import convert, models

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
# What earlier versions of Transformers read instead of `rope_parameters`.
OLD_ROTARY = {"rope_theta", "rope_scaling"}
SIZES = {
    "vocab_size": 37,
    "max_positions": 29,
    "num_layers": 3,
    "width": 24,
    "num_heads": 6,
    "key_value_heads": 2,
    "head_size": 14,
    "feed_forward_width": 31,
}
LLAMA = models.LlamaConfig(**SIZES, rotary_base=500.0)
GEMMA = models.GemmaConfig(**SIZES, rotary_base=500.0, epsilon=1e-5)
BERT = models.BertConfig(
    vocab_size=37,
    max_positions=29,
    width=20,
    num_layers=3,
    num_heads=5,
    feed_forward_width=31,
    num_segments=3,
    dropout=0.0,
)
T5 = models.T5Config(
    vocab_size=37,
    width=20,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=5,
    head_size=6,
    feed_forward_width=31,
    relative_buckets=10,
    relative_max_distance=13,
    epsilon=1e-5,
)
CONFIGS = {
    "bert": BERT,
    "bert_classify": BERT.replace(
        head="classify", labels=[f"LABEL_{i}" for i in range(7)]
    ),
    "electra_classify": BERT.replace(
        width=28,
        num_heads=4,
        feed_forward_width=36,
        embedding_width=11,
        head="classify",
        pooler_activation="gelu",
        labels=[f"LABEL_{i}" for i in range(7)],
    ),
    "gemma": GEMMA,
    "gemma2": GEMMA.replace(
        post_norm=True,
        score_divisor=11,
        score_soft_cap=2.5,
        logit_soft_cap=3.5,
        window=5,
        full_every=2,
    ),
    "gpt2": models.GPT2Config(
        vocab_size=37,
        max_positions=29,
        num_layers=3,
        width=20,
        num_heads=5,
        feed_forward_width=31,
    ),
    "llama": LLAMA,
    "llama3": LLAMA.replace(rotary_scaling={"original_positions": 61}),
    "llama_tied": LLAMA.replace(tied=True),
    "mistral": LLAMA.replace(window=5),
    "qwen2": LLAMA.replace(query_key_value_bias=True, window=5),
    "qwen3": LLAMA.replace(query_key_norm=True, tied=True),
    "t5": T5,
    "t5_tied": T5.replace(activation="relu", tied=True),
}


def tensors(folder):
    """Returns name to (dtype, bytes) of every tensor, and the headers' remarks."""
    found, remarks = {}, []
    for path in folder.glob("*.safetensors"):
        text = path.read_bytes()
        end = 8 + int.from_bytes(text[:8], "little")
        header = json.loads(text[8:end])
        remarks.append(header.pop("__metadata__"))
        for name, entry in header.items():
            start, stop = (end + offset for offset in entry["data_offsets"])
            found[name] = (entry["dtype"], entry["shape"], text[start:stop])
    return found, remarks


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    """Returns the name, what Transformers wrote, ours, and ours written back."""
    root = tmp_path_factory.mktemp(request.param)
    source = GOLDEN / request.param
    dtype = read(source / "config.json")["dtype"]
    shard_bytes = 32_000 if dtype == "bfloat16" else 10**9
    convert.import_folder(source, root / "model")
    convert.export_folder(root / "model", root / "back", dtype, shard_bytes)
    return request.param, source, root / "model", root / "back"


def test_the_config_is_understood(case):
    name, _, model, _ = case
    assert models.load_config(model) == CONFIGS[name]


def test_tensors_come_back_bit_by_bit(case):
    _, source, _, back = case
    expected, remarks = tensors(source)
    found, own_remarks = tensors(back)
    assert found == expected
    assert len(own_remarks) == len(remarks) and own_remarks[0] == remarks[0]


def test_the_config_comes_back(case):
    name, source, _, back = case
    expected, found = read(source / "config.json"), read(back / "config.json")
    del expected["transformers_version"]  # It was not what wrote ours.
    old = {name: found.pop(name) for name in OLD_ROTARY & set(found)}
    if name.startswith("t5"):
        # What a tokenizer or a way of generating says, and the word that earlier
        # versions of Transformers have for `scale_decoder_outputs`.
        expected["tie_word_embeddings"] = expected["scale_decoder_outputs"]
        for values in (expected, found):
            for field in (
                "bos_token_id",
                "eos_token_id",
                "use_cache",
                "initializer_range",
            ):
                values.pop(field, None)
    assert found == expected
    if old:
        parts = dict(expected["rope_parameters"])
        assert old["rope_theta"] == parts.pop("rope_theta")
        assert (old["rope_scaling"] or {"rope_type": "default"}) == parts


@pytest.mark.parametrize(
    ("head", "model_class", "theirs"),
    [
        ("tag", "BertForTokenClassification", "classifier"),
        ("answer", "BertForQuestionAnswering", "qa_outputs"),
    ],
)
def test_a_berts_head_over_tokens_gives_its_logits(head, model_class, theirs, tmp_path):
    """The trunk is that of `bert/`; the heads' weights are in `bert.npz`."""
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "bert", source)
    config = read(source / "config.json") | {"architectures": [model_class]}
    if head == "tag":
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(7)}
    (source / "config.json").write_text(json.dumps(config))
    with np.load(GOLDEN / "bert.npz") as file:
        answers = dict(file)
    weights = safetensors.numpy.load_file(source / "model.safetensors")
    weights = {name: x for name, x in weights.items() if not name.startswith("cls.")}
    kernel = np.ascontiguousarray(answers[f"{head}:head/kernel"].T)
    weights |= {
        f"{theirs}.weight": kernel,
        f"{theirs}.bias": answers[f"{head}:head/bias"],
    }
    path = source / "model.safetensors"
    safetensors.numpy.save_file(weights, path, {"format": "pt"})
    convert.import_folder(source, tmp_path / "model")
    inputs = {n: answers[n] for n in ("token_ids", "segment_ids", "lengths")}
    found = np.asarray(models.load(tmp_path / "model")(inputs))
    real = np.arange(found.shape[1])[None] < answers["lengths"][:, None]
    np.testing.assert_allclose(found[real], answers[head][real], atol=1e-4)
    convert.export_folder(tmp_path / "model", tmp_path / "back")
    assert tensors(tmp_path / "back")[0] == tensors(source)[0]


@pytest.mark.parametrize("name", ["bert", "t5", "t5_tied"])
def test_weights_are_those_renamed_by_hand(name, tmp_path):
    """The generators of the golden files map the same tensors without this package."""
    convert.import_folder(GOLDEN / name, tmp_path / "model")
    ours, expected = (
        safetensors.numpy.load_file(path)
        for path in (
            tmp_path / "model" / "model.safetensors",
            GOLDEN / f"{name}.safetensors",
        )
    )
    assert set(ours) == set(expected)
    assert all(np.array_equal(ours[path], expected[path]) for path in ours)


def test_shards_and_their_index_are_those_of_one_file(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    convert.import_folder(GOLDEN / "llama3", tmp_path / "model")
    convert.export_folder(tmp_path / "model", whole, "bfloat16")
    convert.export_folder(tmp_path / "model", cut, "bfloat16", shard_bytes=10_000)
    shards = sorted(path.name for path in cut.glob("*.safetensors"))
    assert (
        len(shards) > 4 and shards[1] == f"model-00002-of-{len(shards):05}.safetensors"
    )
    assert tensors(whole)[0] == tensors(cut)[0]
    index = read(cut / "model.safetensors.index.json")
    for shard in shards:
        assert (cut / shard).stat().st_size < 10_000 + 5_000  # Its header too.
        with safetensors.safe_open(cut / shard, "numpy") as file:
            listed = {k for k, v in index["weight_map"].items() if v == shard}
            assert set(file.keys()) == listed
    assert (
        index["metadata"]
        == read(GOLDEN / "llama3" / "model.safetensors.index.json")["metadata"]
    )


OURS = {
    "gpt2": models.GPT2Config(
        vocab_size=13,
        max_positions=7,
        width=12,
        num_layers=2,
        num_heads=3,
        dropout=0.25,
        separator_id=5,
    ),
    "llama": models.LlamaConfig(
        vocab_size=13,
        max_positions=7,
        width=12,
        num_layers=2,
        num_heads=3,
        dropout=0.25,
        separator_id=5,
    ),
    "bert": BERT.replace(activation="gelu_tanh"),
    "t5": T5.replace(activation="geglu"),
    **{
        f"{family} {head}": BERT.replace(
            head=head, labels=labels, embedding_width=width
        )
        for family, width in (("bert", None), ("electra", 11))
        for head, labels in (("tag", ("B", "I", "O")), ("answer", ()))
    },
}


@pytest.mark.parametrize("name", OURS)
def test_our_own_model_comes_back_bit_by_bit(name, tmp_path):
    model = models.build(OURS[name])
    models.save(model, tmp_path / "model")
    written = convert.export_folder(tmp_path / "model", tmp_path / "theirs")
    assert written == (name.split()[0], None, False)
    convert.import_folder(tmp_path / "theirs", tmp_path / "back")
    ours, back = (
        safetensors.numpy.load_file(tmp_path / folder / "model.safetensors")
        for folder in ("model", "back")
    )
    assert set(ours) == set(back)
    assert all(np.array_equal(ours[path], back[path]) for path in ours)
    config = models.load_config(tmp_path / "back")
    if name == "llama":  # Derived sizes are written out.
        assert (config.head_size, config.key_value_heads) == (4, 3)
        assert config.feed_forward_width == OURS[name].inner_dim
        config = config.replace(
            head_size=None, key_value_heads=None, feed_forward_width=None
        )
    assert config == OURS[name]


@pytest.mark.parametrize(
    "config",
    [
        models.LSTMLMConfig(vocab_size=13, embedding_width=4, units=5, num_layers=1),
        OURS["gpt2"].replace(use_bias=False),
        OURS["llama"].replace(query_key_norm=True, query_key_value_bias=True),
        GEMMA.replace(logit_soft_cap=2.0),
    ],
    ids=lambda config: config.architecture,
)
def test_a_model_of_no_family_is_refused(config, tmp_path):
    models.save(models.build(config), tmp_path / "model")
    with pytest.raises(convert.UnsupportedModelError, match="No family.*'gpt2'"):
        convert.export_folder(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_memory_stays_small(tmp_path, monkeypatch):
    """No more than one weight of theirs is alive when the next is read."""
    from keras_llm.convert.safetensors_folder import TensorFolder

    alive, most = [], 0
    original = TensorFolder.read

    class Counted(np.ndarray):
        """Leaves the count when it goes."""

        def __del__(self):
            if self.base is None or not isinstance(self.base, Counted):
                alive.pop()

    def counted(self, name):
        nonlocal most
        alive.append(name)
        most = max(most, len(alive))
        return original(self, name).view(Counted)

    monkeypatch.setattr(TensorFolder, "read", counted)
    convert.import_folder(GOLDEN / "gpt2", tmp_path / "model")
    # The one just written may live until the next is there.
    assert most <= 2 and not alive
