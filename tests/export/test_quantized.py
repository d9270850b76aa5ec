"""Exports in eight bits a weight."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models
from tests import forked
from tests.chat_tokenizer import chat_tokenizer

CONFIG = models.LlamaConfig(
    vocab_size=259, max_positions=64, width=64, num_layers=1, num_heads=2, tied=True
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("quantized")
    keras.utils.set_random_seed(1)
    model = models.build(CONFIG)
    for weight in model.weights:
        if len(weight.shape) == 2:
            weight.assign(weight * 8)
    models.save(model, root / "model", chat_tokenizer())
    return root / "model"


def data_bytes(out):
    return sum(path.stat().st_size for path in out.glob("variables/*.data-*"))


def test_it_is_proven_and_a_quarter_of_the_size(folder, tmp_path):
    plain = export.from_model_folder(folder, tmp_path / "1", verify=False)
    eight = export.from_model_folder(folder, tmp_path / "2", quantize="int8")
    assert data_bytes(eight) < 0.3 * data_bytes(plain)
    card = json.loads((eight / "manifest.json").read_text())
    assert (card["weights"], card["dtype"]) == ("int8", "float32")
    assert card["verified_answers"] > 0
    asked = {"prompt": tf.constant(["The "]), "completion": tf.constant(["whale."])}
    score = tf.saved_model.load(eight).signatures["score"]
    model = models.load(folder)
    models.quantize(model)
    ids = chat_tokenizer().encode("The whale.").numpy()
    logits = np.asarray(model(ids[None]), "float64")[0]
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = logits[np.arange(3, len(ids) - 1), ids[4:]].sum()
    np.testing.assert_allclose(score(**asked)["log_prob"], [expected], atol=1e-3)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quantize": "int8", "jit": True}, "exported without `jit`"),
        ({"quantize": "int3"}, "`quantize` must be one of None, 'int8'"),
    ],
)
def test_what_is_not_exported_is_refused(folder, tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        export.from_model_folder(folder, tmp_path / "1", **choices)
    assert not (tmp_path / "1").exists()


def test_commands_take_the_flag(folder, tmp_path):
    script = "scripts/export.py"
    flags = [f"--model={folder}", f"--out={tmp_path / '1'}", "--quantize=int8"]
    done = forked.run(script, *flags, "--jit")
    assert done.returncode != 0 and "several times" in done.stderr
    text = tmp_path / "held_out.txt"
    text.write_text("Call me Ishmael. " * 9)
    flags = [f"--model={folder}", f"--text={text}", "--context=32", "--json"]
    losses = []
    for more in ([], ["--quantize=int8"]):
        done = forked.run("scripts/evaluate.py", *flags, *more)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout.splitlines()[-1])["nats_per_token"])
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) < 0.05
