"""Exports: signatures, proof, refusal, and the same answers everywhere."""

import errno
import importlib
import json
import os
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models, tokenizers
from keras_llm.core import (
    CorruptFolderError,
    DiskFullError,
    allowed_ops,
    check_manifest,
    prediction_log,
)
from keras_llm.export import writer
from keras_llm.generation import Generator
from keras_llm.serving.model import Model

# The package's `verify` is the function.
verify_lib = importlib.import_module("keras_llm.export.verify")

GENERATED = {"token_ids": tf.int32, "log_probs": tf.float32, "num_tokens": tf.int32}
TEXT = {"text": tf.string, "finish_reason": tf.string, "prompt_tokens": tf.int32}
KNOBS = {
    "max_new_tokens": tf.int32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "min_p": tf.float32,
    "repetition_penalty": tf.float32,
    "seed": tf.int32,
}
DEFAULTS = dict(zip(KNOBS, [8, 0.0, 0, 1.0, 0.0, 1.0, 0], strict=True))
# Inputs and outputs by name; `prefill` and `decode_step` have their state besides.
SIGNATURES = {
    "serving_default": ({"prompt": tf.string}, {"text": tf.string}),
    "generate": ({"prompt": tf.string, "stop": tf.string, **KNOBS}, TEXT | GENERATED),
    "score": (
        {"prompt": tf.string, "completion": tf.string},
        {"log_prob": tf.float32, "num_tokens": tf.int32, "bits_per_byte": tf.float32},
    ),
    "tokenize": (
        {"text": tf.string},
        {"token_ids": tf.int32, "num_tokens": tf.int32},
    ),
    "generate_ids": ({"token_ids": tf.int32, "lengths": tf.int32, **KNOBS}, GENERATED),
    "prefill": (
        {"token_ids": tf.int32, "lengths": tf.int32, "capacity": tf.int32},
        {"logits": tf.float32},
    ),
    "decode_step": ({"token_ids": tf.int32}, {"logits": tf.float32}),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    model = models.build(
        models.LlamaConfig(
            vocab_size=300,  # Above the tokenizer's 257: padded tables are allowed.
            width=24,
            num_layers=2,
            num_heads=6,
            key_value_heads=2,
            max_positions=64,
        )
    )
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * keras.random.normal(weight.shape, seed=3))
    return model


def servable(model):
    return export.servable(model, tokenizers.ByteTokenizer(), False, model.weights)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("serving") / "small" / "3"
    return export.export(model, tokenizers.ByteTokenizer(), out)


@pytest.fixture(scope="module")
def loaded(folder, tmp_path_factory):
    """The export at another place, after its copy at the first is gone."""
    first = tmp_path_factory.mktemp("first") / "3"
    shutil.copytree(folder, first)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    first.rename(moved)
    return tf.saved_model.load(moved)


def knobs(rows, **values):
    given = {**DEFAULTS, **values}
    return {
        name: tf.fill([rows], tf.constant(given[name], dtype))
        for name, dtype in KNOBS.items()
    }


def test_the_signatures_have_the_published_names_and_types(loaded):
    def dtypes(specs):
        return {name: spec.dtype for name, spec in specs.items()}

    assert set(loaded.signatures) == set(SIGNATURES)
    for name, (inputs, outputs) in SIGNATURES.items():
        _, given = loaded.signatures[name].structured_input_signature
        answer = loaded.signatures[name].structured_outputs
        state = {}
        if name in ("prefill", "decode_step"):
            state = dtypes(answer)
            del state["logits"]
            assert set(state.values()) <= {tf.float32, tf.int32}
        assert dtypes(given) == (inputs | state if name == "decode_step" else inputs)
        assert dtypes(answer) == outputs | state
        assert all(spec.shape.rank >= 1 for spec in [*given.values(), *answer.values()])


def test_the_folder_holds_what_serving_needs(folder):
    manifest = check_manifest(folder)
    assert manifest["architecture"] == "llama"
    assert manifest["verified_answers"] >= 15
    assert manifest["dtype"] == "float32"
    assert {
        "README.md",
        "batching_params.pbtxt",
        "saved_model.pb",
        prediction_log.WARMUP_PATH,
    } <= set(manifest["files"])
    requests = prediction_log.read_warmup(folder / prediction_log.WARMUP_PATH)
    assert 0 < len(requests) < 20
    assert sorted(os.listdir(folder.parent)) == ["3"]


def test_the_requests_of_the_card_are_answered(folder, loaded):
    card = (folder / "README.md").read_text()
    bodies = [json.loads(text) for text in re.findall(r"-d '(.*?)'", card, re.DOTALL)]
    assert [body.get("signature_name") for body in bodies] == [None, "generate"]
    assert loaded.signatures["serving_default"](tf.constant(bodies[0]["instances"]))
    (row,) = bodies[1]["instances"]
    generate = loaded.signatures["generate"]
    specs = generate.structured_input_signature[1]
    feed = {key: tf.constant([value], specs[key].dtype) for key, value in row.items()}
    assert generate(**feed)["num_tokens"].numpy() <= row["max_new_tokens"]


