"""The commands `train` and `evaluate`, as a shell sees them."""

import json
import pathlib

import numpy as np
import pytest

from keras_llm import models, tokenizers
from tests import forked
from tests.training.conftest import small_model

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


def evaluate(model, text):
    script = SCRIPTS / "evaluate.py"
    return forked.run(script, f"--model={model}", f"--text={text}", "--json")


@pytest.mark.parametrize("scale, rc", [(np.nan, 1), (1e4, 0)])
def test_evaluate_prints_strict_json_or_says_why_not(texts, tmp_path, scale, rc):
    model = small_model(tokenizers.ByteTokenizer().vocab_size)
    model.set_weights([scale * weight for weight in model.get_weights()])
    models.save(model, tmp_path / "model", tokenizers.ByteTokenizer())
    ended = evaluate(tmp_path / "model", texts[1])
    assert ended.returncode == rc, ended.stderr
    if rc:
        assert "finite" in ended.stderr and ended.stderr.count("\n") == 1
        return
    figures = json.loads(ended.stdout, parse_constant=pytest.fail)
    assert figures["nats_per_token"] > 1_000 and figures["perplexity"] is None
    assert figures["bits_per_byte"] > 1_000
