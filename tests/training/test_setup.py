"""What a run reads: prepared folders and token stores in place of text."""

import keras
import numpy as np
import pytest

from keras_llm import data, models, tokenizers, training
from keras_llm.training import TokenizerConfig, TrainConfig, setup
from keras_llm.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, texts):
    """Returns a folder that was prepared with a tokenizer of characters."""
    folder = tmp_path_factory.mktemp("prepared") / "tokens"
    tokenizer = tokenizers.CharacterTokenizer.train(data.read_documents(texts[0]))
    data.prepare(texts[0], tokenizer, folder, record_tokens=64)
    return folder


def inputs(experiment, text, run_dir, valid_text=None, tokenizer=None):
    strategy = setup.tf.distribute.get_strategy()
    return setup.prepare_inputs(
        experiment, text, valid_text, RunFolder(run_dir), False, tokenizer, strategy
    )


def test_a_resumed_run_keeps_its_tokenizer(tmp_path, experiment):
    folder = RunFolder(tmp_path / "run")
    folder.begin(experiment, tokenizers.CharacterTokenizer.train(["abc"]))
    again = folder.load_tokenizer(tokenizers.CharacterTokenizer.train(["cba"]))
    assert again.kind == "character"
    with pytest.raises(ValueError, match="goes on with the tokenizer"):
        folder.load_tokenizer(tokenizers.ByteTokenizer())


@pytest.mark.parametrize("kind", ["byte", "character", "byte_bpe"])
def test_a_prepared_folder_brings_its_tokenizer(experiment, prepared, tmp_path, kind):
    experiment = experiment.replace(tokenizer=TokenizerConfig(kind=kind))
    made = inputs(experiment, [str(prepared)], tmp_path / "run")
    made.open_folder()
    assert made.tokenizer.kind == "character"
    assert made.experiment.model.vocab_size == made.tokenizer.vocab_size
    assert made.validation.num_tokens > 0
    assert tokenizers.load(tmp_path / "run/tokenizer").kind == "character"


def test_another_tokenizer_is_refused_and_nothing_is_left(
    experiment, prepared, texts, tmp_path
):
    for sources in ((prepared, None), (texts[0], prepared)):
        with pytest.raises(data.DataError, match="Load the tokenizer from .*tokens"):
            inputs(
                experiment,
                sources[0],
                tmp_path / "run",
                sources[1],
                tokenizers.ByteTokenizer(),
            )
    assert not (tmp_path / "run").exists()


def test_a_prepared_folder_stands_alone(experiment, prepared, texts, tmp_path):
    with pytest.raises(data.DataError, match="stands alone.*prepare_data over all"):
        inputs(experiment, [prepared, texts[0]], tmp_path / "run")


def test_its_tokenizer_must_be_as_written(experiment, texts, tmp_path):
    data.prepare(texts[0], tokenizers.ByteTokenizer(), tmp_path / "tokens")
    file = tmp_path / "tokens/tokenizer/tokenizer.json"
    file.write_text(file.read_text().replace("byte", "bite"))
    with pytest.raises(ValueError, match=r"tokenizer\.json differs from its manifest"):
        inputs(experiment, tmp_path / "tokens", tmp_path / "run")


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_tokenizers_are_trained_by_kind(texts, kind):
    config = TokenizerConfig(kind=kind, vocab_size=70)
    made = training.train_tokenizer(config, texts[0], data.TextConfig())
    assert made.kind == ("wordpiece" if kind == "wordpiece" else "sentencepiece")
    assert made.vocab_size <= 70
    decoded = made.decode(made.encode("the lazy dog")).numpy()
    assert decoded == b"the lazy dog"


def test_a_tokenizer_keeps_capitals_where_told_to(texts):
    kept = TokenizerConfig(kind="wordpiece", vocab_size=70, lower_case=False)
    made = training.train_tokenizer(kept, texts[0], data.TextConfig())
    assert not made.lower_case
    with pytest.raises(ValueError, match="kind='byte_bpe'. Leave it out"):
        TokenizerConfig(lower_case=False)


def test_pieces_have_a_mask_where_asked_for(texts):
    config = TokenizerConfig(kind="bpe", vocab_size=70, mask=True)
    made = training.train_tokenizer(config, texts[0], data.TextConfig())
    assert made.special_ids["mask"] == 3
    with pytest.raises(ValueError, match="mask=True, kind='wordpiece'. Leave it out"):
        TokenizerConfig(kind="wordpiece", mask=True)


def test_ids_are_no_text_to_train_a_tokenizer_on(prepared):
    ids = data.MemoryTokens(np.zeros(9), data.TokenCounts(9, 1, 9, ""), None)
    for source in (ids, prepared, [prepared]):
        with pytest.raises(ValueError, match="Give the tokenizer, or the text"):
            training.train_tokenizer(TokenizerConfig(), source, data.TextConfig())
    with pytest.raises(data.DataError, match=r"\.tfrecord .* by its folder, alone"):
        list(data.read_documents(prepared))


def test_jit_is_chosen_by_what_the_layers_support(monkeypatch):
    sizes = {"vocab_size": 5, "embedding_width": 3, "units": 3, "num_layers": 1}
    auto, full = TrainConfig(), TrainConfig(jit="full")
    on_cpu = models.build(models.LSTMLMConfig(**sizes))
    assert setup.choose_jit(on_cpu, auto) == "parts"
    assert setup.choose_jit(on_cpu, full) == "full"
    for accelerator in ("GPU", "TPU"):
        only = lambda kind, its=accelerator: [kind] if kind == its else []  # noqa: E731
        monkeypatch.setattr(setup.tf.config, "list_logical_devices", only)
        assert setup.choose_jit(on_cpu, auto) == "full"
    devices = lambda kind: [f"{kind}:0"]  # noqa: E731
    monkeypatch.setattr(setup.tf.config, "list_logical_devices", devices)
    monkeypatch.setattr(keras.distribution, "list_devices", devices)
    on_cudnn = models.build(models.LSTMLMConfig(**sizes))
    assert setup.choose_jit(on_cudnn, auto) == "parts"
    with pytest.raises(ValueError, match="LSTM `.*lstm`.*'parts'"):
        setup.make_step(on_cudnn, full)


def test_files_are_named_as_they_were_given(tmp_path):
    """Of several, by a comma and not as a list of Python's."""
    tokenizer = tokenizers.ByteTokenizer()
    (tmp_path / "a.txt").write_text("Call me. " * 99)
    data.prepare(tmp_path / "a.txt", tokenizer, tmp_path / "ids")
    given = [str(tmp_path / "ids")]
    with pytest.raises(ValueError, match=r"Received: \S+ids, no tokenizer"):
        setup.train_tokenizer(training.TokenizerConfig(), given, data.TextConfig())
