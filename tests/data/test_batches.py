"""Rows, their order, resuming and sharing among workers."""

import json

import numpy as np
import pytest

from keras_llm import data


def store(length, separator_id=0):
    """A stream in which each token is its own place: 0, 1, 2, …."""
    counts = data.TokenCounts(length, 1, length - 1, f"sha-{length}")
    return data.MemoryTokens(np.arange(length, dtype=np.uint32), counts, separator_id)


def config(**changes):
    fields = {"context": 5, "batch_size": 6, "seed": 3} | changes
    return data.DataConfig(**fields)


def epoch_rows(batches, rows_per_epoch):
    """Rows of one epoch as (first id, weights' sum), from batches in order."""
    rows = []
    while len(rows) < rows_per_epoch:
        batch = next(batches)
        rows += list(
            zip(batch["token_ids"], batch["targets"], batch["weights"], strict=True)
        )
    return rows[:rows_per_epoch]


@pytest.mark.parametrize("length", [6, 7, 11, 61, 62, 64, 500])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_predicts_every_token_once(length, shuffle):
    batches = data.TrainingBatches(store(length), config(shuffle=shuffle))
    rows = epoch_rows(batches, -(-(length - 1) // 5))
    predicted = []
    for ids, targets, weights in rows:
        real = weights > 0
        np.testing.assert_array_equal(targets[real], ids[real] + 1)
        predicted += targets[real].tolist()
    assert sorted(predicted) == list(range(1, length))
    if not shuffle:
        assert predicted == list(range(1, length))


def test_batches_have_the_stated_types_and_shapes():
    batch = next(data.TrainingBatches(store(100), config()))
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
        "token_ids": ((6, 5), "int32"),
        "targets": ((6, 5), "int32"),
        "weights": ((6, 5), "float32"),
    }


def test_every_epoch_has_an_order_of_its_own():
    batches = data.TrainingBatches(store(101), config(batch_size=4))
    epochs = [
        tuple(int(ids[0]) for ids, _, _ in epoch_rows(batches, 20)) for _ in range(3)
    ]
    assert len(set(epochs)) == 3
    assert all(sorted(epoch) == list(range(0, 100, 5)) for epoch in epochs)


@pytest.mark.parametrize("sampling", ["rows", "windows", "streams"])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_workers_share_the_batches_of_one(sampling, num_workers):
    settings = config(sampling=sampling, shuffle=sampling != "streams")
    alone = data.TrainingBatches(store(333), settings)
    shared = [
        data.TrainingBatches(store(333), settings, num_workers, worker)
        for worker in range(num_workers)
    ]
    for _ in range(30):
        whole, slices = next(alone), [next(batches) for batches in shared]
        for name, array in whole.items():
            np.testing.assert_array_equal(
                array, np.concatenate([part[name] for part in slices])
            )


@pytest.mark.parametrize("sampling", ["rows", "windows", "streams"])
def test_resuming_is_exact_at_every_position(sampling):
    settings = config(sampling=sampling, shuffle=sampling != "streams")
    batches = data.TrainingBatches(store(333), settings)
    positions, seen = [], []
    for _ in range(60):
        positions.append(json.dumps(batches.position()))
        seen.append(next(batches)["targets"])
    for taken, text in enumerate(positions):
        resumed = data.TrainingBatches(store(333), settings)
        resumed.restore(json.loads(text))
        assert resumed.position() == json.loads(text)
        for expected in seen[taken : taken + 3]:
            np.testing.assert_array_equal(next(resumed)["targets"], expected)


def test_a_run_goes_on_with_another_number_of_workers():
    alone = data.TrainingBatches(store(333), config())
    for _ in range(17):
        next(alone)
    second = data.TrainingBatches(store(333), config(), num_workers=2, worker=1)
    second.restore(alone.position())
    np.testing.assert_array_equal(
        next(second)["token_ids"], next(alone)["token_ids"][3:]
    )


def test_the_position_tells_the_epoch():
    batches = data.TrainingBatches(store(101), config(batch_size=6))  # 20 rows.
    epochs = []
    for _ in range(8):
        epochs.append(batches.position()["epoch"])
        next(batches)
    assert epochs == [0, 0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"context": 4}, "context=5, now context=4"),
        ({"batch_size": 12}, "batch_size"),
        ({"seed": 4}, "seed"),
        ({"shuffle": False}, "shuffle"),
        ({"sampling": "windows"}, "sampling"),
    ],
)
def test_a_position_of_another_order_is_refused(changes, name):
    position = data.TrainingBatches(store(333), config()).position()
    other = data.TrainingBatches(store(333), config(**changes))
    with pytest.raises(data.DataError, match=name):
        other.restore(position)


def test_a_position_in_other_text_is_refused():
    position = data.TrainingBatches(store(333), config()).position()
    other = data.TrainingBatches(store(334), config())
    with pytest.raises(data.DataError, match="only for the text and tokenizer"):
        other.restore(position)


@pytest.mark.parametrize(
    "broken", [None, {}, {"batch": 1}, "batch", {"batch": -1}, {"batch": 1.5}]
)
def test_what_is_no_position_is_refused(broken):
    batches = data.TrainingBatches(store(333), config())
    if isinstance(broken, dict) and broken:
        broken = batches.position() | broken
        if broken["batch"] == 1:
            del broken["order"]
    with pytest.raises(data.DataError, match="No position"):
        batches.restore(broken)


