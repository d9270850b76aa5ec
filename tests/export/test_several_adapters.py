"""Several adapters in one export, chosen row by row."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, generation, models, tokenizers
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


@pytest.fixture(scope="module")
def several(folders):
    """Returns a model in memory that holds both."""
    model = models.load(folders[""])
    models.add_adapters(model, {name: folders[name] for name in KINDS}, folders[""])
    return model


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


def test_in_memory_each_row_takes_its_own(merged, several):
    """By every way of a `Generator`, as by the merged model of each alone."""
    generator = generation.Generator(several, chat_tokenizer())
    order = ["long", "", "plain"]
    talk = [{"role": "user", "content": "The sea"}]
    rows = [
        generator.generate(["The sea"] * 3, adapter=order, max_new_tokens=8),
        generator.chat([talk] * 3, adapter=order, max_new_tokens=8),
    ]
    scores = generator.score(["The"] * 3, [" whale swam"] * 3, adapter=order)
    for i, name in enumerate(order):
        alone = merged[name]
        expected = [
            alone.generate(["The sea"], max_new_tokens=8)[0],
            alone.chat([talk], max_new_tokens=8)[0],
        ]
        assert [row[i].token_ids for row in rows] == [e.token_ids for e in expected]
        pieces = generator.stream("The sea", adapter=name, max_new_tokens=8)
        assert "".join(pieces) == expected[0].text
        score = alone.score(["The"], [" whale swam"])["log_prob"][0]
        np.testing.assert_allclose(scores["log_prob"][i], score, rtol=1e-4)
    assert len({tuple(row.token_ids) for row in rows[0]}) == 3
    one = generator.generate(["The sea"] * 2, adapter="plain", max_new_tokens=8)
    assert {row.text for row in one} == {rows[0][2].text}


def test_beams_take_their_rows_adapter(merged, several):
    """Each row has as many beams as it asked for, all by its own adapter."""
    search = generation.BeamSearch(several, chat_tokenizer())
    order, widths = ["long", "", "plain"], [2, 3, 2]
    found = search.search_all(["The sea"] * 3, widths, 6, adapter=order)
    for beams, width, name in zip(found, widths, order, strict=True):
        plain = generation.BeamSearch(merged[name].text_model.model, chat_tokenizer())
        alone = plain.search("The sea", width, 6)
        assert [beam.token_ids for beam in beams] == [b.token_ids for b in alone]
        np.testing.assert_allclose(
            [beam.score for beam in beams], [b.score for b in alone], rtol=1e-4
        )
    assert len({beams[0].token_ids[0] for beams in found}) > 1


def test_beams_of_an_export_take_their_rows_adapter(tmp_path):
    """Of an encoder-decoder, whose source is read once for all of a row's beams."""
    config = models.T5Config(
        vocab_size=257,
        width=16,
        num_layers=1,
        num_heads=2,
        head_size=8,
        feed_forward_width=20,
        max_positions=48,
    )
    tokenizer = tokenizers.ByteTokenizer()
    keras.utils.set_random_seed(3)
    models.save(models.build(config), tmp_path / "base", tokenizer)
    model = models.load(tmp_path / "base")
    models.add_adapter(model, models.AdapterConfig(rank=2, targets="block"), 0)
    rng = np.random.default_rng(0)
    for weight in models.adapter_weights(model):
        weight.assign(rng.normal(0, 0.6, weight.shape).astype("float32"))
    models.save_adapter(model, tmp_path / "own", tmp_path / "base")
    out = export.from_model_folder(
        tmp_path / "base", tmp_path / "1", adapters={"own": tmp_path / "own"}
    )
    found = tf.saved_model.load(out).signatures["beam_search"](
        prompt=tf.constant(["sea", "sea"]),
        num_beams=tf.constant([3, 3]),
        max_new_tokens=tf.constant([5, 5]),
        length_penalty=tf.constant([0.6, 0.6]),
        adapter=tf.constant(["own", ""]),
    )
    best = []
    for i, name in enumerate(["own", "base"]):
        plain = generation.BeamSearch(models.load(tmp_path / name), tokenizer)
        alone = plain.search("sea", 3, 5)
        np.testing.assert_allclose(
            found["scores"][i], [beam.score for beam in alone], rtol=1e-4
        )
        assert found["texts"][i, 0].numpy().decode() == alone[0].text
        best.append(alone[0].score)
    assert best[0] != pytest.approx(best[1], rel=1e-2)


def test_in_memory_unknown_names_are_refused_in_the_same_words(merged, several):
    generator = generation.Generator(several, chat_tokenizer())
    search = generation.BeamSearch(several, chat_tokenizer())
    known = "must be one of plain, long, or empty for none. Received: whale"
    with pytest.raises(ValueError, match=known):
        generator.generate(["a"], adapter="whale")
    with pytest.raises(ValueError, match=known):
        search.search("a", adapter="whale")
    with pytest.raises(ValueError, match="must be empty: the model was given none"):
        merged[""].generate(["a"], adapter="plain")
    with pytest.raises(ValueError, match="one name, or one for each prompt"):
        generator.generate(["a", "b"], adapter=["plain"])


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