def test_an_operator_may_edit_what_is_not_the_model(folder, tmp_path):
    version = shutil.copytree(folder, tmp_path / "3")
    (version / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    (version / "README.md").write_text("Ours.")
    (version / prediction_log.WARMUP_PATH).unlink()
    served = Model(version, 3)
    assert served.warm_up(version) == 0
    answer = served.predict("tokenize", {"text": np.array([b"ab"], object)})
    assert answer["token_ids"].tolist() == [[97, 98]]


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_changed_graph_or_weight_is_named(folder, tmp_path, name):
    version = shutil.copytree(folder, tmp_path / "3")
    content = bytearray((version / name).read_bytes())
    content[len(content) // 2] ^= 1
    (version / name).write_bytes(content)
    with pytest.raises(CorruptFolderError, match=f"{name} differs .* write it anew"):
        Model(version, 3)


def test_warm_up_requests_keep_to_a_models_positions():
    sizes = models.GPT2Config(
        vocab_size=257, width=8, num_layers=1, num_heads=2, max_positions=3
    )
    subject = servable(models.build(sizes))
    for _, inputs in subject.warmup_requests():
        assert inputs.get("max_new_tokens", 0) <= 2


def test_warm_up_requests_are_answered(folder, loaded):
    requests = prediction_log.read_warmup(folder / prediction_log.WARMUP_PATH)
    assert {"serving_default", "generate"} <= {r.signature_name for r in requests}
    for request in requests:
        signature = loaded.signatures[request.signature_name]
        assert signature(
            **{name: tf.constant(value) for name, value in request.inputs.items()}
        )


def test_the_export_answers_as_the_model_in_memory(model, loaded):
    generator = Generator(model, tokenizers.ByteTokenizer())
    prompts = ["abc", "", "文字 and more"]
    options = {"temperature": 0.9, "top_p": 0.8, "seed": 4, "max_new_tokens": 13}
    expected = generator.generate(prompts, stop=["q"], **options)
    answer = loaded.signatures["generate"](
        prompt=tf.constant(prompts),
        stop=tf.constant([["q"]] * 3),
        **knobs(3, **options),
    )
    for i, row in enumerate(expected):
        assert answer["text"][i].numpy().decode() == row.text
        count = int(answer["num_tokens"][i])
        assert answer["token_ids"][i, :count].numpy().tolist() == row.token_ids
        assert answer["finish_reason"][i].numpy().decode() == row.finish_reason
        assert int(answer["prompt_tokens"][i]) == row.prompt_tokens
    default = loaded.signatures["serving_default"](prompt=tf.constant(["abc"]))
    assert default["text"][0].numpy().decode() == generator.generate(["abc"])[0].text


def test_ids_and_single_steps_agree_with_generate(loaded):
    prompts = [b"abc", b"defghij"]
    token_ids = np.zeros((2, 7), "int32")
    for i, prompt in enumerate(prompts):
        token_ids[i, : len(prompt)] = list(prompt)
    lengths = tf.constant([3, 7])
    generated = loaded.signatures["generate"](
        prompt=tf.constant(prompts), stop=tf.constant([[""], [""]]), **knobs(2)
    )["token_ids"].numpy()
    by_ids = loaded.signatures["generate_ids"](
        token_ids=tf.constant(token_ids), lengths=lengths, **knobs(2)
    )
    np.testing.assert_array_equal(by_ids["token_ids"].numpy(), generated)

    state = loaded.signatures["prefill"](
        token_ids=tf.constant(token_ids),
        lengths=lengths,
        capacity=tf.constant([11, 15]),
    )
    stepped = []
    for _ in range(8):
        logits = state.pop("logits")
        stepped.append(tf.argmax(logits, -1, tf.int32))
        state = loaded.signatures["decode_step"](token_ids=stepped[-1], **state)
    np.testing.assert_array_equal(np.stack(stepped, axis=1), generated)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"max_new_tokens": 10**9}, "max_new_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 2.0}, "top_p"),
    ],
)
def test_the_export_refuses_what_python_refuses(loaded, values, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.signatures["generate"](
            prompt=tf.constant(["a"]), stop=tf.constant([[""]]), **knobs(1, **values)
        )


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("serving_default", {"prompt": ["x" * 65]}, "at most 64 tokens"),
        ("score", {"prompt": ["x" * 60], "completion": ["x" * 5]}, "at most 64"),
        ("score", {"prompt": ["x"], "completion": ["x", "y"]}, "completion"),
        ("prefill", {"token_ids": [[300]], "lengths": [1], "capacity": [4]}, "ids"),
        ("prefill", {"token_ids": [[-1]], "lengths": [1], "capacity": [4]}, "ids"),
        ("prefill", {"token_ids": [[1]], "lengths": [2], "capacity": [4]}, "lengths"),
        ("prefill", {"token_ids": [[1]], "lengths": [0], "capacity": [4]}, "lengths"),
        ("prefill", {"token_ids": [[1]], "lengths": [1], "capacity": [65]}, "capac"),
        (
            "prefill",
            {"token_ids": [[1]], "lengths": [1], "capacity": [2**31 - 1]},
            "capacity",
        ),
    ],
)
def test_requests_out_of_range_are_refused(loaded, signature, inputs, message):
    feed = {name: tf.constant(value) for name, value in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.signatures[signature](**feed)


def test_a_batch_of_none_and_an_empty_prompt_are_answered(loaded):
    nothing = loaded.signatures["serving_default"](prompt=tf.zeros([0], tf.string))
    assert nothing["text"].shape == [0]
    empty = loaded.signatures["serving_default"](prompt=tf.constant([""]))
    assert empty["text"].shape == [1]
    broken = loaded.signatures["serving_default"](prompt=tf.constant([b"\xff\xfe\0a"]))
    broken["text"].numpy()[0].decode()


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_batch_of_none_is_answered_by_every_signature(loaded, name):
    _, specs = loaded.signatures[name].structured_input_signature
    # Unknown sizes are 0, the number of columns too; a state has its own.
    nothing = {
        key: tf.zeros([size or 0 for size in spec.shape], spec.dtype)
        for key, spec in specs.items()
    }
    for value in loaded.signatures[name](**nothing).values():
        assert value.shape[0] == 0


def test_an_existing_or_unnumbered_folder_is_refused(model, folder, tmp_path):
    tokenizer = tokenizers.ByteTokenizer()
    with pytest.raises(FileExistsError, match="never over an existing"):
        export.export(model, tokenizer, folder)
    for name in ("latest", "1.5", "-1", "²"):
        with pytest.raises(ValueError, match="version number"):
            export.export(model, tokenizer, tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("proof_from_a_fork")
def test_a_different_answer_fails_the_proof(model, folder, monkeypatch):
    score = ("score", {"prompt": ["a"], "completion": ["b"]})
    monkeypatch.setattr(export.LanguageModelServable, "cases", lambda *_: [score])
    monkeypatch.setattr(verify_lib, "_warm_up", lambda _: [])
    other = keras.models.clone_model(model)
    other.config = model.config
    with pytest.raises(export.VerificationError, match="`score` differs in `log_prob`"):
        export.verify(folder, other, tokenizers.ByteTokenizer())


def answers_of(folder):
    with verify_lib.FreshProcess() as stranger:
        stranger.load(folder)
        stranger.ask("score", {"prompt": ["a"] * 50_000})  # More than a pipe holds.
        return stranger.answers()


def test_the_fresh_process_cannot_import_this_package(tmp_path, monkeypatch):
    (tmp_path / "keras_llm.py").touch()
    stub = "import keras_llm\nprint('ANSWERS [1]')"
    (tmp_path / "tensorflow.py").write_text(stub)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(export.VerificationError, match="keras_llm must not be needed"):
        answers_of(tmp_path)


def test_the_fresh_process_finds_libraries_where_this_one_does(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("print('ANSWERS [1]')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert answers_of(tmp_path) == [1]


def test_a_failed_proof_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*_):
        raise export.VerificationError("differs")

    monkeypatch.setattr(writer, "_save", lambda *rest: rest[-1].mkdir())
    monkeypatch.setattr(writer, "verify_export", fail)
    with pytest.raises(export.VerificationError):
        export.export(model, tokenizers.ByteTokenizer(), tmp_path / "1")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
    ],
)
def test_a_full_disk_is_named_and_leaves_nothing(model, tmp_path, monkeypatch, error):
    def full(_, folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"half")
        raise error

    monkeypatch.setattr(writer, "_save", full)
    with pytest.raises(DiskFullError, match="[0-9,]+ bytes are needed.*/1'"):
        export.export(model, tokenizers.ByteTokenizer(), tmp_path / "1")
    assert os.listdir(tmp_path) == []


def test_a_forbidden_op_is_named_and_leaves_nothing(model, tmp_path, monkeypatch):
    def with_python(text):
        python = tf.py_function(lambda value: value, [text], tf.string)
        return {"text": tf.ensure_shape(python, [None])}

    echo = {"echo": (with_python, {"text": tf.TensorSpec([None], tf.string)})}
    monkeypatch.setattr(export.LanguageModelServable, "functions", lambda _: echo)
    with pytest.raises(allowed_ops.ForbiddenGraphError, match="EagerPyFunc"):
        export.export(model, tokenizers.ByteTokenizer(), tmp_path / "1")
    assert os.listdir(tmp_path) == []


def test_no_string_op_is_behind_the_signature_for_other_runtimes(loaded):
    graph = loaded.signatures["generate_ids"].graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert {"StatelessWhile", "While"} & {node.op for node in nodes}
    reading_strings = {
        node.op
        for node in nodes
        if node.op not in ("Const", "Assert")
        and tf.string.as_datatype_enum in [v.type for v in node.attr.values()]
    }
    assert reading_strings == set()
