"""The order of rows: a permutation of every size, well mixed, by key."""

import numpy as np
import pytest

from keras_llm.data.permutation import permute, uniform_below

SIZES = [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 64, 97, 255, 256, 257, 1021, 4096, 65537]


@pytest.mark.parametrize("size", SIZES)
def test_every_element_is_hit_once(size):
    for key in [(0, 0), (0, 1), (7, 3), (2**63 - 1, 10**6)]:
        image = permute(np.arange(size), size, *key)
        np.testing.assert_array_equal(np.sort(image), np.arange(size))


def test_one_element_at_a_time_is_the_same():
    whole = permute(np.arange(101), 101, 5, 2)
    single = [int(permute(np.array([i]), 101, 5, 2)[0]) for i in range(101)]
    assert whole.tolist() == single


def test_huge_sizes_need_no_table():
    size = 2**61 - 1
    index = np.array([0, 1, size // 2, size - 1])
    image = permute(index, size, 3)
    assert len(set(image.tolist())) == 4
    assert ((image >= 0) & (image < size)).all()


def test_small_permutations_are_about_equally_frequent():
    counts = {}
    trials = 6000
    for seed in range(trials):
        order = tuple(permute(np.arange(3), 3, seed).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # Chi-square with 5 degrees of freedom: 20.5 is passed by chance once in 1,000.
    expected = trials / 6
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 20.5


def test_neighbours_are_torn_apart():
    size = 10_007
    image = permute(np.arange(size), size, 1, 0)
    correlation = np.corrcoef(np.arange(size), image)[0, 1]
    assert abs(correlation) < 0.05
    assert (np.abs(np.diff(image)) == 1).sum() < 20  # Two are expected by chance.


def test_another_seed_or_epoch_is_another_order():
    orders = {
        permute(np.arange(50), 50, seed, epoch).tobytes()
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


def test_uniform_draws_are_uniform_and_keyed():
    draws = uniform_below(np.arange(70_000), 7, 11)
    counts = np.bincount(draws, minlength=7)
    # Chi-square with 6 degrees of freedom: 22.5 is passed once in 1,000.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 22.5
    assert not np.array_equal(draws, uniform_below(np.arange(70_000), 7, 12))
    np.testing.assert_array_equal(
        draws[500:600], uniform_below(np.arange(500, 600), 7, 11)
    )