def test_windows_begin_anywhere_and_stay_inside():
    settings = config(sampling="windows", batch_size=500)
    batches = data.TrainingBatches(store(12), settings)
    batch = next(batches)
    assert set(batch["token_ids"][:, 0].tolist()) == set(range(7))
    assert batch["targets"].max() == 11
    assert (batch["weights"] == 1).all()


def test_streams_go_on_where_the_batch_before_ended():
    settings = config(sampling="streams", shuffle=False, batch_size=3)
    batches = data.TrainingBatches(store(100), settings)
    assert batches.batches_per_epoch == 6
    before = next(batches)
    for _ in range(5):
        batch = next(batches)
        np.testing.assert_array_equal(
            batch["token_ids"][:, 0], before["targets"][:, -1]
        )
        before = batch
    np.testing.assert_array_equal(next(batches)["token_ids"][:, 0], [0, 30, 60])


@pytest.mark.parametrize("sampling", ["rows", "windows"])
def test_a_text_shorter_than_a_row_is_refused(sampling):
    data.TrainingBatches(store(6), config(sampling=sampling))
    with pytest.raises(data.DataError, match="5 tokens, 6 needed .context=5."):
        data.TrainingBatches(store(5), config(sampling=sampling))


def test_streams_need_a_row_each():
    settings = config(sampling="streams", shuffle=False)
    data.TrainingBatches(store(31), settings)
    with pytest.raises(data.DataError, match="30 tokens, 31 needed"):
        data.TrainingBatches(store(30), settings)


def test_workers_must_divide_the_batch():
    with pytest.raises(ValueError, match="batch_size=6, num_workers=4"):
        data.TrainingBatches(store(99), config(), num_workers=4)
    with pytest.raises(ValueError, match="worker=2"):
        data.TrainingBatches(store(99), config(), num_workers=2, worker=2)


@pytest.mark.parametrize("length", [2, 5, 6, 7, 30, 31, 32, 61, 200])
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_validation_predicts_every_token_once(length, num_workers, tokenizer):
    parts = [
        data.ValidationBatches(store(length), config(), tokenizer, num_workers, w)
        for w in range(num_workers)
    ]
    predicted = []
    for batches in parts:
        taken = list(batches)
        assert len(taken) == len(batches) == len(parts[0])
        for batch in taken:
            assert batch["token_ids"].shape == (6 // num_workers, 5)
            predicted += batch["targets"][batch["weights"] > 0].tolist()
    assert sorted(predicted) == list(range(1, length))
    assert parts[0].num_tokens == length - 1


def test_validation_of_one_token_is_refused(tokenizer):
    with pytest.raises(data.DataError, match="1 token"):
        data.ValidationBatches(store(1), config(), tokenizer)


def test_bytes_of_an_unpredicted_first_token_do_not_count(tokenizer):
    ids = np.array([3 + b for b in "風多".encode()], np.uint16)
    counts = data.TokenCounts(6, 1, 6, "sha")
    batches = data.ValidationBatches(
        data.MemoryTokens(ids, counts, None), config(), tokenizer
    )
    assert (batches.num_tokens, batches.num_bytes) == (5, 5)
    opened = data.MemoryTokens(np.insert(ids, 0, 2), counts, 2)
    assert data.ValidationBatches(opened, config(), tokenizer).num_bytes == 6


def test_as_dataset_gives_the_same_batches():
    batches = data.TrainingBatches(store(333), config(), num_workers=2, worker=1)
    next(batches)
    dataset = batches.as_dataset()
    assert dataset.element_spec["token_ids"].shape == (3, 5)
    for element in dataset.take(40).as_numpy_iterator():
        for name, array in next(batches).items():
            np.testing.assert_array_equal(element[name], array)


def test_advance_moves_as_taking_does():
    taken, moved = (data.TrainingBatches(store(333), config()) for _ in range(2))
    for _ in range(4):
        next(taken)
    moved.advance(4)
    assert moved.position() == taken.position()


def test_validation_as_dataset_ends(tokenizer):
    batches = data.ValidationBatches(store(200), config(), tokenizer)
    elements = list(batches.as_dataset().as_numpy_iterator())
    assert len(elements) == len(batches) == 7
    for element, batch in zip(elements, batches, strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(element[name], array)


@pytest.mark.parametrize(
    "fields",
    [
        {"context": 0},
        {"context": float("nan")},
        {"batch_size": -1},
        {"seed": -1},
        {"sampling": "random"},
        {"valid_fraction": 1.0},
        {"valid_fraction": float("nan")},
        {"unicode_form": "nfkc"},
        {"invalid_utf8": "ignore"},
        {"document_separator": ""},
        {"max_memory_bytes": 0},
        {"max_corrupt_records": -1},
        {"add_separators": False},
        {"sampling": "streams"},
        {"sampling": "windows", "shuffle": False},
    ],
)
def test_configs_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="Received"):
        data.DataConfig(**fields)


def test_the_config_travels_as_json():
    settings = config(document_separator="\n\n", sampling="windows")
    text = json.dumps(settings.to_dict())
    assert data.DataConfig.from_dict(json.loads(text)) == settings
