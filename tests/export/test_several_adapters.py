"""Several adapters in one export, chosen row by row."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, generation, models
from keras_llm.generation import parameters as parameters_lib
from tests.chat_tokenizer import chat_tokenizer

CONFIG = models.GPT2Config(
    vocab_size=259, max_positions=64, width=16, num_layers=1, num_heads=2
)
KINDS = {"plain": ("lora", 2), "long": ("dora", 3)}
NAMES = ["", *KINDS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns name to model or adapter folder; "" is the base."""
    root = tmp_path_factory.mktemp("adapters")
    keras.utils.set_random_seed(1)
    base = models.build(CONFIG)
    for weight in base.weights:
        if len(weight.shape) == 2:
            weight.assign(weight * 8)
    models.save(base, root / "base", chat_tokenizer())
    for seed, (name, (kind, rank)) in enumerate(KINDS.items()):
        model = models.load(root / "base")
        # The second leaves some projections as they are.
        targets = "block_" if seed == 0 else "block_0/attention"
        config = models.AdapterConfig(kind=kind, rank=rank, targets=targets)
        models.add_adapter(model, config, seed)
        rng = np.random.default_rng(seed)
        for weight in models.adapter_weights(model):
            noise = rng.normal(0, 0.4, weight.shape).astype("float32")
            weight.assign(keras.ops.convert_to_numpy(weight) + noise)
        models.save_adapter(model, root / name, root / "base")
    return {"": root / "base", **{name: root / name for name in KINDS}}


@pytest.fixture(scope="module")
def merged(folders):
    """Returns name to the generator of the merged model."""
    return {
        name: generation.Generator(models.load(folder), chat_tokenizer())
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def exported(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "1"
    own = {name: folders[name] for name in KINDS}
    return export.from_model_folder(folders[""], out, adapters=own)


def knobs(names):
    values = {**parameters_lib.DEFAULTS, "max_new_tokens": 8}
    return {
        "adapter": tf.constant(names),
        "stop": tf.constant([[""]] * len(names)),
        **{
            name: tf.constant([value] * len(names), parameters_lib.DTYPES[name])
            for name, value in values.items()
        },
    }


@pytest.mark.parametrize("signature", ["generate", "chat"])
def test_each_row_takes_its_own(signature, merged, exported):
    """In one batch as by the merged model of each alone."""
    served = tf.saved_model.load(exported).signatures[signature]
    order = ["long", "", "plain"] if signature == "generate" else ["", "long"]
    said = {"prompt": tf.constant(["The sea"] * len(order))}
    if signature == "chat":
        said = {
            "roles": tf.constant([["user"]] * len(order)),
            "contents": tf.constant([["The sea"]] * len(order)),
        }
    found = served(**said, **knobs(order))
    texts = []
    for i, name in enumerate(order):
        generator, talk = merged[name], [{"role": "user", "content": "The sea"}]
        alone = (
            generator.generate(["The sea"], max_new_tokens=8)
            if signature == "generate"
            else generator.chat([talk], max_new_tokens=8)
        )[0]
        count = int(found["num_tokens"][i])
        assert found["token_ids"][i, :count].numpy().tolist() == alone.token_ids
        np.testing.assert_allclose(
            found["log_probs"][i, :count], alone.log_probs, rtol=1e-4, atol=1e-4
        )
        texts.append(alone.token_ids)
    assert len({tuple(ids) for ids in texts}) == len(order)


def test_scores_are_those_of_the_merged_models(merged, exported):
    served = tf.saved_model.load(exported).signatures["score"]
    pair = {"prompt": ["The"] * 3, "completion": [" whale swam"] * 3}
    found = served(
        **{n: tf.constant(v) for n, v in pair.items()}, adapter=tf.constant(NAMES)
    )
    alone = [
        merged[name].score(["The"], [" whale swam"])["log_prob"][0] for name in NAMES
    ]
    np.testing.assert_allclose(found["log_prob"], alone, rtol=1e-4)
    assert len(set(np.round(alone, 2))) == 3


def test_without_a_choice_it_is_the_base(merged, exported):
    served = tf.saved_model.load(exported).signatures["serving_default"]
    expected = merged[""].generate(["The"])[0].text
    assert served(prompt=tf.constant(["The"]))["text"][0].numpy().decode() == expected


def test_an_unknown_name_is_refused_with_those_known(exported):
    served = tf.saved_model.load(exported).signatures["generate"]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="must be one of plain, long"
    ):
        served(prompt=tf.constant(["a", "b"]), **knobs(["plain", "whale"]))


def test_an_export_without_adapters_has_no_such_input(folders, tmp_path):
    out = export.from_model_folder(folders[""], tmp_path / "1", verify=False)
    signature = tf.saved_model.load(out).signatures["generate"]
    assert "adapter" not in signature.structured_input_signature[1]


def test_what_is_refused(folders):
    model = models.load(folders[""])
    for wrong in ({}, {"": folders["plain"]}):
        with pytest.raises(ValueError, match="given by names"):
            models.add_adapters(model, wrong, folders[""])
    models.add_adapters(model, {"a": folders["plain"]}, folders[""])
    with pytest.raises(ValueError, match="a model that has some"):
        models.add_adapters(model, {"b": folders["long"]}, folders[""])
