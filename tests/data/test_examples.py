import gzip
import json

import numpy as np
import pytest

from keras_llm import data
from keras_llm.data import DataConfig, DataError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def encoded(size=7, width=3):
    ids = np.arange(size * width, dtype="int32").reshape(size, width)
    return data.EncodedExamples({"token_ids": ids, "weights": np.ones(size, "float32")})


def test_lines_of_plain_and_packed_files_are_read_in_order(tmp_path):
    rows = [{"text": f"文 {i}", "label": i} for i in range(3)]
    write(tmp_path / "a.jsonl", rows[:2])
    packed = gzip.compress(json.dumps(rows[2]).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    found = data.read_examples(tmp_path, {"text": str, "label": int})
    assert list(found) == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', r"a\.jsonl:2: 3"),
        ('{"txt": "a"}', "no such member; its members are 'txt'"),
        ("[1]", r"must be an object. Received at .*:2"),
        ("{", r"must be JSON. Received at .*:2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "ok"}}\n{line}\n')
    with pytest.raises(DataError, match=message):
        list(data.read_examples(tmp_path, {"text": str}))


def test_other_files_are_no_examples(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"JSON lines.*a\.txt"):
        list(data.read_examples(tmp_path / "a.txt", {}))


def test_a_share_is_held_back_evenly():
    examples = [{"label": i * 2 // 50} for i in range(50)]
    train, valid = data.split_examples(examples, DataConfig(valid_fraction=0.1))
    assert len(train) == 45
    assert [e["label"] for e in valid] == [0, 0, 1, 1, 1]
    for few, fraction in ((examples, 0.0), (examples[:5], 0.1)):
        with pytest.raises(DataError, match="valid"):
            data.split_examples(few, DataConfig(valid_fraction=fraction))


def test_every_epoch_shows_every_example_in_another_order():
    batches = data.ExampleBatches(encoded(7), DataConfig(batch_size=2, seed=3))
    rows = np.concatenate([next(batches)["token_ids"][:, 0] for _ in range(7)]) // 3
    epochs = rows.reshape(2, 7)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0].tolist() != epochs[1].tolist()
    assert batches.batches_per_epoch == 3.5 and batches.position()["epoch"] == 2


def test_workers_share_the_batches_and_positions_are_restored():
    config = DataConfig(batch_size=6, shuffle=True)
    whole = data.ExampleBatches(encoded(11), config)
    parts = [data.ExampleBatches(encoded(11), config, 3, w) for w in range(3)]
    for _ in range(4):
        rows = np.concatenate([next(part)["token_ids"] for part in parts])
        np.testing.assert_array_equal(next(whole)["token_ids"], rows)
    again = data.ExampleBatches(encoded(11), config)
    again.restore(json.loads(json.dumps(whole.position())))
    np.testing.assert_array_equal(next(again)["token_ids"], next(whole)["token_ids"])
    with pytest.raises(DataError, match="another order|other text|same text"):
        data.ExampleBatches(encoded(12), config).restore(whole.position())


def test_a_transform_sees_each_row_under_a_number_of_its_own():
    seen = []

    def note(batch, numbers):
        seen.append(numbers.tolist())
        return {**batch, "numbers": numbers}

    config = DataConfig(batch_size=4)
    batches = data.ExampleBatches(encoded(5), config, 2, 1, note)
    next(batches), next(batches)
    assert seen == [[2, 3], [6, 7]]
    dataset = batches.as_dataset()
    assert next(iter(dataset))["numbers"].numpy().tolist() == [10, 11]


def test_validation_shows_every_example_once_and_fills_up_with_weight_0():
    batches = data.ValidationExamples(encoded(7), DataConfig(batch_size=3))
    assert len(batches) == 3
    weights = np.concatenate([b["weights"] for b in batches])
    assert weights.tolist() == [1] * 7 + [0] * 2
    ids = np.concatenate([b["token_ids"] for b in batches])[:7]
    np.testing.assert_array_equal(ids, encoded(7).arrays["token_ids"])
    assert next(iter(batches))["weights"].tolist() == [1, 1, 1]  # Nothing is shared.


def test_arrays_must_belong_together():
    ids = np.zeros((2, 3), "int32")
    with pytest.raises(ValueError, match="equally many rows"):
        data.EncodedExamples({"token_ids": ids})
    with pytest.raises(ValueError, match="equally many rows"):
        data.EncodedExamples({"token_ids": ids, "weights": np.ones(3, "float32")})
    with pytest.raises(DataError, match="At least one example"):
        data.EncodedExamples({"weights": np.ones(0, "float32")})
