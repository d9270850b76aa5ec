"""What `plan` prints, as a person and as a program reads it."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from keras_llm.data import DataConfig
from keras_llm.models import GPT2Config
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig

def get_config():
    return Experiment(
        model=GPT2Config(width=12, num_layers=2, num_heads=3, max_positions=24),
        tokenizer=TokenizerConfig(kind="byte"),
        data=DataConfig(context=10, batch_size=4),
        train=TrainConfig(steps=50, jit="off"),
    )
"""


def planned(folder, *words):
    config = folder / "config.py"
    config.write_text(CONFIG)
    return subprocess.run(
        [sys.executable, "scripts/plan.py", f"--config={config}", *words],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )


def test_a_short_step_is_measured(tmp_path):
    done = planned(tmp_path, "--json", "--train.accumulation=3")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    # 257 ids and 24 positions of 12; per block 12 D^2 + 13 D; the last norm 2 D.
    assert figures["parameters"] == 281 * 12 + 2 * (12 * 144 + 13 * 12) + 2 * 12
    assert figures["tokens_per_step"] == 3 * 4 * 10
    assert figures["fits"] and figures["tokens_per_second"] > 0
    assert figures["seconds_per_step"] > figures["least_seconds_per_step"]


def test_what_does_not_fit_says_what_would_need_less(tmp_path):
    done = planned(tmp_path, "--memory_gib=0.1", "--model.width=24")
    assert done.returncode == 0, done.stderr
    assert "It does not fit." in done.stdout
    assert "--train.gradient_checkpointing=True it needs" in done.stdout
    assert "Not measured" in done.stdout
    assert "| adamw's slots" in done.stdout


def test_a_replica_too_many_is_refused(tmp_path):
    done = planned(tmp_path, "--replicas=3")
    assert done.returncode == 1
    assert "data.batch_size=4, 3 replicas" in done.stderr
    assert "Traceback" not in done.stderr
