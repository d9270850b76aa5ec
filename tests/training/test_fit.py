"""Keras' own `compile` and `fit` keep working on one device."""

import keras
import numpy as np
import pytest

from keras_llm import models, training
from tests.eager_functions import op_by_op
from tests.training.conftest import small_model

V, T = 13, 7


def test_fit_learns_to_copy_compiled_by_xla():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, V, (64, T)).astype("int32")
    model = small_model(V, width=16)
    model.compile(
        optimizer=keras.optimizers.AdamW(0.03),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
        jit_compile=True,
    )
    history = model.fit(ids, ids, batch_size=16, epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["accuracy"][-1] > 0.9


def test_fit_trains_what_the_loop_saved(tmp_path, experiment, texts):
    shorter = experiment.replace(train=experiment.train.replace(steps=2))
    with op_by_op():
        summary = training.train(shorter, *texts, tmp_path / "run", progress=False)
    model = models.load(tmp_path / "run" / "last")
    tokenizer = models.load_tokenizer(tmp_path / "run" / "last")
    ids = tokenizer.encode(texts[0].read_text()[:500]).numpy()[:490].reshape(-1, 10)
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    before = model.evaluate(ids[:, :-1], ids[:, 1:], verbose=0)
    assert before == pytest.approx(summary.validation.nats_per_token, abs=0.5)
    model.fit(ids[:, :-1], ids[:, 1:], epochs=3, verbose=0)
    assert model.evaluate(ids[:, :-1], ids[:, 1:], verbose=0) < before


@pytest.mark.parametrize(
    "clip", [{"global_clipnorm": 1.0}, {"clipnorm": 0.5}, {"clipvalue": 0.5}]
)
def test_fit_refuses_to_clip(clip):
    model = small_model(V, width=16)
    (name,) = clip
    with pytest.raises(ValueError, match=f"clip.*equal tokens.*{name}.*train.clip_n"):
        model.compile(keras.optimizers.AdamW(0.03, **clip), loss="mse")
    assert not model.compiled


def test_fit_refuses_several_replicas(two_replicas):
    with two_replicas.scope():
        model = small_model(V, width=16)
        with pytest.raises(ValueError, match="one device.*MirroredStrategy with 2"):
            model.compile("adam", loss="mse")


def test_fit_refuses_a_distribution_that_this_backend_ignores():
    model = small_model(V, width=16)
    mesh = keras.distribution.DeviceMesh((1,), ["batch"], ["cpu:0"])
    keras.distribution.set_distribution(keras.distribution.DataParallel(mesh))
    try:
        with pytest.raises(ValueError, match="unsharded.*JAX"):
            model.compile("adam", loss="mse")
    finally:
        keras.distribution.set_distribution(None)


def test_a_model_in_keras_own_file_is_itself_again(tmp_path):
    model = small_model(V, width=16)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    ids = np.arange(T)[None]
    np.testing.assert_array_equal(again(ids), model(ids))
    again.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="clip"):
        again.compile(keras.optimizers.Adam(clipnorm=1.0), loss="mse")
