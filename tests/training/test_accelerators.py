"""What a TPU asks of a step, as far as it can be seen without one.

The whole step, update included, becomes one XLA program before any is compiled for a
device: of fixed shapes, without strings, and without calls to what only one kind of
device has.
"""

import re

import pytest
import tensorflow as tf

from keras_llm import training
from keras_llm.training import TrainStep
from tests.training.test_shipped_configs import CONFIGS, files, shrunk  # noqa: F401

CONFIGURED = (
    "gpt2_small",
    "smollm2_135m",
    "gemma2_2b",
    "lstm_large",
    "bert_reviews_pretraining",
    "electra_reviews_pretraining",
    "bert_reviews",
    "lstm_reviews",
    "lstm_translation",
    "t5_translation",
    "text_vae",
)
SHAPE = re.compile(r"\b(?:f|bf|s|u|pred)\d*\[([^\]]*)\]")
CALL = re.compile(r'custom_call_target="([^"]*)"')


class _Captured(Exception):
    """Ends a run with the program of its first step."""


@pytest.fixture
def program(monkeypatch):
    """Returns the function from an experiment to its step's program, as text."""

    def capture(self, first_step, batches):
        rows = {name: value[0] for name, value in batches.items()}
        # The same for every number of the step: it is an argument, not a constant.
        self.step.get_concrete_function(first_step, rows)
        raise _Captured(
            self.step.experimental_get_compiler_ir(first_step, rows)(stage="hlo")
        )

    monkeypatch.setattr(TrainStep, "run", capture)

    def of(experiment, text, folder):
        with pytest.raises(_Captured) as caught:
            training.train(experiment, text, text, folder, progress=False)
        return caught.value.args[0]

    return of


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_step_is_one_program_of_fixed_shapes(name, program, files, tmp_path):  # noqa: F811
    small = shrunk(training.load_config(CONFIGS / f"{name}.py"))
    small = small.replace(
        train=small.train.replace(jit="full", accumulation=2, ema_decay=0.9)
    )
    file = files / f"{small.task.kind}.jsonl"
    file = file if file.exists() else files / "text.txt"
    text = program(small, file, tmp_path / "run")
    shapes = SHAPE.findall(text)
    assert len(shapes) > 100
    assert [shape for shape in shapes if not re.fullmatch(r"[\d,]*", shape)] == []
    assert set(CALL.findall(text)) <= {"Sharding"}
    assert "while(" in text  # Of the two micro-batches.
    assert not tf.config.functions_run_eagerly()
