"""Masked rows: shares against binomial bounds, whole words, workers and epochs."""

import math

import numpy as np
import pytest

from keras_llm import data, tokenizers

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
V, P = 97, 23  # Ids, and places of a row without its frame.
# Every third piece goes on with a word.
PIECES = [("##" if i % 3 == 0 else "") + f"w{i}" for i in range(V - len(SPECIAL))]


@pytest.fixture(scope="module")
def pieces():
    return tokenizers.WordPieceTokenizer([*SPECIAL, *PIECES])


def rows_of(seed, rows, special_share=0.1):
    """Returns rows of random ids, some of them special, all of them real."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, V, (rows, P))
    special = rng.random(ids.shape) < special_share
    ids[special] = rng.choice([UNK, SEP], special.sum())
    return {"token_ids": ids.astype("int32"), "weights": np.ones((rows, P), "float32")}


def within_binomial(count, trials, share):
    """Whether a count lies within five standard deviations of its mean."""
    return abs(count - trials * share) < 5 * math.sqrt(trials * share * (1 - share))


def test_shares_are_within_binomial_bounds(pieces):
    rows = rows_of(0, 20_000)
    masked = data.TokenMasking(pieces, 0.2)(rows, np.arange(20_000))
    real = masked["masked_positions"] >= 0
    index = np.maximum(masked["masked_positions"], 0)
    old = np.take_along_axis(masked["token_ids"], index, 1)[real]
    new = np.take_along_axis(masked["masked_ids"], index, 1)[real]
    n = len(old)
    assert within_binomial((new == MASK).sum(), n, 0.8)
    # One in 92 random ids is what was there anyhow.
    ordinary = V - len(SPECIAL)
    assert within_binomial((new == old).sum(), n, 0.1 + 0.1 / ordinary)
    others = new[(new != MASK) & (new != old)]
    assert others.min() >= len(SPECIAL)
    counts = np.bincount(others, minlength=V)[len(SPECIAL) :]
    assert all(within_binomial(c, len(others), 1 / ordinary) for c in counts)
    # Every place of a row is masked equally often; a place is special 1 in 10 times.
    candidate = rows["token_ids"] >= len(SPECIAL)
    rate = real.sum() / candidate.sum()
    at = np.bincount(masked["masked_positions"][real] - 1, minlength=P)
    for count, trials in zip(at, candidate.sum(0), strict=True):
        assert within_binomial(count, trials, rate)


@pytest.mark.parametrize("whole_words", [False, True])
def test_only_masked_places_change_and_none_is_special(pieces, whole_words):
    rows = rows_of(1, 503)
    masking = data.TokenMasking(pieces, 0.15, whole_words=whole_words)
    masked = masking(rows, np.arange(503))
    assert {name: (a.shape, a.dtype.name) for name, a in masked.items()} == {
        "token_ids": ((503, P + 2), "int32"),
        "masked_ids": ((503, P + 2), "int32"),
        "masked_positions": ((503, 3), "int32"),  # round(0.15 * 23)
        "lengths": ((503,), "int32"),
        "weights": ((503, 3), "float32"),
    }
    changed = masked["token_ids"] != masked["masked_ids"]
    for r in range(503):
        positions = [p for p in masked["masked_positions"][r].tolist() if p >= 0]
        assert positions == sorted(set(positions))
        assert set(np.flatnonzero(changed[r]).tolist()) <= set(positions)
        assert (masked["token_ids"][r, positions] > MASK).all()
        assert masked["weights"][r].sum() == len(positions)
        assert masked["token_ids"][r, 1:-1].tolist() == rows["token_ids"][r].tolist()
        n = int((rows["token_ids"][r] > MASK).sum())
        number = max(1, math.floor(0.15 * n + 0.5))
        assert len(positions) <= number if whole_words else len(positions) == number
    assert (masked["token_ids"][:, 0] == CLS).all()
    assert (masked["token_ids"][:, -1] == SEP).all()


def test_whole_words_are_masked_in_all_their_parts(pieces):
    rows = rows_of(2, 701)
    masked = data.TokenMasking(pieces, 0.3, whole_words=True)(rows, np.arange(701))
    split = 0
    for ids, positions in zip(
        rows["token_ids"], masked["masked_positions"] - 1, strict=True
    ):
        words, before = [], None
        for place, number in enumerate(ids.tolist()):
            ordinary = number > MASK
            goes_on = ordinary and PIECES[number - 5].startswith("##")
            if goes_on and before:
                words[-1].add(place)
            elif ordinary:
                words.append({place})
            before = ordinary
        chosen = set(positions[positions >= 0].tolist())
        assert chosen
        for word in words:
            assert word <= chosen or not word & chosen
            split += len(word) > 1 and word <= chosen
        room = max(1, math.floor(0.3 * sum(map(len, words)) + 0.5)) - len(chosen)
        assert all(len(word) > room for word in words if not word & chosen)
    assert split > 100


def test_a_row_seen_again_is_masked_differently(pieces):
    rows = rows_of(3, 101)
    masking = data.TokenMasking(pieces)
    first, again, later = (
        masking(rows, np.arange(101) + epoch * 101) for epoch in (0, 0, 1)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    same = (first["masked_positions"] == later["masked_positions"]).all(1)
    assert same.mean() < 0.05
    other = data.TokenMasking(pieces, seed=1)(rows, np.arange(101))
    same = (first["masked_positions"] == other["masked_positions"]).all(1)
    assert same.mean() < 0.05


def test_short_rows_are_framed_where_they_end_and_padding_is_empty(pieces):
    rows = rows_of(4, 3, special_share=0)
    rows["weights"][1, 4:] = 0  # Five real ids: the first, and four behind it.
    rows["weights"][2] = 0
    masked = data.TokenMasking(pieces, 0.15)(rows, np.arange(3))
    assert masked["lengths"].tolist() == [P + 2, 7, 0]
    wanted = [CLS, *rows["token_ids"][1, :5], SEP] + [PAD] * (P - 5)
    assert masked["token_ids"][1].tolist() == wanted
    assert masked["weights"].sum(1).tolist() == [3, 1, 0]
    assert 1 <= masked["masked_positions"][1, 0] <= 5
    assert (masked["masked_ids"][2] == PAD).all()


def stream(length=401):
    ids = np.random.default_rng(5).integers(5, V, length).astype(np.uint16)
    return data.MemoryTokens(ids, data.TokenCounts(length, 1, length, "sha"), SEP)


def test_workers_resumed_runs_and_datasets_agree(pieces):
    config = data.DataConfig(context=P, batch_size=6, seed=3)
    masking = data.TokenMasking(pieces, seed=3, whole_words=True)
    alone = data.TrainingBatches(stream(), config, transform=masking)
    shared = [data.TrainingBatches(stream(), config, 3, w, masking) for w in range(3)]
    whole = [next(alone) for _ in range(9)]  # Three epochs.
    for batch in whole:
        parts = [next(batches) for batches in shared]
        for name, array in batch.items():
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(array, joined)
    resumed = data.TrainingBatches(stream(), config, transform=masking)
    resumed.advance(5)
    position = resumed.position()
    resumed = data.TrainingBatches(stream(), config, transform=masking)
    resumed.restore(position)
    mapped = list(resumed.as_dataset().take(2).as_numpy_iterator())
    for number, from_dataset in zip((5, 6), mapped, strict=True):
        batch = next(resumed)
        for name, array in batch.items():
            np.testing.assert_array_equal(array, whole[number][name])
            np.testing.assert_array_equal(array, from_dataset[name])


def test_byte_level_words_begin_at_white_space_and_the_end_id_frames():
    alphabet = [bytes([b]) for b in range(256)]
    tokenizer = tokenizers.ByteBPETokenizer(
        [*alphabet, b" w", b"", b""], [(b" ", b"w")], {"end": 257, "mask": 258}
    )
    ids = tokenizer.encode("x whale, wet").numpy()[None]
    rows = {"token_ids": ids, "weights": np.ones(ids.shape, "float32")}
    masking = data.TokenMasking(tokenizer, 0.3, whole_words=True)
    masked = masking(rows, np.arange(1))
    assert masked["token_ids"][0, [0, -1]].tolist() == [257, 257]
    found = {
        bytes(tokenizer.decode(ids[0][p[p >= 0] - 1]).numpy())
        for number in range(40)
        for p in masking(rows, np.array([number]))["masked_positions"]
    }
    # Three of ten tokens: " whale," is too long, "x" and " wet" fit alone.
    assert found == {b"x", b" wet"}


def test_a_text_without_spaces_is_masked_token_by_token():
    """Else a row of one long word would teach nothing, and say nothing of it."""
    alphabet = [bytes([b]) for b in range(256)]
    tokenizer = tokenizers.ByteBPETokenizer(
        [*alphabet, b"", b""], [], {"end": 256, "mask": 257}
    )
    ids = np.stack(
        [tokenizer.encode(text).numpy() for text in ("abcdefghij", "k l" * 3 + "m")]
    )
    rows = {"token_ids": ids, "weights": np.ones(ids.shape, "float32")}
    masking = data.TokenMasking(tokenizer, 0.3, whole_words=True)
    masked = masking(rows, np.arange(2))
    assert masked["weights"].sum(axis=1).tolist() == [3, 3]
    plain = data.TokenMasking(tokenizer, 0.3)(rows, np.arange(2))
    np.testing.assert_array_equal(
        masked["masked_positions"][0], plain["masked_positions"][0]
    )


@pytest.mark.parametrize(
    "choices, said",
    [
        ({"mask_rate": 0.0}, r"`mask_rate` must be above 0.*mask_rate=0\.0"),
        ({"mask_rate": math.nan}, "mask_rate=nan"),
        ({"mask_share": 0.8, "random_share": 0.3}, r"random_share=0\.3"),
        ({"random_share": math.nan}, "random_share=nan"),
    ],
)
def test_shares_out_of_range_are_refused(pieces, choices, said):
    with pytest.raises(ValueError, match=said):
        data.TokenMasking(pieces, **choices)


def test_a_tokenizer_without_a_mask_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="kind 'byte'.*tokenizer.kind='wordpiece'"):
        data.TokenMasking(tokenizers.ByteTokenizer())
