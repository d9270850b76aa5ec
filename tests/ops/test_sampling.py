"""Filters and draws against sorting loops in plain NumPy."""

import numpy as np
import pytest

from keras_llm.ops import sampling


def _kept_by_loop(logits, top_k, top_p, min_p):
    """Returns the set of ids that may be drawn, one token at a time."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        order = order[:top_k]
    weights = np.exp(logits[order].astype("float64") - logits.max())
    probabilities = weights / weights.sum()
    kept, mass = set(), 0.0
    for rank, token in enumerate(order):
        small = probabilities[rank] < min_p * probabilities[0]
        if rank and (small or (mass >= top_p and top_p < 1)):
            break
        kept.add(token)
        mass += probabilities[rank]
    return kept


@pytest.mark.parametrize("top_k", [0, 1, 5, 37])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.05])
@pytest.mark.parametrize("min_p", [0.0, 0.2, 1.0])
def test_cutoff_keeps_what_a_loop_keeps(top_k, top_p, min_p):
    logits = np.random.default_rng(3).normal(size=(3, 37)).astype("float32") * 2
    rows = np.ones(3, "float32")
    lowest = np.asarray(
        sampling.cutoff(
            logits, (top_k * rows).astype("int32"), top_p * rows, min_p * rows
        )
    )
    for row in range(3):
        kept = set(np.flatnonzero(logits[row] >= lowest[row]))
        assert kept == _kept_by_loop(logits[row], top_k, top_p, min_p)


def test_every_row_has_its_own_filters():
    logits = np.tile(np.array([[3.0, 2.0, 1.0, 0.0]], "float32"), (3, 1))
    lowest = sampling.cutoff(
        logits,
        np.array([2, 0, 0], "int32"),
        np.array([1, 0.1, 1], "float32"),
        np.array([0, 0, 0.1], "float32"),
    )
    np.testing.assert_array_equal(np.asarray(lowest), [2.0, 3.0, 1.0])


def test_draw_inverts_the_distribution_function():
    probabilities = np.array([[0.2, 0.0, 0.5, 0.3]], "float32")
    with np.errstate(divide="ignore"):
        logits = np.log(np.tile(probabilities, (6, 1)))
    uniform = np.array([0.0, 0.19, 0.21, 0.69, 0.71, 1 - 2**-23], "float32")
    drawn = sampling.draw(logits, np.full(6, -np.inf, "float32"), uniform)
    np.testing.assert_array_equal(np.asarray(drawn), [0, 0, 2, 2, 3, 3])


def test_frequencies_follow_the_temperature():
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]], "float32"))
    rows, temperature = 20_000, 0.5
    drawn = sampling.sample(
        np.tile(logits, (rows, 1)),
        np.full(rows, temperature, "float32"),
        np.zeros(rows, "int32"),
        np.ones(rows, "float32"),
        np.zeros(rows, "float32"),
        np.arange(rows, dtype="int32"),
        5,
    )
    expected = np.array([1, 4, 9, 16]) / 30
    frequencies = np.bincount(np.asarray(drawn), minlength=4) / rows
    np.testing.assert_allclose(frequencies, expected, atol=0.012)


def test_zero_temperature_is_greedy_beside_rows_that_are_not():
    logits = np.random.default_rng(0).normal(size=(5, 11)).astype("float32")
    ones = np.ones(5, "float32")
    drawn = sampling.sample(
        logits,
        np.array([0, 9, 0, 9, 0], "float32"),
        np.zeros(5, "int32"),
        ones,
        0 * ones,
        np.arange(5, dtype="int32"),
        0,
    )
    np.testing.assert_array_equal(
        np.asarray(drawn)[[0, 2, 4]], logits.argmax(-1)[[0, 2, 4]]
    )


def test_the_least_temperatures_take_the_likeliest_token():
    logits = np.array([[-3e4, 9.0, 8.99, -9.0], [3e4, -1.0, 2.0, 0.5]], "float32")
    for temperature in (1e-3, 1e-6, 1e-30, 1e-42):
        drawn = sampling.sample(
            logits,
            np.full(2, temperature, "float32"),
            np.zeros(2, "int32"),
            np.ones(2, "float32"),
            np.zeros(2, "float32"),
            np.array([5, 6], "int32"),
            3,
        )
        np.testing.assert_array_equal(np.asarray(drawn), [1, 0])


def test_repetition_penalty_only_touches_seen_tokens():
    logits = np.array([[1.0, -1.0, 2.0], [1.0, -1.0, 2.0]], "float32")
    seen = np.array([[True, True, False], [True, True, True]])
    got = sampling.penalize_repetition(logits, seen, np.array([2.0, 1.0], "float32"))
    np.testing.assert_array_equal(np.asarray(got), [[0.5, -2.0, 2.0], [1, -1, 2]])
