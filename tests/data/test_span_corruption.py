import types

import numpy as np
import pytest

from keras_llm import data
from keras_llm.data import span_corruption

P, END, SENTINELS = 37, 1, tuple(range(99, 79, -1))
TOKENIZER = types.SimpleNamespace(special_ids={"end": END}, sentinel_ids=SENTINELS)


def corrupted(rows=5, numbers=None, **options):
    made = data.SpanCorruption(TOKENIZER, P, start_id=7, **options)
    ids = np.random.default_rng(3).integers(10, 70, (rows, P)).astype("int32")
    weights = np.ones((rows, P), "float32")
    numbers = np.arange(rows) if numbers is None else numbers
    return ids, made, made({"token_ids": ids, "weights": weights}, numbers)


def spoken(source, target):
    """Returns the text: every sentinel of the source by what the target says of it."""
    spans, current = {}, None
    for token in target:
        if token in SENTINELS:
            spans[token] = current = []
        elif token != END:
            current.append(token)
    text = []
    for token in source:
        text += spans.pop(token) if token in SENTINELS else [token]
    assert not spans
    return text[:-1]  # Its end token.


@pytest.mark.parametrize("options", [{}, {"rate": 0.5, "mean_length": 1.0}])
def test_source_and_target_together_are_the_text(options):
    ids, made, batch = corrupted(**options)
    assert batch["source_ids"].shape == (5, made.source_length)
    assert batch["targets"].shape == (5, made.target_length)
    for row, source, target in zip(
        ids, batch["source_ids"], batch["targets"], strict=True
    ):
        assert spoken(source.tolist(), target.tolist()) == row.tolist()
        used = [token for token in target.tolist() if token in SENTINELS]
        assert used == list(SENTINELS[: made.num_spans])  # In order, each once.
        assert source[0] not in SENTINELS and target[-1] == END == source[-1]


def test_the_decoder_reads_the_target_one_place_later():
    _, _, batch = corrupted()
    np.testing.assert_array_equal(batch["token_ids"][:, 1:], batch["targets"][:, :-1])
    assert set(batch["token_ids"][:, 0]) == {7}


def test_every_way_of_cutting_is_equally_likely():
    made = data.SpanCorruption(TOKENIZER, 12, rate=0.5, mean_length=2.0)
    assert (made.num_noise, made.num_spans) == (6, 3)
    noise = made._noise(np.arange(4_000))
    runs = {}
    for row in noise.tolist():
        runs[tuple(row)] = runs.get(tuple(row), 0) + 1
    # C(5, 2) ways to cut what is kept, times as many for what is cut out.
    assert len(runs) == 100
    assert 10 < min(runs.values()) and max(runs.values()) < 75


def test_chance_hangs_on_seed_and_number_alone():
    ids, made, batch = corrupted(rows=6)
    weights = np.ones((2, P), "float32")
    part = made({"token_ids": ids[4:], "weights": weights}, np.array([4, 5]))
    for name, value in part.items():
        np.testing.assert_array_equal(value, batch[name][4:])
    _, _, later = corrupted(rows=6, numbers=np.arange(6) + 600)
    _, _, other = corrupted(rows=6, seed=1)
    for changed in (later, other):
        assert (changed["source_ids"] != batch["source_ids"]).any(axis=1).all()


def test_a_row_that_is_not_full_counts_for_nothing():
    made = data.SpanCorruption(TOKENIZER, P)
    weights = np.ones((2, P), "float32")
    weights[1, -1] = 0
    ids = np.full((2, P), 11, "int32")
    batch = made({"token_ids": ids, "weights": weights}, np.arange(2))
    assert batch["weights"].sum(axis=1).tolist() == [made.target_length, 0]


@pytest.mark.parametrize("context", [3, 4, 17, 64])
def test_the_longest_row_that_fits_is_taken(context):
    tokens = span_corruption.row_tokens(context, 0.15, 3.0)

    def source_length(num_tokens):
        noise, count = span_corruption.spans(num_tokens, 0.15, 3.0)
        return num_tokens - noise + count + 1

    assert source_length(tokens) <= context < source_length(tokens + 1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="20 sentinels, 37 spans"):
        data.SpanCorruption(TOKENIZER, 75, rate=0.5, mean_length=1.0)
    plain = types.SimpleNamespace(special_ids={"end": END})
    with pytest.raises(ValueError, match="0 sentinels.*extra_ids"):
        data.SpanCorruption(plain, P)
    for rate, length in ((1.0, 3.0), (float("nan"), 3.0), (0.15, 0.5)):
        with pytest.raises(ValueError, match="`rate` must be above 0"):
            span_corruption.spans(P, rate, length)
    with pytest.raises(data.DataError, match="data.context=2"):
        span_corruption.row_tokens(2, 0.15, 3.0)
