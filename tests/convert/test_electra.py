"""ELECTRA's checkpoints: a generator and a discriminator, together and alone."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy

from keras_llm import convert, core, models

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
PAIR = GOLDEN / "electra_pair"
WEIGHTS = "model.safetensors"
HALVES = ("generator", "discriminator")
CONFIG = models.ElectraConfig(
    vocab_size=37,
    max_positions=29,
    width=28,
    num_layers=3,
    num_heads=4,
    feed_forward_width=36,
    num_segments=3,
    embedding_width=11,
    generator_fraction=0.5,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with both halves imported, and exported again."""
    path = tmp_path_factory.mktemp("electra")
    convert.import_folder(PAIR, path / "model")
    written = convert.export_folder(path / "model", path / "back")
    assert written == ("electra", None, False)
    return path


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "electra.npz") as file:
        return dict(file)


def rows(expected, ids):
    names = ("segment_ids", "lengths")
    return {"token_ids": expected[ids], **{name: expected[name] for name in names}}


def load(path):
    return safetensors.numpy.load_file(path / WEIGHTS)


def read_config(path):
    values = json.loads((path / "config.json").read_text())
    values.pop("transformers_version", None)
    return values


def test_both_are_one_model_with_weights_renamed_by_hand(folder):
    assert models.load_config(folder / "model") == CONFIG
    ours = load(folder / "model")
    by_hand = safetensors.numpy.load_file(GOLDEN / "electra.safetensors")
    assert set(ours) == set(by_hand)
    assert all(np.array_equal(ours[path], by_hand[path]) for path in ours)


@pytest.mark.parametrize("half", HALVES)
def test_both_come_back_bit_by_bit(folder, half):
    assert read_config(folder / "back" / half) == read_config(PAIR / half)
    found, wanted = load(folder / "back" / half), load(PAIR / half)
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[name], wanted[name]) for name in found)


def test_a_generator_alone_is_a_masked_lm(expected, tmp_path):
    convert.import_folder(PAIR / "generator", tmp_path / "model")
    model = models.load(tmp_path / "model")
    assert (model.config.head, model.config.embedding_width) == ("masked_lm", 11)
    logits = np.asarray(model(rows(expected, "masked_ids")))
    for row, length in enumerate(expected["lengths"]):
        np.testing.assert_allclose(
            logits[row, :length],
            expected["generator_logits"][row, :length],
            rtol=1e-4,
            atol=1e-4,
        )
    convert.export_folder(tmp_path / "model", tmp_path / "back")
    assert read_config(tmp_path / "back") == read_config(PAIR / "generator")
    found, wanted = load(tmp_path / "back"), load(PAIR / "generator")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_discriminator_alone_gives_vectors(expected, tmp_path):
    convert.import_folder(PAIR / "discriminator", tmp_path / "model")
    model = models.load(tmp_path / "model")
    found = np.asarray(model(rows(expected, "corrupted_ids")))
    first = expected["hidden"][-1][:, 0]  # `hidden` ends with the last block's.
    np.testing.assert_allclose(found, first, rtol=1e-4, atol=1e-4)
    # Its head that tells replaced tokens stays behind: what is written is the trunk.
    convert.export_folder(tmp_path / "model", tmp_path / "back")
    assert read_config(tmp_path / "back")["architectures"] == ["ElectraModel"]
    wanted = {
        name.removeprefix("electra."): value
        for name, value in load(PAIR / "discriminator").items()
        if name.startswith("electra.")
    }
    back = load(tmp_path / "back")
    assert set(back) == set(wanted)
    assert all(np.array_equal(back[name], wanted[name]) for name in wanted)


def test_a_fine_tuned_classifier_gives_its_logits(expected, tmp_path):
    convert.import_folder(GOLDEN / "electra_classify", tmp_path / "model")
    logits = models.load(tmp_path / "model")(rows(expected, "token_ids"))
    np.testing.assert_allclose(
        np.asarray(logits), expected["classify"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("head", "model_class"),
    [("tag", "ForTokenClassification"), ("answer", "ForQuestionAnswering")],
)
def test_a_fine_tuned_head_over_tokens_gives_its_logits(
    head, model_class, expected, tmp_path
):
    theirs = tmp_path / "theirs"
    shutil.copytree(PAIR / "discriminator", theirs)
    labels = {str(i): f"LABEL_{i}" for i in range(7)}
    change_config(theirs, architectures=[f"Electra{model_class}"], id2label=labels)
    weights = load(theirs)
    trunk = {name: x for name, x in weights.items() if name.startswith("electra.")}
    own = {
        name.partition(":")[2]: value
        for name, value in expected.items()
        if name.startswith(f"{head}:")
    }
    assert len(own) == 2
    safetensors.numpy.save_file({**trunk, **own}, theirs / WEIGHTS, {"format": "pt"})
    convert.import_folder(theirs, tmp_path / "model")
    found = np.asarray(models.load(tmp_path / "model")(rows(expected, "token_ids")))
    real = np.arange(found.shape[1])[None] < expected["lengths"][:, None]
    np.testing.assert_allclose(found[real], expected[head][real], rtol=1e-4, atol=1e-4)


def test_a_tanh_pooler_has_no_counterpart(tmp_path):
    config = CONFIG.discriminator.replace(head="classify", labels=("a", "b"))
    models.save(models.build(config), tmp_path / "model")
    with pytest.raises(convert.UnsupportedModelError, match="No family"):
        convert.export_folder(tmp_path / "model", tmp_path / "out")


def change_config(path, **changes):
    path = path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weight(path, name, value):
    weights = load(path)
    weights[name][0, 0] = value
    safetensors.numpy.save_file(weights, path / WEIGHTS, {"format": "pt"})


def swap(root):
    (root / "generator").rename(root / "held")
    (root / "discriminator").rename(root / "generator")
    (root / "held").rename(root / "discriminator")


TABLE = "electra.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda root: change_config(root / "generator", num_attention_heads=7),
            convert.UnsupportedModelError,
            "same share.*num_heads=7 instead of 2",
        ),
        (
            lambda root: change_config(root / "generator", num_hidden_layers=2),
            convert.UnsupportedModelError,
            "num_layers=2 instead of 3",
        ),
        (
            lambda root: change_weight(root / "generator", TABLE, 9.0),
            core.CorruptFolderError,
            "same `token_embedding/embeddings`",
        ),
        (swap, convert.UnsupportedModelError, "must hold an ElectraForMaskedLM"),
    ],
)
def test_halves_that_do_not_belong_together(change, error, message, tmp_path):
    shutil.copytree(PAIR, tmp_path / "pair")
    change(tmp_path / "pair")
    with pytest.raises(error, match=message):
        convert.import_folder(tmp_path / "pair", tmp_path / "out")
    assert not (tmp_path / "out").exists()
