"""The configs of published models have the numbers of parameters published."""

import importlib

import pytest

from keras_llm import models

PUBLISHED = {
    "gpt2_small": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "smollm2_135m": 134_515_008,
    "llama3_1b": 1_235_814_400,
    "qwen2_5_0_5b": 494_032_768,
    "qwen3_0_6b": 596_049_920,
    "mistral_7b": 7_241_732_096,
    "gemma_2b": 2_506_172_416,
    "gemma2_2b": 2_614_341_888,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    config = importlib.import_module(f"keras_llm.configs.{name}").get_config().model
    # Each block has the same: one of them, and what is there once.
    two, one = (
        models.count_parameters(models.skeleton(config.replace(num_layers=layers)))
        for layers in (2, 1)
    )
    total = one + (config.num_layers - 1) * (two - one)
    assert total == PUBLISHED[name]
