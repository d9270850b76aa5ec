import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_llm.serving.errors import RequestError
from keras_llm.serving.replies import float_texts, predict_reply

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3)


def read(outputs, row_format):
    return json.loads(predict_reply(outputs, row_format))


@given(array=arrays.arrays(np.int32, SHAPES))
def test_arrays_of_any_shape_are_nested_lists(array):
    assert read({"y": array}, row_format=False) == {"outputs": array.tolist()}
    assert read({"y": array}, row_format=True) == {"predictions": array.tolist()}


@given(rows=st.integers(0, 3), first=SHAPES, second=SHAPES)
def test_rows_of_several_outputs_are_objects(rows, first, second):
    a = np.arange(rows * np.prod(first)).reshape(rows, *first)
    b = np.full((rows, *second), "é".encode(), object)
    expected = [
        {"a": a[i].tolist(), "b": np.full(second, "é").tolist()} for i in range(rows)
    ]
    assert read({"b": b, "a": a}, row_format=True) == {"predictions": expected}


@given(
    values=arrays.arrays(np.float32, 5) | arrays.arrays(np.float64, 5),
)
def test_floats_read_back_as_they_were(values):
    read_back = np.array([float(text) for text in float_texts(values)], values.dtype)
    np.testing.assert_array_equal(read_back, values)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (123456.0, "123456.0"),
        (1234567.0, "1234567.0"),
        (9e6, "9e+06"),
        (3e-5, "3e-05"),
        (1 / 3, "0.333333343"),
        (3.4028235e38, "3.40282347e+38"),
        (1e-45, "1.4013e-45"),
        (np.nan, "NaN"),
        (-np.inf, "-Infinity"),
    ],
)
def test_float32_as_tf_serving_writes_it(value, text):
    assert float_texts(np.float32([value])) == [text]


def test_float64_has_up_to_17_digits():
    texts = float_texts(np.array([0.1, 1 / 3, 2**53]))
    assert texts == ["0.1", "0.33333333333333331", "9007199254740992.0"]


def test_a_scalar_is_a_column_and_no_row():
    assert read({"y": np.float32(2)}, row_format=False) == {"outputs": 2.0}
    with pytest.raises(RequestError, match="batches of one size"):
        predict_reply({"y": np.float32(2)}, row_format=True)


def test_what_json_cannot_say_is_refused():
    for dtype in (np.float16, np.complex64):
        with pytest.raises(RequestError, match="cannot be written"):
            predict_reply({"y": np.zeros(1, dtype)}, row_format=False)
    with pytest.raises(RequestError, match="no outputs"):
        predict_reply({}, row_format=False)
