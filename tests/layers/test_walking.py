"""Layers within layers, found wherever they are held."""

import keras
import numpy as np

from keras_llm import layers
from keras_llm.layers.walking import sublayers


def names(layer):
    return [found.name for found in sublayers(layer)]


class Holder(keras.layers.Layer):
    """Holds layers in every kind of container, one of them twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one = keras.layers.Dense(2, name="one")
        self.listed = [keras.layers.ReLU(name="listed"), self.one]
        self.by_name = {"a": [keras.layers.ReLU(name="by_name")], "b": 3}
        self.pair = (None, keras.layers.ReLU(name="pair"))

    def build(self, x_shape):
        self.one.build(x_shape)

    def call(self, x):
        return self.pair[1](self.one(x))


def test_every_container_is_searched_and_each_layer_is_found_once():
    assert names(Holder(name="holder")) == [
        "holder",
        "one",
        "listed",
        "by_name",
        "pair",
    ]


def test_models_within_models():
    symbol = keras.Input((3, 4), name="inner_input")
    inner = keras.Model(symbol, Holder(name="holder")(symbol), name="inner")
    symbol = keras.Input((3, 4), name="input")
    outer = keras.Sequential([symbol, inner, keras.layers.ReLU(name="last")])
    outer.name = "outer"
    found = names(outer)
    assert found[0] == "outer" and found[-1] == "last"
    assert len(found) == len(set(found))
    assert {"inner", "holder", "one", "pair"} <= set(found)


def test_what_build_makes_is_found_once_built():
    block = layers.DecoderBlock(3, 7, dropout=0.1)
    assert names(block) == [block.name]
    block(np.ones((1, 2, 12), "float32"))
    kinds = [type(layer).__name__ for layer in sublayers(block)]
    assert kinds.count("Linear") == 4
    assert kinds.count("Dropout") == 4  # One within the feed-forward.
    assert kinds.count("LayerNorm") == 2
    weights = {id(w) for layer in sublayers(block) for w in layer.weights}
    assert weights == {id(w) for w in block.weights}
