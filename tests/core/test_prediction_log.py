import numpy as np
import pytest
import tensorflow as tf

from keras_llm.core.prediction_log import (
    MAX_RECORDS,
    WarmupRequest,
    read_warmup,
    write_warmup,
)

REQUEST = (
    "generate",
    {
        "prompt": np.array([b"a", b"\xff"], object),
        "stop": np.array([[b"x", b""], [b"", b""]], object),
        "temperature": np.array([0.5, 1.0], np.float32),
        "seed": np.array([-1, 2**40]),
    },
)
# `PredictionLog.SerializeToString(deterministic=True)` of tensorflow-serving-api
# 2.21.0 for the same request.
PUBLISHED = bytes.fromhex(
    "328f010a8c010a0a1a0867656e657261746512180a0670726f6d7074120e080712041202"
    "08024201614201ff12220a0473656564121a08091204120208022210ffffffffffffffff"
    "0000000000010000121d0a0473746f701215080712081202080212020802420178420042"
    "00420012210a0b74656d70657261747572651212080112041202080222080000003f0000"
    "803f"
)


def assert_same(request, expected):
    assert request.signature_name == expected[0]
    assert request.inputs.keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_array_equal(request.inputs[name], value)
        assert request.inputs[name].dtype == value.dtype


def test_bytes_are_those_of_tf_servings_own_package(tmp_path):
    path = tmp_path / "assets.extra" / "requests"
    write_warmup(path, [REQUEST, REQUEST])
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert records == [PUBLISHED, PUBLISHED]


def test_reads_what_it_writes(tmp_path):
    path = tmp_path / "requests"
    write_warmup(path, [REQUEST, ("", {"x": np.float32([1, 2])})])
    first, second = read_warmup(path)
    assert isinstance(first, WarmupRequest)
    assert_same(first, REQUEST)
    assert_same(second, ("", {"x": np.float32([1, 2])}))


def test_fields_it_does_not_know_are_passed_over(tmp_path):
    path = tmp_path / "requests"
    # log_metadata (field 1), with a sampling rate, before the request.
    extra = bytes.fromhex("0a0912070d0000003f1001")
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(extra + PUBLISHED)
    assert_same(read_warmup(path)[0], REQUEST)


def test_too_many_records(tmp_path):
    path = tmp_path / "requests"
    request = ("", {"x": np.float32([1])})
    write_warmup(path, [request] * MAX_RECORDS)
    assert len(read_warmup(path)) == MAX_RECORDS
    with pytest.raises(ValueError, match="1,000"):
        write_warmup(path, [request] * (MAX_RECORDS + 1))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(MAX_RECORDS + 1):
            writer.write(PUBLISHED)
    with pytest.raises(ValueError, match="more than 1,000"):
        read_warmup(path)


@pytest.mark.parametrize(
    "record", [b"\x12\x02\x0a\x00", b"", b"\xff\xff", PUBLISHED[:-3]]
)
def test_records_that_are_no_predict_requests(tmp_path, record):
    path = tmp_path / "requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)
    with pytest.raises(ValueError, match="record 0"):
        read_warmup(path)


def test_a_damaged_file(tmp_path):
    path = tmp_path / "requests"
    write_warmup(path, [REQUEST])
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_warmup(path)
    with pytest.raises(FileNotFoundError):
        read_warmup(tmp_path / "absent")
